"""How far a score would move with another choice of as many images: a seeded bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pbvs.score.frechet import frechet_distance
from pbvs.score.rules import Ranking

N_RESAMPLES = 200
# A Fréchet distance costs the cube of the smaller of images and features; above this, minutes in all.
_MAX_SIDE = 256


def score_interval(
    made: NDArray, real: NDArray, terms: NDArray, ranking: Ranking, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of a task's score.

    Pairs are drawn with repeats, 200 times. Repeats leave fewer different images, and FID rises with
    that, so the percentiles are taken about the resamples' own median and put about the score.

    Args:
        made, real: `n,D` features of predictions and targets at the layer ranked by, row by row pairs.
        terms: `n,3`: LPIPS, L1 and L2 of each pair.
        ranking: what makes the score.
        seed: of the draws.

    Returns:
        Lower and upper bound, or None where both n and D are over 256.
    """
    if min(made.shape) > _MAX_SIDE:
        return None
    score = _score(made, real, terms, ranking)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(made), size=(N_RESAMPLES, len(made)))
    resampled = np.array([_score(made[rows], real[rows], terms[rows], ranking) for rows in draws])
    low, middle, high = np.percentile(resampled, [2.5, 50.0, 97.5])
    return max(0.0, score - float(middle - low)), score + float(high - middle)


def _score(made: NDArray, real: NDArray, terms: NDArray, ranking: Ranking) -> float:
    lpips, l1, l2 = (float(mean) for mean in terms.mean(axis=0))
    return ranking.score(frechet_distance(made, real), lpips, l1, l2)
