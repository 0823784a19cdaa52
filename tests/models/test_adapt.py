"""Weights carried to other bands keep the response on gray images."""

import pytest
import torch

from pbvs.errors import CheckpointError
from pbvs.models.adapt import adapt_discriminator, adapt_generator
from pbvs.models.layers import first_weights
from pbvs.models.pix2pixhd import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, stacked

SHAPE = GeneratorConfig(channels=4, downsamplings=1, blocks=1)


def drawn(network, seed):
    first_weights(network, torch.Generator().manual_seed(seed))
    return network.double()


@pytest.mark.parametrize("kind", ["global", "local"])
def test_three_bands_begin_as_the_gray_of_one(kind):
    shape = SHAPE.model_copy(update={"kind": kind, "enhancer_blocks": 1})
    one, three = drawn(Generator(shape, 1, 1), 0), drawn(Generator(shape, 1, 3), 1)
    told = adapt_generator(three, one.state_dict())
    assert len(told.adapted) == 2
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(three(x), one(x).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("kind", ["global", "local"])
def test_other_source_bands_answer_equal_bands_as_before(kind):
    shape = SHAPE.model_copy(update={"kind": kind, "enhancer_blocks": 1})
    one, three = drawn(Generator(shape, 1, 1), 0), drawn(Generator(shape, 3, 1), 1)
    adapt_generator(three, one.state_dict())
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(three(x.expand(-1, 3, -1, -1)), one(x))


def test_the_discriminator_judges_gray_as_before():
    shape = DiscriminatorConfig(channels=4, layers=2, scales=2)
    old, new = drawn(Discriminator(shape, 2), 0), drawn(Discriminator(shape, 4), 1)
    told = adapt_discriminator(new, old.state_dict(), 1, 1)
    assert len(told.adapted) == 2
    x, y = torch.randn(2, 1, 1, 32, 32, dtype=torch.float64)
    before, after = old(stacked(x, y)), new(stacked(x, y.expand(-1, 3, -1, -1)))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a[-1], b[-1])


def test_other_shapes_are_refused_by_name():
    wide = drawn(Generator(SHAPE.model_copy(update={"channels": 6}), 1, 1), 0)
    with pytest.raises(CheckpointError, match=r"model\.1\.weight is \(6, 1, 7, 7\)"):
        adapt_generator(Generator(SHAPE, 1, 1), wide.state_dict())
