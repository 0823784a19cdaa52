from __future__ import annotations

import warnings

import numpy as np
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy import linalg

from pbvs.core.errors import ScoreError
from pbvs.score.frechet import frechet_distance


def _by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root1 = linalg.sqrtm(c1)
    cross = linalg.sqrtm(root1 @ c2 @ root1)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(c1) + np.trace(c2) - 2 * np.trace(cross).real)


def _sets(n1: int, n2: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n1 * 1000 + n2 * 10 + d)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n1, d)), 0.3 + rng.normal(size=(n2, d)) @ mix


@pytest.mark.parametrize(("n1", "n2", "d"), [(200, 150, 16), (65, 300, 64), (40, 40, 39)])
def test_equals_the_matrix_square_root_where_that_is_well_conditioned(n1: int, n2: int, d: int) -> None:
    a, b = _sets(n1, n2, d)
    assert frechet_distance(a, b) == pytest.approx(_by_sqrtm(a, b), rel=1e-9)


def test_equals_pytorch_fid() -> None:
    a, b = _sets(300, 260, 64)
    with warnings.catch_warnings():
        # SciPy 1.17 deprecates `disp=`, 1.18 removes it; there the reference cannot run.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            reference = calculate_frechet_distance(
                a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
            )
        except TypeError:
            pytest.skip("this SciPy has no sqrtm(disp=) any more")
    assert frechet_distance(a, b) == pytest.approx(float(reference), rel=1e-9)


def test_a_shift_alone_is_its_squared_length() -> None:
    a, _ = _sets(50, 2, 8)
    assert frechet_distance(a, a + np.arange(8.0)) == pytest.approx(140.0, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(100, 8), (8, 100), (2, 2048)])
def test_scaling_about_the_mean_has_a_closed_form(n: int, d: int) -> None:
    a, _ = _sets(n, 2, d)
    scaled = a.mean(0) + 3.0 * (a - a.mean(0))  # (3 - 1)^2 tr(C), also where C is singular
    assert frechet_distance(a, scaled) == pytest.approx(4 * a.var(0, ddof=1).sum(), rel=1e-12)


def test_fewer_rows_than_features_agree_with_the_same_data_in_their_own_span() -> None:
    # 12 rows of 40 features, all within 5 directions: rotated into those 5, sqrtm is well conditioned.
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(40, 5)))[0]
    low1, low2 = rng.normal(size=(12, 5)), 1.5 * rng.normal(size=(14, 5)) + 0.2
    assert frechet_distance(low1 @ basis.T, low2 @ basis.T) == pytest.approx(_by_sqrtm(low1, low2), rel=1e-9)


def test_survives_float32_features_at_2048() -> None:
    a, b = _sets(24, 24, 2048)
    exact = frechet_distance(a, b)
    assert frechet_distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 64), (24, 2048), (2, 64)])
def test_the_same_set_in_any_order_is_exactly_zero(n: int, d: int) -> None:
    a, _ = _sets(n, 2, d)
    assert frechet_distance(a, a.copy()) == 0.0
    assert frechet_distance(a, a[::-1]) == 0.0


def test_a_small_true_distance_is_not_taken_for_rounding() -> None:
    a, _ = _sets(100, 2, 16)
    assert frechet_distance(a, a + 1e-5) == pytest.approx(16e-10, rel=1e-3)


def test_one_image_other_features_or_nan_are_refused() -> None:
    a, b = _sets(4, 4, 3)
    with pytest.raises(ScoreError, match="at least 2 images"):
        frechet_distance(a[:1], b)
    with pytest.raises(ScoreError, match="one D"):
        frechet_distance(a[:, :2], b)
    b[0, 0] = np.nan
    with pytest.raises(ScoreError, match="not finite"):
        frechet_distance(a, b)
