"""Averages over orientations and checkpoints."""

import pytest
import torch
from pydantic import ValidationError

from pbvs.graph.picture import Computed
from pbvs.graph.trained import ensemble_mean, turn, undo
from pbvs.systems.config import InferenceConfig

IMAGE = torch.arange(2 * 3 * 4, dtype=torch.float64).view(1, 2, 3, 4)


def member(network):
    """A network as `ensemble_mean` calls it: a picture and an orientation in, the orientation undone."""
    return lambda picture, orientation: undo(network(turn(picture.images, orientation)), orientation)


def average_of(networks, **config):
    operator = ensemble_mean([member(one) for one in networks], InferenceConfig(**config), (3, 4))
    return operator([Computed(IMAGE)])


def test_the_eight_orientations_differ_and_are_undone():
    orientations = {tuple(turn(IMAGE, n).flatten().tolist()) for n in range(8)}
    assert len(orientations) == 8
    for n in range(8):
        assert turn(IMAGE, n).shape[2:] == ((4, 3) if n & 4 else (3, 4))
        assert torch.equal(undo(turn(IMAGE, n), n), IMAGE)


@pytest.mark.parametrize("tta", [1, 2, 4, 8])
def test_a_network_that_knows_no_direction_is_not_changed(tta):
    average = average_of([lambda x: 2 * x], tta=tta)
    torch.testing.assert_close(average, 2 * IMAGE, rtol=0, atol=1e-12)


def test_a_network_with_a_direction_is_averaged_over_all():
    def brighter_to_the_right(x):
        return x + torch.arange(x.shape[3], dtype=x.dtype)

    two = average_of([brighter_to_the_right], tta=2)
    torch.testing.assert_close(two, IMAGE + 1.5, rtol=0, atol=1e-12)
    # Of eight, four run along the columns (mean 1.5) and four along the rows (mean 1).
    eight = average_of([brighter_to_the_right], tta=8)
    torch.testing.assert_close(eight, IMAGE + 1.25, rtol=0, atol=1e-12)


def test_checkpoints_are_weighed_relative_to_each_other():
    networks = [lambda x: x, lambda x: 3 * x]
    both = ("best", "last")
    equal = average_of(networks, checkpoints=both)
    torch.testing.assert_close(equal, 2 * IMAGE, rtol=0, atol=1e-12)
    uneven = average_of(networks, checkpoints=both, weights=(3, 1), tta=4)
    torch.testing.assert_close(uneven, 1.5 * IMAGE, rtol=0, atol=1e-12)


def test_several_are_averaged_at_the_task_s_size_and_one_alone_keeps_its_own():
    def half(x):
        return x[:, :, ::2, ::2]

    assert average_of([half], checkpoints=("best",)).shape[2:] == (2, 2)
    assert average_of([half], checkpoints=("best",), tta=2).shape[2:] == (2, 2)
    assert average_of([half, half], checkpoints=("best", "last")).shape[2:] == (3, 4)


@pytest.mark.parametrize("wrong", [{"weights": (1, 2)}, {"weights": (0,)}, {"tta": 3}, {"checkpoints": ()}])
def test_settings_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValidationError):
        InferenceConfig(**wrong)
