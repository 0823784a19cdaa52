"""Features and errors of a task's images: the input of resamples, subsets and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbvs.score.frechet import frechet_distance
from pbvs.score.rules import ScoreConfig


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """Scored pairs; row i of every array is the pair `names[i]`.

    Attributes:
        names: of the `n` images.
        pred, target: `n,D` float32 features of predictions and targets, by layer.
        terms: `n,3` float64: LPIPS, L1 and L2 of each pair.
    """

    names: tuple[str, ...]
    pred: Mapping[int, NDArray[np.float32]]
    target: Mapping[int, NDArray[np.float32]]
    terms: NDArray[np.float64]

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.names)

    def by_name(self) -> ScoredSet:
        """The same pairs, sorted by name."""
        rows = np.array(sorted(range(len(self)), key=lambda i: self.names[i]))
        pred, target = ({layer: side[layer][rows] for layer in side} for side in (self.pred, self.target))
        return ScoredSet(tuple(self.names[i] for i in rows), pred, target, self.terms[rows])

    def fid(self, layer: int, rows: NDArray[np.intp] | slice = slice(None)) -> float:
        """The FID of some rows, repeated rows counting each time; of all rows by default."""
        return frechet_distance(self.pred[layer][rows], self.target[layer][rows])

    def means(self, rows: NDArray[np.intp] | slice = slice(None)) -> tuple[float, float, float]:
        """Mean LPIPS, L1 and L2 of some rows."""
        lpips, l1, l2 = self.terms[rows].mean(axis=0)
        return float(lpips), float(l1), float(l2)

    def score(self, config: ScoreConfig, rows: NDArray[np.intp] | slice = slice(None)) -> float:
        """The score of some rows."""
        return config.score(self.fid(config.fid_layer, rows), *self.means(rows))
