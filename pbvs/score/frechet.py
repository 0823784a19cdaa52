"""The Fréchet distance between Gaussians fitted to two sets of features, without a matrix square root.

Dowson & Landau 1982; as the FID: Heusel et al. 2017, equation 6:

    d = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))

With centred features A (n1 x D) and B (n2 x D), C1 = A'A/(n1-1) and C2 = B'B/(n2-1), and the last trace is
the sum of the singular values of A B' over sqrt((n1-1)(n2-1)). That is exact also for n < D (where the
square root of C1 C2 is ill-conditioned), never complex, and needs no `scipy.linalg.sqrtm(disp=)`, which
SciPy 1.18 removed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import ScoreError

# Rounding error of equal sets in another order, relative to tr(C1) + tr(C2).
_ROUNDING = 1e-12


def frechet_distance(first: NDArray, second: NDArray) -> float:
    """Fréchet distance of two sets of features.

    Args:
        first, second: `n1,D` and `n2,D`, one row per image, of the same D; computed in float64.

    Returns:
        A number >= 0; exactly 0 for the same set, in any order.

    Raises:
        ScoreError: fewer than 2 rows in either, different D, or features that are not finite.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ScoreError(f"features are n,D with one D, not {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ScoreError(
            f"FID needs at least 2 images on each side; here are {len(a)} and {len(b)}",
            next_step="score more images at once",
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ScoreError("features are not finite")
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    a, b = a - mean_a, b - mean_b
    free_a, free_b = len(a) - 1, len(b) - 1
    traces = np.sum(a * a) / free_a + np.sum(b * b) / free_b
    nuclear_norm = float(np.linalg.svd(_compact(a) @ _compact(b).T, compute_uv=False).sum())
    cross = nuclear_norm / math.sqrt(free_a * free_b)
    between_means = np.sum((mean_a - mean_b) ** 2)
    distance = float(between_means + traces - 2.0 * cross)
    return distance if distance > _ROUNDING * traces else 0.0


def _compact(rows: NDArray) -> NDArray:
    """A matrix R of at most D rows with R'R = rows'rows, so products keep their singular values."""
    n_rows, n_features = rows.shape
    if n_rows <= n_features:
        return rows
    triangle: NDArray = np.asarray(np.linalg.qr(rows, mode="r"))
    return triangle
