"""Intervals, comparisons and subsets of a score, on features drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pbvs.core.errors import ScoreError, UsageError
from pbvs.score.interval import compare, overall_interval, score_interval, subset_score
from pbvs.score.rules import ScoreConfig
from pbvs.score.scored_set import ScoredSet


def scored_set(
    n: int, seed: int, d: int = 8, layer: int = 64, offset: float = 0.2, blur: float = 0.3
) -> ScoredSet:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(n, d))
    pred = offset + target + blur * np.random.default_rng(seed + 1000).normal(size=(n, d))
    return ScoredSet(
        tuple(f"{i:04d}" for i in range(n)),
        {layer: pred},
        {layer: target},
        rng.uniform(0.1, 0.3, size=(n, 3)),
    )


def test_is_seeded_and_holds_the_score_of_most_other_samples() -> None:
    interval = score_interval(scored_set(60, 1), ScoreConfig())
    assert interval == score_interval(scored_set(60, 1), ScoreConfig())
    assert interval is not None
    others = [scored_set(60, seed).score(ScoreConfig()) for seed in range(2, 42)]
    assert interval[0] < float(np.mean(others)) < interval[1]


def test_covers_the_mean_score_of_its_size_about_as_often_as_it_says() -> None:
    scores = [scored_set(60, seed).score(ScoreConfig()) for seed in range(100, 300)]
    truth, hits = float(np.mean(scores)), 0
    for seed in range(60):
        interval = score_interval(scored_set(60, seed), ScoreConfig())
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    assert hits >= 51  # of 60, where 95 % were 57


def test_narrows_as_images_grow() -> None:
    few, many = (score_interval(scored_set(n, 3), ScoreConfig()) for n in (20, 250))
    assert few is not None and many is not None
    assert (many[1] - many[0]) < 0.5 * (few[1] - few[0])


def test_is_left_out_where_it_would_take_minutes() -> None:
    config = ScoreConfig(fid_layer=2048)
    many = scored_set(300, 4, d=300, layer=2048)
    assert score_interval(many, config) is None
    assert overall_interval({"sar2eo": scored_set(20, 1, layer=2048), "sar2ir": many}, config, 0.5) is None
    compared = compare(many, many, config)
    assert (compared.interval95, compared.certainty) == (None, None)
    assert score_interval(scored_set(300, 4, d=16), ScoreConfig()) is not None


def test_the_overall_interval_is_of_independent_tasks() -> None:
    """Four tasks of one spread: their mean has half of it."""
    tasks = {task: scored_set(60, n) for n, task in enumerate(("sar2eo", "sar2rgb", "rgb2ir", "sar2ir"))}
    widths = []
    for scored in tasks.values():
        interval = score_interval(scored, ScoreConfig())
        assert interval is not None
        widths.append(interval[1] - interval[0])
    overall = overall_interval(tasks, ScoreConfig(), 0.5)
    assert overall is not None
    assert overall[0] < 0.5 < overall[1]
    assert overall[1] - overall[0] == pytest.approx(np.sqrt(np.sum(np.square(widths))) / 4, rel=0.25)


def test_a_clear_difference_is_certain_and_none_is_not() -> None:
    near, far = scored_set(60, 5), scored_set(60, 5, offset=0.6)
    better = compare(near, far, ScoreConfig())
    assert better.difference == pytest.approx(near.score(ScoreConfig()) - far.score(ScoreConfig()))
    assert better.difference < 0
    assert better.certainty == 1.0
    assert better.interval95 is not None and better.interval95[1] < 0
    worse = compare(far, near, ScoreConfig())
    assert worse.certainty == 1.0
    assert worse.interval95 is not None and worse.interval95[0] > 0
    same = compare(near, near, ScoreConfig())
    assert (same.difference, same.certainty, same.interval95) == (0.0, 0.5, (0.0, 0.0))


def test_pairing_sees_what_two_intervals_would_not() -> None:
    """A little less error on every image, while the images differ much from each other."""
    first = scored_set(40, 6)
    second = replace(first, terms=first.terms + 0.003)
    interval = score_interval(first, ScoreConfig())
    assert interval is not None
    assert interval[1] > second.score(ScoreConfig())
    assert compare(first, second, ScoreConfig()).certainty == 1.0


def test_random_differences_are_rarely_called_certain() -> None:
    """Two models of equal quality: over 95 % certain about one time in ten (it is two-sided)."""
    certain = 0
    for seed in range(60):
        a, b = scored_set(40, seed), scored_set(40, seed)
        other = np.random.default_rng(seed + 5000).normal(size=a.pred[64].shape)
        b = replace(b, pred={64: 0.2 + b.target[64] + 0.3 * other})
        found = compare(a, b, ScoreConfig()).certainty
        assert found is not None
        certain += found > 0.95
    assert certain <= 14


def test_other_targets_are_refused_and_another_order_is_not() -> None:
    first = scored_set(20, 7)
    rows = np.random.default_rng(0).permutation(20)
    mixed = ScoredSet(
        tuple(first.names[i] for i in rows),
        {64: first.pred[64][rows]},
        {64: first.target[64][rows]},
        first.terms[rows],
    )
    assert compare(first, mixed, ScoreConfig()).difference == 0.0
    for other in (scored_set(20, 8), scored_set(19, 7), replace(first, names=(*first.names[1:], "x"))):
        with pytest.raises(ScoreError, match="different targets"):
            compare(first, other, ScoreConfig())


def test_a_subset_has_the_bias_of_its_size() -> None:
    """600 images in subsets of 60 score as 60 images do, and not as 600."""
    many = scored_set(600, 9, d=64)
    at_60 = subset_score(many, 60, ScoreConfig())
    of_60 = np.mean([scored_set(60, seed, d=64).fid(64) for seed in range(10, 40)])
    assert at_60.fid == pytest.approx(of_60, rel=0.05)
    assert many.fid(64) < 0.6 * at_60.fid
    assert (at_60.images, at_60.subsets) == (60, 100)
    assert 0 < at_60.score_sd < 0.1 * at_60.score
    assert at_60 == subset_score(many, 60, ScoreConfig())


def test_all_images_are_one_subset() -> None:
    scored = scored_set(30, 11)
    whole = subset_score(scored, 30, ScoreConfig())
    assert whole.score == pytest.approx(scored.score(ScoreConfig()), rel=1e-12)
    assert (whole.subsets, whole.score_sd) == (1, 0.0)
    for images in (1, 31):
        with pytest.raises(UsageError, match="cannot be taken of 30 images"):
            subset_score(scored, images, ScoreConfig())
