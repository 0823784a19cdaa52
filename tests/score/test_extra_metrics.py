"""The further measures: closed forms, and numbers that are not there."""

import numpy as np
import pytest

from pbvs.score.extra_metrics import COLUMNS, further_columns, mean_columns


def scene(bands=3, seed=0, side=48):
    rng = np.random.default_rng(seed)
    rough = rng.integers(40, 200, (side // 4, side // 4, bands), dtype=np.uint8)
    return np.repeat(np.repeat(rough, 4, axis=0), 4, axis=1)


def test_equal_images():
    found = further_columns(scene(), scene())
    assert tuple(found) == COLUMNS
    assert found["psnr"] is None  # infinite
    assert (found["ssim"], found["mae"], found["ncc"]) == pytest.approx((1.0, 0.0, 1.0))
    assert found["vif"] == pytest.approx(1.0, abs=1e-6)
    assert found["angular_error"] == pytest.approx(0.0, abs=1e-3)


def test_closed_forms():
    real = scene()
    made = (real + 10).astype(np.uint8)
    found = further_columns(made, real)
    assert found["psnr"] == pytest.approx(20 * np.log10(25.5), rel=1e-6)
    assert found["mae"] == pytest.approx(10 / 255, rel=1e-9)
    assert found["ncc"] == pytest.approx(1.0, abs=1e-9)
    a, b = made.reshape(-1, 3).astype(float), real.reshape(-1, 3).astype(float)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert found["angular_error"] == pytest.approx(np.arccos(cosine).mean(), rel=1e-6)
    turned = further_columns(255 - real, real)
    assert turned["ncc"] == pytest.approx(-1.0, abs=1e-9)


def test_more_noise_is_worse():
    real, rng = scene(1), np.random.default_rng(1)
    found = [
        further_columns(np.clip(real + rng.normal(0, sigma, real.shape), 0, 255).astype(np.uint8), real)
        for sigma in (4, 30)
    ]
    for name in ("psnr", "ssim", "ncc"):
        assert found[0][name] > found[1][name]


def test_measures_that_are_no_numbers():
    small, even = scene(1, side=40), np.full((48, 48, 1), 7, np.uint8)
    assert further_columns(small, 255 - small)["vif"] is None
    assert further_columns(even, scene(1))["ncc"] is None
    assert further_columns(scene(1), 255 - scene(1))["angular_error"] is None


def test_means_are_over_the_images_that_have_a_number():
    rows = [{"psnr": 20.0, "vif": None}, {"psnr": None, "vif": None}, {"psnr": 30.0, "vif": None}]
    assert mean_columns(rows) == {"psnr": 25.0, "vif": None}
    assert mean_columns([{}, {}]) == {}
