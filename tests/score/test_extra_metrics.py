"""The extra metrics: closed forms, and undefined values."""

import numpy as np
import pytest

from pbvs.score.extra_metrics import extra_metrics_of, mean_extra_metrics


def scene(bands=3, seed=0, side=48):
    rng = np.random.default_rng(seed)
    rough = rng.integers(40, 200, (side // 4, side // 4, bands), dtype=np.uint8)
    return np.repeat(np.repeat(rough, 4, axis=0), 4, axis=1)


def test_equal_images():
    metrics = extra_metrics_of(scene(), scene())
    assert tuple(metrics) == ("psnr", "ssim", "mae", "ncc", "vif", "angular_error")
    assert metrics["psnr"] is None  # infinite
    assert (metrics["ssim"], metrics["mae"], metrics["ncc"]) == pytest.approx((1.0, 0.0, 1.0))
    assert metrics["vif"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["angular_error"] == pytest.approx(0.0, abs=1e-3)


def test_closed_forms():
    target = scene()
    pred = (target + 10).astype(np.uint8)
    metrics = extra_metrics_of(pred, target)
    assert metrics["psnr"] == pytest.approx(20 * np.log10(25.5), rel=1e-6)
    assert metrics["mae"] == pytest.approx(10 / 255, rel=1e-9)
    assert metrics["ncc"] == pytest.approx(1.0, abs=1e-9)
    a, b = pred.reshape(-1, 3).astype(float), target.reshape(-1, 3).astype(float)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert metrics["angular_error"] == pytest.approx(np.arccos(cosine).mean(), rel=1e-6)
    inverted = extra_metrics_of(255 - target, target)
    assert inverted["ncc"] == pytest.approx(-1.0, abs=1e-9)


def test_more_noise_is_worse():
    target, rng = scene(1), np.random.default_rng(1)
    metrics = [
        extra_metrics_of(
            np.clip(target + rng.normal(0, sigma, target.shape), 0, 255).astype(np.uint8), target
        )
        for sigma in (4, 30)
    ]
    for name in ("psnr", "ssim", "ncc"):
        assert metrics[0][name] > metrics[1][name]


def test_undefined_metrics_are_none():
    small, constant = scene(1, side=40), np.full((48, 48, 1), 7, np.uint8)
    assert extra_metrics_of(small, 255 - small)["vif"] is None
    assert extra_metrics_of(constant, scene(1))["ncc"] is None
    assert extra_metrics_of(scene(1), 255 - scene(1))["angular_error"] is None


def test_means_are_over_the_images_that_have_the_metric():
    rows = [{"psnr": 20.0, "vif": None}, {"psnr": None, "vif": None}, {"psnr": 30.0, "vif": None}]
    assert mean_extra_metrics(rows) == {"psnr": 25.0, "vif": None}
    assert mean_extra_metrics([{}, {}]) == {}
