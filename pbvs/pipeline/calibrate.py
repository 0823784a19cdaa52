"""Finds the intensity factor of a task that ends in grayscale and intensity, on its training pairs.

The winning solution tuned its factors by hand (1.3 and 1.15). Here one pass over the pairs gives the exact
pixel error of every factor (see `pbvs.pipeline.lut_fit`), so the best is read off a curve; cross-validation
over locations shows what it is worth elsewhere. A second pass measures what a factor leaves unexplained: the
error of a free table and of a linear mix of the bands, each fitted by least squares on all pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import DataError
from pbvs.core.types import Image8
from pbvs.dataset.pairs import Location
from pbvs.graph.graph import TaskGraph
from pbvs.graph.nodes.channel_sums import N_SUMS, apply_lut
from pbvs.graph.nodes.grayscale import IntensityParams
from pbvs.pipeline.calibrated import FACTORS, By, Calibration, Fit, ScoredFactor
from pbvs.pipeline.lut_fit import (
    N_VALUES,
    MixMoments,
    errors_of_luts,
    factor_luts,
    fit_lut,
    joint_histogram,
    mixed,
    pixel_errors,
)
from pbvs.pipeline.tone_pairs import Pair, Pairs, tone_tail
from pbvs.score.rules import ScoreConfig
from pbvs.score.scorer import Scorer

Progress = Callable[[str, int, int], None]

_FOLDS = 5
_PLATEAU = 0.01  # errors within 1 % of the lowest count as equal
_WORTH_SCORING = 0.1  # and within 10 % are worth a whole score, whose FID may prefer another factor
_N_SCORED_PAIRS = 60  # as many as the board's test sets of the gray tasks have
_N_SCORED_FACTORS = 7


class _Sums:
    """Over some pairs: summed errors of every factor, joint histogram, and moments of the mix.

    The last error is that of the task's current factor, which may lie between the others.
    """

    def __init__(self) -> None:
        self.n_images, self.n_pixels = 0, 0
        self.l1, self.l2 = np.zeros(len(FACTORS) + 1), np.zeros(len(FACTORS) + 1)
        self.counts = np.zeros((N_SUMS, N_VALUES), np.int64)
        self.moments = MixMoments.zero()

    def __add__(self, other: _Sums) -> _Sums:
        total = _Sums()
        for name in ("n_images", "n_pixels", "l1", "l2", "counts", "moments"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def add(self, pair: Pair, luts: Image8) -> None:
        """Adds one pair; `luts` are those of the factors."""
        counts = joint_histogram(pair.rgb, pair.target, pair.valid)
        l1, l2 = errors_of_luts(counts, luts)
        self.n_images += 1
        self.n_pixels += int(counts.sum())
        self.l1 += l1
        self.l2 += l2
        self.counts += counts
        self.moments.add(pair.rgb, pair.target, pair.valid)

    def best(self, by: By) -> int:
        """Index of the best factor, by L1 or else L2."""
        return int(np.argmin((self.l1 if by == "l1" else self.l2)[:-1]))


def calibrate(
    graph: TaskGraph,
    pairs: Pairs,
    by: By = "l2",
    *,
    scorer: Scorer | None = None,
    score_config: ScoreConfig | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Finds the best factor, and what it leaves unexplained.

    Args:
        graph: of a task that ends in grayscale and intensity.
        pairs: of it.
        by: what to minimise: `l2` or `l1` over the pairs, or the whole task score of a few factors.
        scorer, score_config: for `score`.
        progress: called with (phase, pairs done, pairs in all).

    Raises:
        UsageError: another task.
        DataError: no pair has a valid pixel.
    """
    progress = progress or (lambda phase, done, total: None)
    params = tone_tail(graph).intensity.params
    assert isinstance(params, IntensityParams)
    current = params.factor
    folds, cities, fold_of = _first_pass(pairs, current, progress)
    total = sum(folds, _Sums())
    if not total.n_images:
        raise DataError("no pair has a pixel where both images are valid", next_step="prepare the data again")
    curve_l1, curve_l2 = total.l1[:-1] / total.n_images, total.l2[:-1] / total.n_images
    curve = curve_l1 if by == "l1" else curve_l2
    plateau = FACTORS[curve <= curve.min() * (1.0 + _PLATEAU)]
    best = total.best(by)
    scored: tuple[ScoredFactor, ...] = ()
    if by == "score":
        assert scorer is not None
        near = FACTORS[curve <= curve.min() * (1.0 + _WORTH_SCORING)]
        spread = np.linspace(near[0], near[-1], _N_SCORED_FACTORS).round(3)
        factors = sorted({float(factor) for factor in spread} | {float(FACTORS[best]), current})
        scored = _score_factors(factors, pairs, scorer, score_config or ScoreConfig(), progress)
        lowest = min(scored, key=lambda one: one.score)
        best = int(np.argmin(np.abs(FACTORS - lowest.factor)))
    others = [sum((one for one in folds if one is not fold), _Sums()) for fold in folds]
    fold_best = [other.best(by) for other in others]
    lut, mix = _second_pass(pairs, total, others, fold_of, progress)
    weights, offset = total.moments.fit()
    return Calibration(
        task=graph.spec.task,
        by=by,
        factor=float(FACTORS[best]),
        current_factor=current,
        current=_fit_of_factor(total, folds, -1, [-1] * len(folds)),
        best=_fit_of_factor(total, folds, best, fold_best),
        lut=lut,
        mix=mix,
        plateau=(float(plateau[0]), float(plateau[-1])),
        fold_factors=tuple(float(FACTORS[i]) for i in fold_best),
        cities={city: float(FACTORS[sums.best(by)]) for city, sums in sorted(cities.items())},
        lut_values=tuple(float(v) for v in fit_lut(total.counts)),
        weights=weights,
        offset=offset,
        curve_l1=curve_l1,
        curve_l2=curve_l2,
        scored=scored,
        images=total.n_images,
        locations=len(fold_of),
        pixels=total.n_pixels,
    )


def _first_pass(
    pairs: Pairs, current: float, progress: Progress
) -> tuple[list[_Sums], dict[str, _Sums], dict[Location, int]]:
    """Sums by fold of the locations and by city, and the fold of each location."""
    luts = factor_luts(np.append(FACTORS, current))
    fold_of: dict[Location, int] = {}
    folds: list[_Sums] = []
    cities: dict[str, _Sums] = {}
    for done, pair in enumerate(pairs, start=1):
        # Locations come sorted by city: so each fold has some of every city.
        fold = fold_of.setdefault(pair.location, len(fold_of) % _FOLDS)
        if fold == len(folds):
            folds.append(_Sums())
        one = _Sums()
        one.add(pair, luts)
        folds[fold] = folds[fold] + one
        city = pair.location[1]
        cities[city] = cities.get(city, _Sums()) + one
        progress("fit", done, len(pairs))
    return folds, cities, fold_of


def _fit_of_factor(total: _Sums, folds: list[_Sums], best: int, fold_best: list[int]) -> Fit:
    """Errors of factor `best` on all, and on each fold those of the factor found without it."""
    n = total.n_images
    on_all = float(total.l1[best] / n), float(total.l2[best] / n)
    if len(folds) < 2:
        return Fit(*on_all, None, None)
    parts = list(zip(folds, fold_best, strict=True))
    l1, l2 = sum(fold.l1[i] for fold, i in parts), sum(fold.l2[i] for fold, i in parts)
    return Fit(*on_all, float(l1 / n), float(l2 / n))


def _second_pass(
    pairs: Pairs, total: _Sums, others: list[_Sums], fold_of: dict[Location, int], progress: Progress
) -> tuple[Fit, Fit]:
    """Errors of the free table and of the mix of bands: fitted to all, and to the other locations."""
    fits = [
        (np.rint(fit_lut(sums.counts)).astype(np.uint8), sums.moments.fit())
        for sums in (total, *(others if len(others) > 1 else ()))
    ]
    errors = []
    for done, pair in enumerate(pairs, start=1):
        row: list[float] = []
        fold = 1 + fold_of[pair.location]
        for lut, mix in (fits[0], *fits[fold : fold + 1]):
            for pred in (apply_lut(pair.rgb, lut), mixed(pair.rgb, *mix)):
                row += pixel_errors(pred, pair.target, pair.valid)
        errors.append(row)
        progress("beyond", done, len(pairs))
    mean = [float(v) for v in np.mean(errors, axis=0)]
    heldout: list[float] | list[None] = mean[4:] or [None] * 4
    return Fit(mean[0], mean[1], heldout[0], heldout[1]), Fit(mean[2], mean[3], heldout[2], heldout[3])


def _score_factors(
    factors: list[float], pairs: Pairs, scorer: Scorer, score_config: ScoreConfig, progress: Progress
) -> tuple[ScoredFactor, ...]:
    """The whole task score of each factor; pixels that are not valid are set to the target's value."""
    some = pairs.some(_N_SCORED_PAIRS)

    def predictions(lut: Image8) -> Iterator[tuple[str, Image8, Image8]]:
        for pair in some:
            pred = np.where(pair.valid[:, :, None], apply_lut(pair.rgb, lut), pair.target)
            yield pair.name, pred, pair.target

    scored: list[ScoredFactor] = []
    luts: NDArray[np.uint8] = factor_luts(np.array(factors))
    for factor, lut in zip(factors, luts, strict=True):
        score = scorer.score_pairs(predictions(lut), score_config)
        scored.append(ScoredFactor(factor, score.score, score.interval95))
        progress("score", len(scored), len(factors))
    return tuple(scored)
