"""What can be known of every table of channel sums at once, from one look at each pair of images.

A pixel of a table's image depends on nothing but its channel sum, so the errors of *every* table follow from
the joint histogram of sums and target levels: with `n[s,t]` pixels of sum s and target t,

    sum |table[s] - t|   = sum over s of a[s, table[s]],   a[s,v] = sum over t of n[s,t] |v - t|
    sum (table[s] - t)^2 = sum over s of n[s] table[s]^2 - 2 table[s] m[s] + q[s]

in whole numbers, so no digit is lost whatever the number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from pbvs.core.pixels import WHITE
from pbvs.graph.nodes.channel_sums import N_SUMS, channel_sums

N_LEVELS = int(WHITE) + 1
Stored8 = NDArray[np.uint8]
Valid = NDArray[np.bool_]


def joint_histogram(rgb: Stored8, target: Stored8, valid: Valid) -> NDArray[np.int64]:
    """`766,256` counts of the valid pixels by channel sum and target level.

    Args:
        rgb: `H,W,3`.
        target: `H,W,1`.
        valid: `H,W`.
    """
    both = channel_sums(rgb).astype(np.int64) * N_LEVELS + target[:, :, 0]
    return np.bincount(both[valid], minlength=N_SUMS * N_LEVELS).reshape(N_SUMS, N_LEVELS)


def errors_of_tables(counts: NDArray[np.int64], tables: Stored8) -> tuple[NDArray, NDArray]:
    """L1 and L2 (root mean square) of what each table makes of one image.

    Args:
        counts: `766,256`, of `joint_histogram`; at least one pixel.
        tables: `K,766`.

    Returns:
        Two `K float64` in [0,1]; exact but for the last division and root.
    """
    levels = np.arange(N_LEVELS)
    n_pixels = counts.sum()
    n, m = counts.sum(axis=1), counts @ levels
    q = (counts @ levels**2).sum()
    up_to = np.cumsum(counts, axis=1)
    moment_up_to = np.cumsum(counts * levels, axis=1)
    absolute = levels * (2 * up_to - n[:, None]) + m[:, None] - 2 * moment_up_to
    wide = tables.astype(np.int64)
    l1 = np.take_along_axis(absolute, wide.T, axis=1).sum(axis=0) / n_pixels
    squared = (wide**2) @ n - 2 * (wide @ m) + q
    return l1 / WHITE, np.sqrt(squared / n_pixels) / WHITE


def factor_tables(factors: NDArray[np.float64]) -> Stored8:
    """`K,766`: what grayscale and each of `K` factors make of every sum, as the nodes round."""
    levels = factors[:, None] * (np.arange(N_SUMS) / 3)
    return np.rint(np.clip(levels, 0.0, WHITE)).astype(np.uint8)


def fitted_table(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The never falling table `766` with the least squared error on all pixels of `counts`, not rounded.

    The isotonic regression of the targets' mean at each sum; sums that do not occur are filled in evenly.
    """
    n = counts.sum(axis=1)
    seen = np.flatnonzero(n)
    means = (counts @ np.arange(N_LEVELS))[seen] / n[seen]
    fitted = isotonic_regression(means, weights=n[seen].astype(np.float64)).x
    table: NDArray[np.float64] = np.interp(np.arange(N_SUMS), seen, fitted)
    return table.clip(0.0, WHITE)


@dataclass
class MixMoments:
    """What least squares of targets on bands needs of any number of pixels, summed in float64.

    Attributes:
        products: `4,4`: the sums of products of (R, G, B, 1) with each other; whole numbers below 2^53.
        with_target: `4`: those with the target.
    """

    products: NDArray[np.float64]
    with_target: NDArray[np.float64]

    @classmethod
    def none(cls) -> MixMoments:
        """Of no pixels."""
        return cls(np.zeros((4, 4)), np.zeros(4))

    def add(self, rgb: Stored8, target: Stored8, valid: Valid) -> None:
        """Takes in the valid pixels of one pair, as `joint_histogram` has them."""
        bands = rgb[valid].astype(np.float64)
        rows = np.concatenate([bands, np.ones((len(bands), 1))], axis=1)
        self.products += rows.T @ rows
        self.with_target += rows.T @ target[:, :, 0][valid].astype(np.float64)

    def fitted(self) -> tuple[tuple[float, float, float], float]:
        """Weights of the bands, and offset in levels, of the least squared error before clipping."""
        # By eigenvalues: bands that are equal leave the share of each open, and it is then the same.
        found = np.linalg.lstsq(self.products, self.with_target, rcond=1e-12)[0]
        return (float(found[0]), float(found[1]), float(found[2])), float(found[3])


def mixed(rgb: Stored8, weights: Sequence[float], offset: float) -> Stored8:
    """`H,W,1`: what the node `channel_mix` makes of `H,W,3`, rounded as images are."""
    levels = rgb.astype(np.float64) @ np.asarray(weights, np.float64) + offset
    return np.rint(np.clip(levels, 0.0, WHITE)).astype(np.uint8)[:, :, None]


def pixel_errors(made: Stored8, target: Stored8, valid: Valid) -> tuple[float, float]:
    """L1 and L2 (root mean square) of one image, over its valid pixels, in [0,1]."""
    apart = (made.astype(np.float64) - target)[valid] / WHITE
    return float(np.abs(apart).mean()), float(np.sqrt((apart**2).mean()))
