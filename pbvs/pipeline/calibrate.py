"""Finds the intensity factor of a task that ends in grayscale and intensity, on its training pairs.

The winning solution tuned its factors by hand (1.3 and 1.15). Here one pass over the pairs gives the exact
pixel error of every factor (see `pbvs.pipeline.lut_fit`), so the best is read off a curve; locations are
held out in turn to see what it is worth elsewhere. A second pass tells what a factor leaves on the table:
the error of a free table and of a linear mix of the bands, each fitted by least squares on all pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import DataError
from pbvs.dataset.pairs import Location
from pbvs.graph.graph import TaskGraph
from pbvs.graph.nodes.channel_sums import N_SUMS, apply_lut
from pbvs.graph.nodes.grayscale import IntensityParams
from pbvs.pipeline.calibrated import FACTORS, By, Calibration, Candidate, Fit
from pbvs.pipeline.lut_fit import (
    N_LEVELS,
    MixMoments,
    errors_of_tables,
    factor_tables,
    fitted_table,
    joint_histogram,
    mixed,
    pixel_errors,
)
from pbvs.pipeline.tone_pairs import Pair, Pairs, tone_tail
from pbvs.score.rules import ScoreConfig
from pbvs.score.scorer import Scorer

Progress = Callable[[str, int, int], None]
Stored8 = NDArray[np.uint8]

_FOLDS = 5
_FLAT = 0.01  # errors within 1 % of the least count as flat
_WORTH_SCORING = 0.1  # and within 10 % are worth a whole score, whose FID may want another factor
_N_SCORED = 60  # pairs, as many as the board's test sets of the gray tasks have
_N_CANDIDATES = 7


class _Sums:
    """Of some pairs: errors of every factor summed, joint histogram, and moments of the mix.

    The last of the errors are those of the task's present factor, which may lie between others.
    """

    def __init__(self) -> None:
        self.n_images, self.n_pixels = 0, 0
        self.l1, self.l2 = np.zeros(len(FACTORS) + 1), np.zeros(len(FACTORS) + 1)
        self.counts = np.zeros((N_SUMS, N_LEVELS), np.int64)
        self.moments = MixMoments.none()

    def __add__(self, other: _Sums) -> _Sums:
        total = _Sums()
        for one in (self, other):
            total.n_images += one.n_images
            total.n_pixels += one.n_pixels
            total.l1 += one.l1
            total.l2 += one.l2
            total.counts += one.counts
            total.moments.products += one.moments.products
            total.moments.with_target += one.moments.with_target
        return total

    def add(self, pair: Pair, tables: Stored8) -> None:
        counts = joint_histogram(pair.rgb, pair.target, pair.valid)
        l1, l2 = errors_of_tables(counts, tables)
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
    judge: Scorer | None = None,
    ranking: ScoreConfig | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Finds the factor, and what it leaves.

    Args:
        graph: of a task that ends in grayscale and intensity.
        pairs: of it.
        by: what is to be least: `l2` or `l1` over the pairs, or the whole task score of a few factors.
        judge, ranking: for `score`.
        progress: told (what, pairs done, pairs in all).

    Raises:
        UsageError: another task.
        DataError: no pair has a valid pixel.
    """
    tail = tone_tail(graph)
    assert isinstance(tail.intensity.params, IntensityParams)
    present = tail.intensity.params.factor
    folds, cities, fold_of = _first_pass(pairs, present, progress)
    whole = sum(folds, _Sums())
    if not whole.n_images:
        raise DataError("no pair has a pixel where both images are valid", next_step="prepare the data again")
    curve_l1, curve_l2 = whole.l1[:-1] / whole.n_images, whole.l2[:-1] / whole.n_images
    curve = curve_l1 if by == "l1" else curve_l2
    flat = FACTORS[curve <= curve.min() * (1.0 + _FLAT)]
    best = whole.best(by)
    candidates: tuple[Candidate, ...] = ()
    if by == "score":
        assert judge is not None
        near = FACTORS[curve <= curve.min() * (1.0 + _WORTH_SCORING)]
        tried = _candidates(near, float(FACTORS[best]), present)
        candidates = _scored(tried, pairs, judge, ranking or ScoreConfig(), progress)
        lowest = min(candidates, key=lambda candidate: candidate.score)
        best = int(np.argmin(np.abs(FACTORS - lowest.factor)))
    others = [sum((one for one in folds if one is not fold), _Sums()) for fold in folds]
    fold_best = [other.best(by) for other in others]
    table, mix = _second_pass(pairs, whole, others, fold_of, progress)
    weights, offset = whole.moments.fitted()
    return Calibration(
        task=graph.spec.task,
        by=by,
        factor=float(FACTORS[best]),
        present_factor=present,
        present=_fit_of_factor(whole, folds, -1, [-1] * len(folds)),
        best=_fit_of_factor(whole, folds, best, fold_best),
        table=table,
        mix=mix,
        flat=(float(flat[0]), float(flat[-1])),
        fold_factors=tuple(float(FACTORS[i]) for i in fold_best),
        cities={city: float(FACTORS[sums.best(by)]) for city, sums in sorted(cities.items())},
        tone=tuple(float(v) for v in fitted_table(whole.counts)),
        weights=weights,
        offset=offset,
        curve_l1=curve_l1,
        curve_l2=curve_l2,
        candidates=candidates,
        images=whole.n_images,
        locations=len(fold_of),
        pixels=whole.n_pixels,
    )


def _first_pass(
    pairs: Pairs, present: float, progress: Progress | None
) -> tuple[list[_Sums], dict[str, _Sums], dict[Location, int]]:
    """Sums by part of the locations and by city, and the part of each location."""
    tables = factor_tables(np.append(FACTORS, present))
    of_location: dict[Location, int] = {}
    folds: list[_Sums] = []
    cities: dict[str, _Sums] = {}
    for done, pair in enumerate(pairs, start=1):
        # Locations come sorted by city: so each part has some of every city.
        fold = of_location.setdefault(pair.location, len(of_location) % _FOLDS)
        if fold == len(folds):
            folds.append(_Sums())
        one = _Sums()
        one.add(pair, tables)
        folds[fold] = folds[fold] + one
        city = pair.location[1]
        cities[city] = cities.get(city, _Sums()) + one
        if progress:
            progress("fit", done, len(pairs))
    return folds, cities, of_location


def _fit_of_factor(whole: _Sums, folds: list[_Sums], best: int, fold_best: list[int]) -> Fit:
    """Errors of factor `best` on all, and on each part those of the factor found without it."""
    n = whole.n_images
    all_of_it = float(whole.l1[best] / n), float(whole.l2[best] / n)
    if len(folds) < 2:
        return Fit(*all_of_it, None, None)
    parts = list(zip(folds, fold_best, strict=True))
    l1, l2 = sum(fold.l1[i] for fold, i in parts), sum(fold.l2[i] for fold, i in parts)
    return Fit(*all_of_it, float(l1 / n), float(l2 / n))


def _second_pass(
    pairs: Pairs, whole: _Sums, others: list[_Sums], fold_of: dict[Location, int], progress: Progress | None
) -> tuple[Fit, Fit]:
    """Errors of the free table and of the mix of bands: fitted to all, and to the other locations."""

    def fitted(sums: _Sums) -> tuple[Stored8, tuple[tuple[float, float, float], float]]:
        return np.rint(fitted_table(sums.counts)).astype(np.uint8), sums.moments.fitted()

    of_all = fitted(whole)
    of_others = [fitted(other) for other in others] if len(others) > 1 else []
    errors = []
    for done, pair in enumerate(pairs, start=1):
        row: list[float] = []
        for table, mix in (of_all, *of_others[fold_of[pair.location] :][:1]):
            for made in (apply_lut(pair.rgb, table), mixed(pair.rgb, *mix)):
                row += pixel_errors(made, pair.target, pair.valid)
        errors.append(row)
        if progress:
            progress("beyond", done, len(pairs))
    mean = [float(v) for v in np.mean(errors, axis=0)]
    heldout: list[float] | list[None] = mean[4:] or [None] * 4
    return Fit(mean[0], mean[1], heldout[0], heldout[1]), Fit(mean[2], mean[3], heldout[2], heldout[3])


def _candidates(near: NDArray[np.float64], best: float, present: float) -> list[float]:
    """A few factors over where the pixel error is near its least, with the best by it and the present one."""
    spread = np.linspace(near[0], near[-1], _N_CANDIDATES).round(3)
    return sorted({float(factor) for factor in spread} | {best, present})


def _scored(
    factors: list[float], pairs: Pairs, judge: Scorer, ranking: ScoreConfig, progress: Progress | None
) -> tuple[Candidate, ...]:
    found = []
    tables = factor_tables(np.array(factors))
    for done, (factor, table) in enumerate(zip(factors, tables, strict=True)):
        score = judge.score_pairs(_shown(pairs.some(_N_SCORED), table), ranking)
        found.append(Candidate(factor, score.score, score.interval95))
        if progress:
            progress("score", done + 1, len(factors))
    return tuple(found)


def _shown(pairs: Pairs, table: Stored8) -> Iterator[tuple[str, Stored8, Stored8]]:
    """Name, prediction and target of each pair; pixels that are not valid are the target's own."""
    for pair in pairs:
        made = np.where(pair.valid[:, :, None], apply_lut(pair.rgb, table), pair.target)
        yield pair.name, made, pair.target
