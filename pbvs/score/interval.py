"""How much a score depends on the choice of images: a seeded bootstrap, and subsets of a given size.

Bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13): as many pairs as
there are, drawn with replacement. A resample has fewer distinct images, which raises the FID, so the
percentiles are computed relative to the resamples' own median and centred on the score.

Subsets: FID is biased by the number of images (Binkowski et al. 2018, section 4), so a score of 600 images is
not comparable to a board's of 60; the mean over subsets of 60, drawn without replacement, is.
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
# A Fréchet distance costs the cube of the smaller of images and features; above this size the resamples take
# minutes.
_MAX_SIDE = 256
_PERCENTS = (2.5, 50.0, 97.5)

Interval = tuple[float, float]
Deviations = NDArray[np.float64]  # of resampled scores from their own median


def score_deviations(scored: ScoredSet, config: ScoreConfig, seed: int = 0) -> Deviations | None:
    """The deviations of `N_RESAMPLES` scores from their median; None if that would take minutes."""
    if not _is_cheap(scored, config):
        return None
    scores = np.array([scored.score(config, rows) for rows in _resamples(len(scored), seed)])
    deviations: Deviations = scores - np.median(scores)
    return deviations


def score_interval(scored: ScoredSet, config: ScoreConfig, seed: int = 0) -> Interval | None:
    """95 % interval of a task's score over the choice of images.

    Returns:
        Lower and upper bound; None if both the images and the layer's features are over 256.
    """
    deviations = score_deviations(scored, config, seed)
    return None if deviations is None else _interval_about(scored.score(config), deviations)


def overall_interval(
    scored_sets: Mapping[str, ScoredSet], config: ScoreConfig, overall: float
) -> Interval | None:
    """95 % interval of the overall score, with the tasks' images chosen independently.

    Args:
        scored_sets: by task.
        config: rules, FID layer and arctan weight.
        overall: the overall score itself.
    """
    parts = [
        score_deviations(scored_sets[task], config, 1 + n)
        for n, task in enumerate(TASKS)
        if task in scored_sets
    ]
    if any(part is None for part in parts):
        return None
    total = np.sum([part for part in parts if part is not None], axis=0)
    return _interval_about(overall, total / len(TASKS))


@dataclass(frozen=True)
class Comparison:
    """One task's predictions A compared to B, on the same targets.

    Attributes:
        score, other: of A and of B.
        interval95: of `score - other`; None if it is too costly.
        certainty: the fraction of resamples that agree with all images on which one scores lower, in [0,1];
            about 0.5 means undecided. None if it is too costly.
    """

    score: float
    other: float
    interval95: Interval | None
    certainty: float | None

    @property
    def difference(self) -> float:
        """Below 0 if A is better."""
        return self.score - self.other


def compare(first: ScoredSet, second: ScoredSet, config: ScoreConfig, seed: int = 0) -> Comparison:
    """Compares two sets of predictions for the same targets, by a paired bootstrap.

    Raises:
        ScoreError: the targets are not the same.
    """
    a, b = first.by_name(), second.by_name()
    layer = config.fid_layer
    if a.names != b.names or not np.array_equal(a.target[layer], b.target[layer]):
        raise ScoreError(
            "the two were scored against different targets", next_step="score both against the same folder"
        )
    score, other = a.score(config), b.score(config)
    if not _is_cheap(a, config):
        return Comparison(score, other, None, None)
    resampled = np.array([a.score(config, rows) - b.score(config, rows) for rows in _resamples(len(a), seed)])
    difference = score - other
    centred = resampled - np.median(resampled) + difference
    low, _, high = np.percentile(centred, _PERCENTS)
    certainty = float(np.mean(centred < 0 if difference < 0 else centred > 0)) if difference else 0.5
    return Comparison(score, other, (float(low), float(high)), certainty)


@dataclass(frozen=True)
class SubsetScore:
    """A score at a given number of images: mean and standard deviation over subsets.

    Attributes:
        images: of each subset.
        subsets: the number of subsets.
        score, score_sd: of the score.
        fid, fid_sd: of the FID at the config's layer.
    """

    images: int
    subsets: int
    score: float
    score_sd: float
    fid: float
    fid_sd: float


def subset_score(scored: ScoredSet, images: int, config: ScoreConfig, seed: int = 0) -> SubsetScore:
    """The mean score of `N_SUBSETS` random subsets; a single one if it holds all images.

    Raises:
        UsageError: more images than there are, or fewer than 2.
    """
    if not 2 <= images <= len(scored):
        raise UsageError(
            f"a subset of {images} cannot be taken of {len(scored)} images",
            next_step=f"choose 2 to {len(scored)} images",
        )
    rng = np.random.default_rng([seed, images])
    n_subsets = N_SUBSETS if images < len(scored) else 1
    results = []
    for _ in range(n_subsets):
        rows = rng.permutation(len(scored))[:images]
        fid = scored.fid(config.fid_layer, rows)
        results.append((config.score(fid, *scored.means(rows)), fid))
    (score, fid), (score_sd, fid_sd) = np.mean(results, axis=0), np.std(results, axis=0)
    return SubsetScore(images, n_subsets, float(score), float(score_sd), float(fid), float(fid_sd))


def _is_cheap(scored: ScoredSet, config: ScoreConfig) -> bool:
    n_images, n_features = scored.pred[config.fid_layer].shape
    return int(min(n_images, n_features)) <= _MAX_SIDE


def _resamples(n: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng(seed).integers(n, size=(N_RESAMPLES, n))


def _interval_about(score: float, deviations: Deviations) -> Interval:
    low, middle, high = np.percentile(deviations, _PERCENTS)
    return max(0.0, score - float(middle - low)), score + float(high - middle)
