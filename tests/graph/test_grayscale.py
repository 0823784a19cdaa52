"""Grayscale redefinition against plain numpy, pixel for pixel."""

import numpy as np
import pytest

from pbvs.core import pixels
from pbvs.graph.nodes.grayscale import grayscale, intensity


@pytest.mark.parametrize("factor", [1.3, 1.15, 0.7, 1.0])
def test_equals_rint_of_clipped_factor_times_mean_for_every_sum(factor):
    """All 766 sums of three bands, by one image that has each of them."""
    sums = np.arange(766)
    rgb = np.stack([sums // 3, (sums + 1) // 3, (sums + 2) // 3], axis=-1).astype(np.uint8)[None]
    assert (rgb.astype(int).sum(-1)[0] == sums).all()
    expected = np.rint(np.clip(factor * rgb.mean(axis=-1), 0, 255)).astype(np.uint8)
    gray = intensity(grayscale(pixels.float255_from_stored(rgb)), factor)
    np.testing.assert_array_equal(pixels.stored_from_float255(gray)[..., 0], expected)


def test_rounding_the_gray_first_would_lose_values():
    """The wrong formula, which rounds twice, must not pass the test above."""
    sums = np.arange(766)
    twice = np.rint(np.clip(1.3 * np.rint(sums / 3), 0, 255))
    once = np.rint(np.clip(1.3 * (sums / 3), 0, 255))
    assert (twice != once).sum() > 100
