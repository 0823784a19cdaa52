"""Channel sums through a look-up table, free tables, mixes and blends, against plain numpy."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from pbvs.core import pixels
from pbvs.graph.node_kinds import UNTRAINED
from pbvs.graph.nodes import channel_sums as sums_module
from pbvs.graph.nodes.blend import BlendParams
from pbvs.graph.nodes.channel_mix import ChannelMixParams
from pbvs.graph.nodes.channel_sums import apply_lut, channel_sums, lut_of
from pbvs.graph.nodes.grayscale import grayscale, intensity
from pbvs.graph.nodes.lut import LutParams
from pbvs.graph.picture import Computed, Sources

SUMS = np.arange(766)
RGB = np.random.default_rng(4).integers(0, 256, (301, 257, 3), dtype=np.uint8)


@dataclass
class Context:
    """Of a task that writes images of this size."""

    size_px: tuple[int, int]


def run(use, params, *pictures, size_px=RGB.shape[:2]):
    return UNTRAINED[use].prepare(params, Context(size_px))(list(pictures))


def test_channel_sums_are_exact_for_every_carry():
    values = np.array([0, 1, 127, 128, 129, 254, 255], np.uint8)
    every = np.stack(np.meshgrid(values, values, values), axis=-1).reshape(7, 49, 3)
    for image in (every, RGB, RGB[::2, ::3], np.full((1, 1, 3), 255, np.uint8)):
        assert np.array_equal(channel_sums(np.ascontiguousarray(image)), image.astype(int).sum(axis=2))


@pytest.mark.parametrize("opencv", [cv2.__version__, "4.10.0"])
@pytest.mark.parametrize("factor", [1.3, 1.15, 0.7])
def test_the_lut_of_a_chain_equals_the_chain(factor, opencv, monkeypatch):
    monkeypatch.setattr(cv2, "__version__", opencv)  # version 4 looks up bytes alone
    monkeypatch.setattr(sums_module, "_BAND_PX", 10_000)  # several bands, the last one shorter

    def chain(images):
        return intensity(grayscale(images), factor)

    lut = lut_of(chain)
    assert np.array_equal(lut, np.rint(np.clip(factor * (SUMS / 3), 0, 255)).astype(np.uint8))
    expected = pixels.stored_from_float255(chain(pixels.float255_from_stored(RGB)))
    assert np.array_equal(apply_lut(RGB, lut), expected)


def test_a_lut_is_looked_up_by_the_sum():
    values = np.random.default_rng(1).uniform(0, 255, 766)
    result = pixels.stored_from_float255(run("lut", LutParams(values=tuple(values)), Sources([RGB])))
    assert np.array_equal(result[..., 0], np.rint(values[RGB.astype(int).sum(axis=2)]).astype(np.uint8))


def test_a_channel_mix_is_linear_and_clipped():
    params = ChannelMixParams(weights=(0.9, -0.2, 0.7), offset=-20.0)
    result = run("channel_mix", params, Sources([RGB]))
    expected = np.clip(RGB @ np.array(params.weights) + params.offset, 0, 255)
    assert expected.min() == 0 and expected.max() == 255
    np.testing.assert_allclose(result[0, 0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("weights", "share"), [(None, 0.5), ((3.0, 1.0), 0.75)])
def test_a_blend_is_the_weighted_mean(weights, share):
    a, b = torch.rand(2, 1, 1, 4, 4, dtype=torch.float64)
    result = run("blend", BlendParams(weights=weights), Computed(a), Computed(b), size_px=(4, 4))
    torch.testing.assert_close(result, share * a + (1 - share) * b, rtol=0, atol=1e-12)


def test_nodes_say_which_bands_they_take():
    mix, blend = ChannelMixParams(weights=(1.0, 2.0)), BlendParams(weights=(1.0,))
    for use, params, bands, message in [
        ("channel_mix", mix, [3], "2 weights"),
        ("lut", None, [1], "3-band"),
        ("blend", BlendParams(), [1, 3], "same bands"),
        ("blend", blend, [1, 1], "2 inputs"),
    ]:
        with pytest.raises(ValueError, match=message):
            UNTRAINED[use].bands(params, bands)


def test_inputs_of_other_sizes_are_read_at_the_task_s_size():
    """A stored image is resized in whole numbers, a computed one is not rounded on the way."""
    stored = RGB[:48, :64, :1]
    computed = torch.rand(1, 1, 36, 30, dtype=torch.float64) * 255
    result = run("blend", BlendParams(), Sources([stored]), Computed(computed), size_px=(24, 32))
    expected = [
        pixels.float255_from_stored(pixels.resize(stored, (24, 32))),
        pixels.resize_float255(computed, (24, 32)),
    ]
    torch.testing.assert_close(result, (expected[0] + expected[1]) / 2, rtol=0, atol=1e-12)
