"""Channel sums through a table, free tables, mixes and blends, against plain numpy."""

import numpy as np
import pytest
import torch

from pbvs.core import pixels
from pbvs.graph.node_kinds import NODE_KINDS
from pbvs.graph.nodes import channel_sums as sums_module
from pbvs.graph.nodes.blend import BlendParams
from pbvs.graph.nodes.channel_mix import ChannelMixParams
from pbvs.graph.nodes.channel_sums import apply_lut, channel_sums, table_of
from pbvs.graph.nodes.grayscale import grayscale, intensity
from pbvs.graph.nodes.lut import LutParams

SUMS = np.arange(766)
RGB = np.random.default_rng(4).integers(0, 256, (301, 257, 3), dtype=np.uint8)


def operator(use, params):
    return NODE_KINDS[use].prepare(params, None)


def test_channel_sums_are_exact_for_every_carry():
    values = np.array([0, 1, 127, 128, 129, 254, 255], np.uint8)
    every = np.stack(np.meshgrid(values, values, values), axis=-1).reshape(7, 49, 3)
    for image in (every, RGB, RGB[::2, ::3], np.full((1, 1, 3), 255, np.uint8)):
        assert np.array_equal(channel_sums(np.ascontiguousarray(image)), image.astype(int).sum(axis=2))


@pytest.mark.parametrize("with_lut", [True, False])
@pytest.mark.parametrize("factor", [1.3, 1.15, 0.7])
def test_the_table_of_nodes_is_what_they_make(factor, with_lut, monkeypatch):
    if with_lut and not sums_module._LUT_TAKES_16_BITS:
        pytest.skip("this OpenCV looks up bytes alone")
    monkeypatch.setattr(sums_module, "_LUT_TAKES_16_BITS", with_lut)
    monkeypatch.setattr(sums_module, "_BAND_PX", 10_000)  # several bands, the last one shorter

    def nodes(levels):
        return intensity(grayscale(levels), factor)

    table = table_of(nodes)
    assert np.array_equal(table, np.rint(np.clip(factor * (SUMS / 3), 0, 255)).astype(np.uint8))
    expected = pixels.stored_from_float255(nodes(pixels.float255_from_stored(RGB)))
    assert np.array_equal(apply_lut(RGB, table), expected)


def test_a_tone_table_is_looked_up_by_the_sum():
    values = np.random.default_rng(1).uniform(0, 255, 766)
    node = operator("tone_table", LutParams(values=tuple(values)))
    made = pixels.stored_from_float255(node([pixels.float255_from_stored(RGB)]))
    assert np.array_equal(made[..., 0], np.rint(values[RGB.astype(int).sum(axis=2)]).astype(np.uint8))


def test_a_band_mix_is_linear_and_clipped():
    params = ChannelMixParams(weights=(0.9, -0.2, 0.7), offset=-20.0)
    made = operator("band_mix", params)([pixels.float255_from_stored(RGB)])
    expected = np.clip(RGB @ np.array(params.weights) + params.offset, 0, 255)
    assert expected.min() == 0 and expected.max() == 255
    np.testing.assert_allclose(made[0, 0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("weights", "share"), [(None, 0.5), ((3.0, 1.0), 0.75)])
def test_a_blend_is_the_weighted_mean(weights, share):
    a, b = torch.rand(2, 1, 1, 4, 4, dtype=torch.float64)
    made = operator("blend", BlendParams(weights=weights))([a, b])
    torch.testing.assert_close(made, share * a + (1 - share) * b, rtol=0, atol=1e-12)


def test_nodes_say_which_bands_they_take():
    mix, blend = ChannelMixParams(weights=(1.0, 2.0)), BlendParams(weights=(1.0,))
    for use, params, bands, words in [
        ("band_mix", mix, [3], "2 weights"),
        ("tone_table", None, [1], "3-band"),
        ("blend", BlendParams(), [1, 3], "same bands"),
        ("blend", blend, [1, 1], "2 inputs"),
    ]:
        with pytest.raises(ValueError, match=words):
            NODE_KINDS[use].bands(params, bands, 1)
