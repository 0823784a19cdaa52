"""Streamed moments, their distance, and files that pytorch-fid reads and writes."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from pbvs.core.errors import ScoreError
from pbvs.score.frechet import frechet_distance
from pbvs.score.statistics import Moments, Statistics


def features(n, d=12, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d))


def streamed(rows, *cuts):
    moments = Moments(rows.shape[1])
    for part in np.split(rows, cuts):
        moments.add(part)
    return moments.statistics()


def test_streamed_moments_are_numpys_however_the_rows_come():
    rows = features(50) + 1e4  # far from the origin, where sums of squares lose digits
    for cuts in ((), (1,), (10, 10, 49), range(1, 50)):
        found = streamed(rows, *cuts)
        np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-9)


@pytest.mark.parametrize("n", [200, 8])
def test_the_distance_is_that_of_the_features(n):
    a, b = features(n, seed=1), features(n + 3, seed=2)
    assert streamed(a).distance(streamed(b)) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert streamed(a).distance(streamed(a)) == pytest.approx(0.0, abs=1e-6 * np.trace(np.cov(a.T)))


def test_the_distance_is_that_of_scipys_matrix_root():
    """pytorch-fid's formula, without its `sqrtm(disp=)` that newer SciPy lacks."""
    a, b = streamed(features(200, seed=1)), streamed(features(200, seed=2))
    root = np.real(sqrtm(a.covariance @ b.covariance))
    traces = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root)
    theirs = np.sum((a.mean - b.mean) ** 2) + traces
    assert a.distance(b) == pytest.approx(theirs, rel=1e-6)


def test_one_dimension_in_closed_form():
    one, other = (
        Statistics(np.array([1.0]), np.array([[4.0]])),
        Statistics(np.array([3.0]), np.array([[9.0]])),
    )
    assert one.distance(other) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2)


def test_files_go_both_ways(tmp_path):
    found = streamed(features(30))
    found.save(tmp_path / "ours.npz")
    again = Statistics.load(tmp_path / "ours.npz")
    np.testing.assert_array_equal(again.mean, found.mean)
    np.testing.assert_array_equal(again.covariance, found.covariance)
    np.savez_compressed(tmp_path / "theirs.npz", mu=found.mean, sigma=found.covariance)  # as pytorch-fid does
    assert Statistics.load(tmp_path / "theirs.npz").distance(found) < 1e-9


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 truncated", "other", "shapes"])
def test_what_holds_no_statistics_is_an_error(tmp_path, content):
    path = tmp_path / "file.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other":
        np.savez(path, a=np.zeros(3))
    elif content == "shapes":
        np.savez(path, mu=np.zeros(3), sigma=np.zeros((2, 2)))
    with pytest.raises(ScoreError) as error:
        Statistics.load(path)
    assert str(path) in str(error.value)


def test_what_cannot_be_compared_is_an_error():
    with pytest.raises(ScoreError, match="of 12 and 5 features"):
        streamed(features(9)).distance(streamed(features(9, d=5)))
    with pytest.raises(ScoreError, match="at least 2 images, not 1"):
        streamed(features(1))
