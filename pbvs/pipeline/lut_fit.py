"""Errors of every look-up table (LUT) of channel sums at once, from one pass over each pair of images.

A pixel depends only on its channel sum, so the errors of *every* LUT follow from the joint histogram of sums
and target values: with `n[s,t]` pixels of sum s and target t,

    sum |lut[s] - t|   = sum over s of a[s, lut[s]],   a[s,v] = sum over t of n[s,t] |v - t|
    sum (lut[s] - t)^2 = sum over s of n[s] lut[s]^2 - 2 lut[s] m[s] + q[s]

in whole numbers, so that no digit is lost however many pixels there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pbvs.core.pixels import WHITE
from pbvs.core.types import Image8, Mask
from pbvs.graph.nodes.channel_sums import N_SUMS, channel_sums

N_VALUES = int(WHITE) + 1


def joint_histogram(rgb: Image8, target: Image8, valid: Mask) -> NDArray[np.int64]:
    """`766,256` counts of the valid pixels by channel sum and target value.

    Args:
        rgb: `H,W,3`.
        target: `H,W,1`.
        valid: `H,W`.
    """
    both = channel_sums(rgb).astype(np.int64) * N_VALUES + target[:, :, 0]
    return np.bincount(both[valid], minlength=N_SUMS * N_VALUES).reshape(N_SUMS, N_VALUES)


def errors_of_luts(counts: NDArray[np.int64], luts: Image8) -> tuple[NDArray, NDArray]:
    """L1 and L2 (root mean square) of each LUT's result for one image.

    Args:
        counts: `766,256`, of `joint_histogram`; at least one pixel.
        luts: `K,766`.

    Returns:
        Two `K float64` in [0,1]; exact but for the last division and root.
    """
    values = np.arange(N_VALUES)
    n_pixels = counts.sum()
    n, m = counts.sum(axis=1), counts @ values
    q = (counts @ values**2).sum()
    up_to = np.cumsum(counts, axis=1)
    moment_up_to = np.cumsum(counts * values, axis=1)
    absolute = values * (2 * up_to - n[:, None]) + m[:, None] - 2 * moment_up_to
    wide = luts.astype(np.int64)
    l1 = np.take_along_axis(absolute, wide.T, axis=1).sum(axis=0) / n_pixels
    squared = (wide**2) @ n - 2 * (wide @ m) + q
    return l1 / WHITE, np.sqrt(squared / n_pixels) / WHITE


def factor_luts(factors: NDArray[np.float64]) -> Image8:
    """`K,766`: grayscale and each of `K` factors as LUTs, rounded as the nodes round."""
    gray = factors[:, None] * (np.arange(N_SUMS) / 3)
    return np.rint(np.clip(gray, 0.0, WHITE)).astype(np.uint8)


def fit_lut(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The non-decreasing LUT `766` of least squared error on all pixels of `counts`, not rounded.

    The isotonic regression of the targets' mean at each sum; sums that do not occur are interpolated.
    """
    n = counts.sum(axis=1)
    sums = np.flatnonzero(n)
    means = (counts @ np.arange(N_VALUES))[sums] / n[sums]
    fitted = isotonic_regression(means, weights=n[sums].astype(np.float64)).x
    lut: NDArray[np.float64] = np.interp(np.arange(N_SUMS), sums, fitted)
    return lut.clip(0.0, WHITE)


@dataclass
class MixMoments:
    """Moments for least squares of targets on bands, summed in float64 over any number of pixels.

    Attributes:
        products: `4,4`: the sums of products of (R, G, B, 1) with each other; whole numbers below 2^53.
        with_target: `4`: those with the target.
    """

    products: NDArray[np.float64]
    with_target: NDArray[np.float64]

    @classmethod
    def zero(cls) -> MixMoments:
        """Of no pixels."""
        return cls(np.zeros((4, 4)), np.zeros(4))

    def __add__(self, other: MixMoments) -> MixMoments:
        return MixMoments(self.products + other.products, self.with_target + other.with_target)

    def add(self, rgb: Image8, target: Image8, valid: Mask) -> None:
        """Adds the valid pixels of one pair; arguments as of `joint_histogram`."""
        bands = rgb[valid].astype(np.float64)
        rows = np.concatenate([bands, np.ones((len(bands), 1))], axis=1)
        self.products += rows.T @ rows
        self.with_target += rows.T @ target[:, :, 0][valid].astype(np.float64)

    def fit(self) -> tuple[tuple[float, float, float], float]:
        """Weights of the bands, and offset in 0..255, of least squared error before clipping."""
        # By eigenvalues: equal bands leave the share of each open, and then share evenly.
        solution = np.linalg.lstsq(self.products, self.with_target, rcond=1e-12)[0]
        return (float(solution[0]), float(solution[1]), float(solution[2])), float(solution[3])


def mixed(rgb: Image8, weights: Sequence[float], offset: float) -> Image8:
    """`H,W,1`: the result of the node `channel_mix` for `H,W,3`, rounded as images are."""
    mix = rgb.astype(np.float64) @ np.asarray(weights, np.float64) + offset
    return np.rint(np.clip(mix, 0.0, WHITE)).astype(np.uint8)[:, :, None]


def pixel_errors(pred: Image8, target: Image8, valid: Mask) -> tuple[float, float]:
    """L1 and L2 (root mean square) of one image over its valid pixels, in [0,1]."""
    difference = (pred.astype(np.float64) - target)[valid] / WHITE
    return float(np.abs(difference).mean()), float(np.sqrt((difference**2).mean()))
