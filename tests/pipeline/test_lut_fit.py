"""Errors of every LUT from one histogram, and fits, against plain numpy over the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbvs.graph.nodes.channel_sums import apply_lut
from pbvs.pipeline.lut_fit import (
    MixMoments,
    errors_of_luts,
    factor_luts,
    fit_lut,
    joint_histogram,
    mixed,
    pixel_errors,
)


def pair(seed, shape=(61, 47), factor=1.27, noise=6.0):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    target = factor * rgb.mean(axis=2, keepdims=True) + rng.normal(0, noise, (*shape, 1))
    return rgb, np.clip(np.rint(target), 0, 255).astype(np.uint8), rng.random(shape) < 0.7


def brute(rgb, target, valid, lut):
    sums = rgb.astype(int).sum(axis=2)
    difference = (lut[sums].astype(np.float64) - target[:, :, 0])[valid] / 255
    return np.abs(difference).mean(), np.sqrt((difference**2).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 3.0))
def test_errors_equal_brute_force_over_pixels(seed, factor):
    rgb, target, valid = pair(seed, shape=(13, 11))
    valid[0, 0] = True
    luts = np.concatenate(
        [
            factor_luts(np.array([factor, 1.3])),
            np.random.default_rng(seed).integers(0, 256, (1, 766), np.uint8),
        ]
    )
    l1, l2 = errors_of_luts(joint_histogram(rgb, target, valid), luts)
    for k, lut in enumerate(luts):
        assert (l1[k], l2[k]) == pytest.approx(brute(rgb, target, valid, lut), abs=1e-12)
        assert pixel_errors(apply_lut(rgb, lut), target, valid) == pytest.approx((l1[k], l2[k]), abs=1e-12)


def test_factor_luts_round_as_the_nodes_do():
    sums = np.arange(766)
    factors = np.array([0.5, 1.15, 1.3, 2.0])
    for factor, lut in zip(factors, factor_luts(factors), strict=True):
        assert np.array_equal(lut, np.rint(np.clip(factor * (sums / 3), 0, 255)))


def test_the_free_lut_never_falls_and_is_no_worse_than_any_factor():
    rgb, target, valid = pair(3, shape=(200, 200))
    counts = joint_histogram(rgb, target, valid)
    lut = fit_lut(counts)
    assert (np.diff(lut) >= 0).all() and lut.min() >= 0 and lut.max() <= 255
    exact = ((lut[rgb.astype(int).sum(axis=2)] - target[:, :, 0])[valid] ** 2).mean()
    factors = factor_luts(np.arange(100, 200) / 100)
    assert exact <= (errors_of_luts(counts, factors)[1] * 255).min() ** 2


def test_a_curve_that_rises_and_falls_becomes_its_isotonic_regression():
    """Three sums of one, two and one pixels, the last two out of order: they share their weighted mean."""
    rgb = np.array([[[0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 1]]], np.uint8)
    target = np.array([[[10], [60], [60], [30]]], np.uint8)
    lut = fit_lut(joint_histogram(rgb, target, np.ones((1, 4), bool)))
    assert lut[:3] == pytest.approx([10, 50, 50]) and lut[765] == pytest.approx(50)


def test_the_mix_is_numpy_s_least_squares():
    moments, rows, targets = MixMoments.zero(), [], []
    for seed in range(3):
        rgb, target, valid = pair(seed)
        moments.add(rgb, target, valid)
        rows.append(np.concatenate([rgb[valid], np.ones((valid.sum(), 1))], axis=1))
        targets.append(target[:, :, 0][valid])
    expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets).astype(float), rcond=None)[0]
    weights, offset = moments.fit()
    np.testing.assert_allclose([*weights, offset], expected, rtol=1e-9)
    result = mixed(rgb, weights, offset)
    assert np.array_equal(result[..., 0], np.rint(np.clip(rgb @ np.array(weights) + offset, 0, 255)))


def test_equal_bands_share_their_weight():
    gray = np.random.default_rng(1).integers(0, 256, (50, 50, 1), dtype=np.uint8)
    moments = MixMoments.zero()
    moments.add(np.repeat(gray, 3, axis=2), gray // 2, np.ones((50, 50), bool))
    weights, _ = moments.fit()
    assert weights == pytest.approx([weights[0]] * 3, rel=1e-6) and sum(weights) == pytest.approx(
        0.5, abs=0.01
    )
