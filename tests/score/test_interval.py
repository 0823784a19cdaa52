from __future__ import annotations

import numpy as np

from pbvs.score.interval import score_interval
from pbvs.score.rules import Ranking


def _population(n: int, seed: int, d: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(n, d))
    return 0.2 + real + 0.3 * rng.normal(size=(n, d)), real, rng.uniform(0.1, 0.3, size=(n, 3))


def test_is_seeded_and_holds_the_score_of_most_other_samples() -> None:
    interval = score_interval(*_population(60, 1), Ranking())
    assert interval == score_interval(*_population(60, 1), Ranking())
    assert interval is not None
    others = []
    for seed in range(2, 42):
        made, real, terms = _population(60, seed)
        one = score_interval(made, real, terms, Ranking())
        assert one is not None
        others.append(np.mean(one))
    truth = float(np.mean(others))
    assert interval[0] < truth < interval[1]


def test_narrows_as_images_grow() -> None:
    few, many = (score_interval(*_population(n, 3), Ranking()) for n in (20, 250))
    assert few is not None and many is not None
    assert (many[1] - many[0]) < 0.5 * (few[1] - few[0])


def test_is_left_out_where_it_would_take_minutes() -> None:
    assert score_interval(*_population(300, 4, d=300), Ranking(fid_layer=2048)) is None
    assert score_interval(*_population(300, 4, d=16), Ranking()) is not None
