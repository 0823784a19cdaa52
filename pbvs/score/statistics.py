"""Streamed mean and covariance of features, for sets too large for memory, in pytorch-fid's file format."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import ScoreError
from pbvs.core.files import atomic_write


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of one layer's features: `mean` is `D`, `covariance` `D,D` (over n - 1), both float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def distance(self, other: Statistics) -> float:
        """The Fréchet distance of two Gaussians with these moments, see `pbvs.score.frechet`.

        The trace of (C1 C2)^(1/2) is the sum of the singular values of S1 S2 for any S with S'S = C. Its
        error is the rounding of the covariances' eigenvalues (1e-8 relative); computed from the features
        (`frechet_distance`) it is exact also for fewer images than features.

        Raises:
            ScoreError: features of other layers.
        """
        if self.mean.shape != other.mean.shape:
            raise ScoreError(
                f"statistics of {len(self.mean)} and {len(other.mean)} features cannot be compared",
                next_step="use statistics of the same layer",
            )
        roots = [_root(covariance) for covariance in (self.covariance, other.covariance)]
        cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
        traces = np.trace(self.covariance) + np.trace(other.covariance)
        distance = np.sum((self.mean - other.mean) ** 2) + traces - 2.0 * cross
        return max(0.0, float(distance))

    def save(self, path: Path) -> None:
        """Writes them as pytorch-fid does: an `.npz` with `mu` and `sigma`, atomically."""
        with atomic_write(path) as tmp_path, tmp_path.open("wb") as stream:
            np.savez_compressed(stream, mu=self.mean, sigma=self.covariance)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Reads an `.npz` of `save` or of pytorch-fid.

        Raises:
            ScoreError: the file is missing, truncated or corrupt, or has other contents.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise ScoreError(
                f"the statistics cannot be read: {error}",
                where=path,
                next_step="use an .npz with mu and sigma, as `python -m pytorch_fid --save-stats` writes",
            ) from error
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ScoreError(
                f"mu and sigma are {mean.shape} and {covariance.shape}, not D and D,D", where=path
            )
        return cls(mean, covariance)


class Moments:
    """Accumulates features in memory for `D,D` numbers.

    Pairwise update of Chan, Golub & LeVeque, The American Statistician 37(3), 1983, equation 2.1.

    Args:
        n_features: D.
    """

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self._mean = np.zeros(n_features)
        self._scatter = np.zeros((n_features, n_features))

    def add(self, rows: NDArray) -> None:
        """Adds `n,D` features."""
        rows = np.asarray(rows, np.float64)
        n_new, n_all = len(rows), self.n + len(rows)
        if not n_new:
            return
        mean = rows.mean(axis=0)
        centred, delta = rows - mean, mean - self._mean
        self._scatter += centred.T @ centred + np.outer(delta, delta) * (self.n * n_new / n_all)
        self._mean += delta * (n_new / n_all)
        self.n = n_all

    def statistics(self) -> Statistics:
        """Of all added rows; ScoreError for fewer than 2."""
        if self.n < 2:
            raise ScoreError(f"statistics need at least 2 images, not {self.n}")
        return Statistics(self._mean.copy(), self._scatter / (self.n - 1))


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """S with S'S = `covariance`, which may be singular."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root: NDArray[np.float64] = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
    return root
