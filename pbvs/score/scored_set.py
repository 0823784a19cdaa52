"""What a task's score is made of, image by image: from it come resamples, subsets and comparisons."""

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
        made, real: `n,D` float32 features of predictions and targets, by layer.
        terms: `n,3` float64: LPIPS, L1 and L2 of each pair.
    """

    names: tuple[str, ...]
    made: Mapping[int, NDArray[np.float32]]
    real: Mapping[int, NDArray[np.float32]]
    terms: NDArray[np.float64]

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.names)

    def by_name(self) -> ScoredSet:
        """The same pairs, sorted by name."""
        rows = np.array(sorted(range(len(self)), key=lambda i: self.names[i]))
        parts = [{layer: found[rows] for layer, found in side.items()} for side in (self.made, self.real)]
        return ScoredSet(tuple(self.names[i] for i in rows), parts[0], parts[1], self.terms[rows])

    def fid(self, layer: int, rows: NDArray[np.intp] | slice = slice(None)) -> float:
        """The FID of some rows, repeats counting as often as they come; all by default."""
        return frechet_distance(self.made[layer][rows], self.real[layer][rows])

    def means(self, rows: NDArray[np.intp] | slice = slice(None)) -> tuple[float, float, float]:
        """Mean LPIPS, L1 and L2 of some rows."""
        lpips, l1, l2 = self.terms[rows].mean(axis=0)
        return float(lpips), float(l1), float(l2)

    def score(self, ranking: ScoreConfig, rows: NDArray[np.intp] | slice = slice(None)) -> float:
        """The score of some rows as if they were all."""
        return ranking.score(self.fid(ranking.fid_layer, rows), *self.means(rows))
