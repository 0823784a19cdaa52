"""Averages over turns and checkpoints."""

import pytest
import torch
from pydantic import ValidationError

from pbvs.graph.inference import InferenceParams, ensemble_mean, turned, undo

IMAGE = torch.arange(2 * 3 * 4, dtype=torch.float64).view(1, 2, 3, 4)


def test_the_eight_turns_differ_and_are_undone():
    ways = {tuple(turned(IMAGE, turn).flatten().tolist()) for turn in range(8)}
    assert len(ways) == 8
    for turn in range(8):
        assert turned(IMAGE, turn).shape[2:] == ((4, 3) if turn & 4 else (3, 4))
        assert torch.equal(undo(turned(IMAGE, turn), turn), IMAGE)


@pytest.mark.parametrize("turns", [1, 2, 4, 8])
def test_a_network_that_knows_no_direction_is_not_changed(turns):
    average = ensemble_mean([lambda x, transposed: 2 * x], InferenceParams(turns=turns))
    torch.testing.assert_close(average(IMAGE), 2 * IMAGE, rtol=0, atol=1e-12)


def test_a_network_with_a_direction_is_averaged_over_all():
    def brighter_to_the_right(x, transposed):
        return x + torch.arange(x.shape[3], dtype=x.dtype)

    made = ensemble_mean([brighter_to_the_right], InferenceParams(turns=2))(IMAGE)
    torch.testing.assert_close(made, IMAGE + 1.5, rtol=0, atol=1e-12)
    # Of eight, four run along the columns (mean 1.5) and four along the rows (mean 1).
    eight = ensemble_mean([brighter_to_the_right], InferenceParams(turns=8))(IMAGE)
    torch.testing.assert_close(eight, IMAGE + 1.25, rtol=0, atol=1e-12)


def test_checkpoints_are_weighed_relative_to_each_other():
    members = [lambda x, _: x, lambda x, _: 3 * x]
    both = ("best", "last")
    equal = ensemble_mean(members, InferenceParams(checkpoints=both))(IMAGE)
    torch.testing.assert_close(equal, 2 * IMAGE, rtol=0, atol=1e-12)
    uneven = ensemble_mean(members, InferenceParams(checkpoints=both, weights=(3, 1), turns=4))(IMAGE)
    torch.testing.assert_close(uneven, 1.5 * IMAGE, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"weights": (1, 2)}, {"weights": (0,)}, {"turns": 3}, {"checkpoints": ()}])
def test_settings_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValidationError):
        InferenceParams(**wrong)
