"""How far a score would move with another choice of images: a seeded bootstrap, and subsets of a given size.

Bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13): pairs are drawn
with repeats, as many as there are. Repeats leave fewer different images, and FID rises with that, so
percentiles are taken about the resamples' own median and put about the score.

Subsets: FID is biased by the number of images (Binkowski et al. 2018, section 4), so a score of 600 images
does not compare with a board's of 60; the mean over subsets of 60, drawn without repeats, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbvs.core.challenge import TASKS
from pbvs.core.errors import ScoreError, UsageError
from pbvs.score.rules import ScoreConfig
from pbvs.score.scored_set import ScoredSet

N_RESAMPLES = 200
N_SUBSETS = 100
# A Fréchet distance costs the cube of the smaller of images and features; above this, minutes in all.
_MAX_SIDE = 256
_PERCENTS = (2.5, 50.0, 97.5)

Interval = tuple[float, float]
Deviations = NDArray[np.float64]  # of resampled scores from their own median


def score_deviations(sample: ScoredSet, ranking: ScoreConfig, seed: int = 0) -> Deviations | None:
    """How far each of `N_RESAMPLES` scores lies from their median; None where that takes minutes."""
    if not _is_cheap(sample, ranking):
        return None
    scores = np.array([sample.score(ranking, rows) for rows in _draws(len(sample), seed)])
    deviations: Deviations = scores - np.median(scores)
    return deviations


def score_interval(sample: ScoredSet, ranking: ScoreConfig, seed: int = 0) -> Interval | None:
    """95 % interval of a task's score over the choice of images.

    Returns:
        Lower and upper bound; None where both the images and the layer's features are over 256.
    """
    deviations = score_deviations(sample, ranking, seed)
    return None if deviations is None else _about(sample.score(ranking), deviations)


def overall_interval(
    samples: Mapping[str, ScoredSet], ranking: ScoreConfig, overall: float
) -> Interval | None:
    """95 % interval of the overall score, the tasks' images being chosen independently.

    Args:
        samples: of the scored tasks, by name.
        ranking: what makes the scores.
        overall: the overall score itself.
    """
    parts = [
        score_deviations(samples[task], ranking, 1 + n) for n, task in enumerate(TASKS) if task in samples
    ]
    if any(part is None for part in parts):
        return None
    total = np.sum([part for part in parts if part is not None], axis=0)
    return _about(overall, total / len(TASKS))


@dataclass(frozen=True)
class Comparison:
    """One task's predictions A beside B, on the same targets.

    Attributes:
        score, other: of A and of B.
        interval95: of `score - other`; None where it costs too much.
        certainty: the part of resamples in which the one that scores lower on all images scores lower too,
            in [0,1]; 0.5 or so says nothing. None where it costs too much.
    """

    score: float
    other: float
    interval95: Interval | None
    certainty: float | None

    @property
    def difference(self) -> float:
        """Below 0 where A is better."""
        return self.score - self.other


def compare(first: ScoredSet, second: ScoredSet, ranking: ScoreConfig, seed: int = 0) -> Comparison:
    """Two sets of predictions for the same targets, by resampling both alike (a paired bootstrap).

    Raises:
        ScoreError: the targets are not the same.
    """
    a, b = first.by_name(), second.by_name()
    layer = ranking.fid_layer
    if a.names != b.names or not np.array_equal(a.real[layer], b.real[layer]):
        raise ScoreError(
            "the two were scored against different targets", next_step="score both against the same folder"
        )
    score, other = a.score(ranking), b.score(ranking)
    if not _is_cheap(a, ranking):
        return Comparison(score, other, None, None)
    drawn = np.array([a.score(ranking, rows) - b.score(ranking, rows) for rows in _draws(len(a), seed)])
    difference = score - other
    about = drawn - np.median(drawn) + difference
    low, _, high = np.percentile(about, _PERCENTS)
    certainty = float(np.mean(about < 0 if difference < 0 else about > 0)) if difference else 0.5
    return Comparison(score, other, (float(low), float(high)), certainty)


@dataclass(frozen=True)
class SubsetScore:
    """A score at a given number of images: mean and standard deviation over subsets.

    Attributes:
        images: of each subset.
        subsets: how many were drawn.
        score, score_sd: of the score.
        fid, fid_sd: of the FID of the layer that is ranked by.
    """

    images: int
    subsets: int
    score: float
    score_sd: float
    fid: float
    fid_sd: float


def subset_score(sample: ScoredSet, images: int, ranking: ScoreConfig, seed: int = 0) -> SubsetScore:
    """The mean score of `N_SUBSETS` random subsets; of all images at once where there are just as many.

    Raises:
        UsageError: fewer images than asked for, or fewer than 2 asked for.
    """
    if not 2 <= images <= len(sample):
        raise UsageError(
            f"a subset of {images} cannot be taken of {len(sample)} images",
            next_step="ask for 2 or more of them",
        )
    draw = np.random.default_rng([seed, images])
    n_subsets = N_SUBSETS if images < len(sample) else 1
    found = []
    for _ in range(n_subsets):
        rows = draw.permutation(len(sample))[:images]
        fid = sample.fid(ranking.fid_layer, rows)
        found.append((ranking.score(fid, *sample.means(rows)), fid))
    (score, fid), (score_sd, fid_sd) = np.mean(found, axis=0), np.std(found, axis=0)
    return SubsetScore(images, n_subsets, float(score), float(score_sd), float(fid), float(fid_sd))


def _is_cheap(sample: ScoredSet, ranking: ScoreConfig) -> bool:
    n_images, n_features = sample.made[ranking.fid_layer].shape
    return int(min(n_images, n_features)) <= _MAX_SIDE


def _draws(n: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(n, size=(N_RESAMPLES, n))


def _about(score: float, deviations: Deviations) -> Interval:
    low, middle, high = np.percentile(deviations, _PERCENTS)
    return max(0.0, score - float(middle - low)), score + float(high - middle)
