"""The residual shift: found to subpixel accuracy where there is one, not trusted where there is none."""

import functools

import cv2
import numpy as np
import pytest

from pbvs.prepare import register
from pbvs.prepare.register import LEAST_PEAK, NO_SHIFT, REACH_PX, estimate_shift

SIDE = 160


@functools.cache
def scene(seed: int, move=(0.0, 0.0), side: int = SIDE) -> np.ndarray:
    """`H,W` in [0,1]: rotated blocks and bars at random, with their content shifted by (dx, dy)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((side, side)).astype(np.float64)
    image = np.full((side, side), 0.5)
    for _ in range(side * side // 400):
        x, y = rng.uniform(-20, side + 20, 2) + move
        angle, half = rng.uniform(0, np.pi), rng.uniform(2, 12, 2)
        along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        inside = np.clip(half[0] - np.abs(along), 0, 1) * np.clip(half[1] - np.abs(across), 0, 1)
        image += inside * (rng.uniform(0.05, 0.95) - image)
    return image


def colour(image: np.ndarray) -> np.ndarray:
    return np.rint(np.stack([255 * image, 200 * image, 255 * image**2], axis=2)).astype(np.uint8)


def radar(image: np.ndarray, seed: int, looks: float = 4.0) -> np.ndarray:
    """Plausible SAR of the same things: dark where colour is bright, nonlinear, speckled."""
    power = (1.05 - image) ** 1.5
    speckled = power * np.random.default_rng([seed, 1]).gamma(looks, 1 / looks, power.shape)
    return np.clip(np.rint(200 * np.sqrt(speckled)), 0, 255).astype(np.uint8)[:, :, None]


def everywhere(side: int = SIDE) -> np.ndarray:
    return np.ones((side, side), bool)


def away_from_border() -> np.ndarray:
    return np.pad(everywhere(SIDE - 2 * register._RIM_PX), register._RIM_PX)


# ---- where there is a shift


@pytest.mark.parametrize("looks", [1.0, 4.0])
def test_a_known_shift_is_found_to_a_third_of_a_pixel(looks):
    for seed in range(4):
        dx, dy = np.random.default_rng([seed, 7]).uniform(-8, 8, 2)
        sar = radar(scene(seed, (-dx, -dy)), seed, looks)
        found = estimate_shift(sar, colour(scene(seed)), everywhere())
        assert found.trusted
        assert np.hypot(found.dx_px - dx, found.dy_px - dy) < 1 / 3, (seed, found, dx, dy)


def test_the_fraction_of_a_pixel_is_not_drawn_to_whole_ones():
    errors = []
    for n in range(7):
        part = n / 6 - 0.5
        found = estimate_shift(colour(scene(n, (-3 - part, part))), colour(scene(n)), everywhere())
        errors.append((found.dx_px - 3 - part, found.dy_px + part))
    assert np.abs(errors).max() < 0.1, errors


def test_the_shift_is_columns_right_and_rows_down():
    image = colour(scene(1, side=SIDE + 20))
    fixed = image[10:-10, 10:-10]
    moving = image[10 - 3 : SIDE + 7, 10 + 5 : SIDE + 15]  # its content is 5 further left and 3 lower
    found = estimate_shift(moving, fixed, everywhere())
    assert (found.dx_px, found.dy_px) == pytest.approx((5.0, -3.0), abs=0.02)


def test_swapped_images_give_the_opposite_shift():
    sar, rgb = radar(scene(2, (4.4, -6.3)), 2), colour(scene(2))
    there, back = estimate_shift(sar, rgb, everywhere()), estimate_shift(rgb, sar, everywhere())
    assert (there.dx_px, there.dy_px) == pytest.approx((-back.dx_px, -back.dy_px), abs=1e-3)
    assert there.dx_px == pytest.approx(-4.4, abs=0.2)


def test_contrast_may_turn_over_within_the_image():
    image = scene(3, (2.0, 5.0))
    half = np.where(np.arange(SIDE) < SIDE // 2, image, 1 - image)
    found = estimate_shift(colour(half), colour(scene(3)), everywhere())
    assert found.trusted
    assert (found.dx_px, found.dy_px) == pytest.approx((-2.0, -5.0), abs=0.1)


def test_faint_structure_counts_as_well_as_strong():
    """Three quarters are eight times fainter and in place; the strong quarter is 6 pixels off."""
    near, off = scene(4, (-6.0, 0.0)), scene(4)
    faint = 0.5 + 0.125 * (off - 0.5)
    moving = faint.copy()
    moving[: SIDE // 2, : SIDE // 2] = near[: SIDE // 2, : SIDE // 2]
    fixed = faint.copy()
    fixed[: SIDE // 2, : SIDE // 2] = off[: SIDE // 2, : SIDE // 2]
    wide = [np.rint(255 * image[:, :, None]).astype(np.uint8) for image in (moving, fixed)]
    found = estimate_shift(wide[0], wide[1], everywhere())
    assert found.dx_px == pytest.approx(0.0, abs=0.3)


def test_borders_of_validity_do_not_hold_the_image_fast():
    """Both are 0 in the same slanted bands, whose borders match best where bands coincide."""
    rows, columns = np.indices((SIDE, SIDE))
    valid = (columns + 0.4 * rows) % 44 > 8
    sar, rgb = radar(scene(5, (-7.0, 4.5)), 5), colour(scene(5))
    sar[~valid], rgb[~valid] = 0, 0
    found = estimate_shift(sar, rgb, valid)
    assert found.trusted
    assert (found.dx_px, found.dy_px) == pytest.approx((7.0, -4.5), abs=0.2)
    unmasked = estimate_shift(sar, rgb, everywhere())
    # without the mask the bands fix the shift: it may slide along them, but not across
    assert abs(unmasked.dx_px + 0.4 * unmasked.dy_px) < 0.5


def test_invalid_pixels_do_not_count():
    valid = everywhere()
    valid[:, 105:] = False
    sar, rgb = radar(scene(6, (-3.0, 2.0)), 6), colour(scene(6))
    for image in (sar, rgb):
        image[:, 105:] = colour(scene(99))[:, 105:, : image.shape[2]]
    found = estimate_shift(sar, rgb, valid)
    assert (found.dx_px, found.dy_px) == pytest.approx((3.0, -2.0), abs=0.2)


def test_a_shift_near_the_reach_of_a_large_image_is_found():
    side = 8 * REACH_PX
    found = estimate_shift(
        radar(scene(7, (-29.4, 27.2), side), 7), colour(scene(7, side=side)), everywhere(side)
    )
    assert found.trusted
    assert (found.dx_px, found.dy_px) == pytest.approx((29.4, -27.2), abs=0.2)


# ---- where there is none


def test_pairs_that_do_not_belong_together_are_not_trusted():
    found = [estimate_shift(radar(scene(n), n), colour(scene(n + 1)), everywhere()) for n in range(10)]
    assert not any(shift.trusted for shift in found)
    assert max(shift.peak for shift in found) < LEAST_PEAK


def test_speckle_alone_is_not_trusted():
    even = np.full((SIDE, SIDE), 0.4)
    found = [estimate_shift(radar(even, n, 1.0), colour(scene(n)), everywhere()) for n in range(6)]
    assert not any(shift.trusted for shift in found)


def test_a_shift_beyond_the_reach_is_not_trusted():
    for dx in (-45.0, 60.0):
        found = estimate_shift(radar(scene(8, (dx, 0.0)), 8), colour(scene(8)), everywhere())
        assert not found.trusted


def test_a_best_displacement_at_the_border_of_the_search_is_not_trusted():
    found = estimate_shift(colour(scene(9, (SIDE // 8, 0.0))), colour(scene(9)), everywhere())
    assert found.dx_px == -(SIDE // 8)
    assert found.peak > LEAST_PEAK
    assert not found.trusted


def test_a_grid_that_fits_one_mesh_further_is_not_trusted():
    lines = np.where((np.arange(SIDE) % 16 < 3)[None] | (np.arange(SIDE) % 16 < 3)[:, None], 0.8, 0.3)
    found = estimate_shift(radar(lines, 1, 16.0), colour(lines), everywhere())
    assert not found.trusted
    assert found.peak > 0


@pytest.mark.parametrize("which", ["moving", "fixed", "both"])
def test_an_even_image_gives_no_shift(which):
    sar, rgb = radar(scene(1), 1), colour(scene(1))
    even = np.full_like(sar, 90), np.full_like(rgb, 90)
    moving = sar if which == "fixed" else even[0]
    fixed = rgb if which == "moving" else even[1]
    assert estimate_shift(moving, fixed, everywhere()) == NO_SHIFT


def test_nothing_to_compare_gives_no_shift():
    sar, rgb = radar(scene(1), 1), colour(scene(1))
    strip = np.zeros((SIDE, SIDE), bool)
    assert estimate_shift(sar, rgb, strip) == NO_SHIFT
    strip[50:57] = True  # all of it near invalid pixels
    assert estimate_shift(sar, rgb, strip) == NO_SHIFT
    assert estimate_shift(sar[:63], rgb[:63], everywhere()[:63]) == NO_SHIFT
    assert (NO_SHIFT.dx_px, NO_SHIFT.dy_px, NO_SHIFT.peak, NO_SHIFT.trusted) == (0.0, 0.0, 0.0, False)


@pytest.mark.parametrize("shape", [(64, 64), (64, 200), (97, 131)])
def test_small_and_odd_sizes_work(shape):
    sar, rgb = radar(scene(2, (-2.0, 3.0)), 2, 16.0), colour(scene(2))
    height, width = shape
    found = estimate_shift(sar[:height, :width], rgb[:height, :width], everywhere()[:height, :width])
    assert (found.dx_px, found.dy_px) == pytest.approx((2.0, -3.0), abs=0.3)


# ---- its parts against plain definitions


def test_correlation_is_the_sum_over_the_overlap():
    rng = np.random.default_rng(0)
    inner = rng.random((40, 51)) < 0.8
    moving, fixed = (rng.normal(size=(3, 40, 51)).astype(np.float32) * inner for _ in range(2))
    reach = 6
    surface = register._correlation(moving, fixed, inner, reach)
    assert surface.shape == (2 * reach + 1, 2 * reach + 1)
    for dx, dy in [(0, 0), (6, -6), (-6, 2), (3, 5), (0, -1)]:
        there = np.s_[max(dy, 0) : 40 + min(dy, 0), max(dx, 0) : 51 + min(dx, 0)]
        here = np.s_[max(-dy, 0) : 40 + min(-dy, 0), max(-dx, 0) : 51 + min(-dx, 0)]
        both = inner[here] & inner[there]
        a, b = (image[:, *part][:, both] for image, part in ((moving, here), (fixed, there)))
        expected = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
        assert surface[reach + dy, reach + dx] == pytest.approx(expected, abs=1e-4)


def test_displacements_with_little_overlap_are_unknown():
    inner = np.zeros((40, 40), bool)
    inner[:, 15:25] = True  # moved by 8 columns, a fifth of it overlaps
    layer = np.random.default_rng(0).normal(size=(3, 40, 40)).astype(np.float32) * inner
    surface = register._correlation(layer, layer, inner, 8)
    assert np.isnan(surface[8, [0, 16]]).all()
    assert surface[8, 8] == pytest.approx(1.0, abs=1e-5)


def test_axes_are_blind_to_the_sign_of_contrast_and_to_its_strength():
    image = colour(scene(1))
    inner = away_from_border()
    axes = register._axes(image, everywhere(), inner)
    np.testing.assert_allclose(register._axes(255 - image, everywhere(), inner), axes, atol=2e-3)
    half = np.repeat(image // 2, 2, axis=2)
    assert np.corrcoef(register._axes(half, everywhere(), inner).ravel(), axes.ravel())[0, 1] > 0.99
    assert np.abs(axes[:, inner].mean(axis=1)).max() < 1e-4
    assert not axes[:, ~inner].any()


def test_the_double_angle_of_a_slope_is_its_axis():
    columns = np.arange(SIDE, dtype=np.float64)
    wave = 128 + 60 * np.sin(columns / 5)
    across = np.repeat(np.rint(wave)[None], SIDE, axis=0).astype(np.uint8)[:, :, None]
    inner = away_from_border()
    for image, sign in ((across, 1), (across.transpose(1, 0, 2), -1)):
        strength, cosine, sine = register._axes(image, everywhere(), inner)
        spread = strength[inner].std()
        np.testing.assert_allclose(cosine[inner], sign * strength[inner], atol=1e-3 * spread)
        np.testing.assert_allclose(sine[inner], 0.0, atol=1e-3 * spread)


@pytest.mark.parametrize("top", [(0.0, 0.0), (0.3, -0.45), (-0.5, 0.2)])
def test_the_top_of_a_quadratic_is_exact(top):
    y, x = np.mgrid[-1:2, -1:2].astype(np.float64)
    u, v = x - top[0], y - top[1]
    patch = 0.8 - 0.2 * u * u - 0.3 * v * v + 0.1 * u * v
    assert register._top_of_quadratic(patch) == pytest.approx(top, abs=1e-6)


def test_a_surface_without_a_top_stays_at_the_pixel():
    y, x = np.mgrid[-1:2, -1:2].astype(np.float64)
    for patch in (x * x + y * y, x * x - y * y, 0 * x, x + y, np.full((3, 3), np.nan)):
        assert register._top_of_quadratic(patch) == (0.0, 0.0)


def test_peak_is_in_deviations_of_the_other_displacements():
    rng = np.random.default_rng(3)
    surface = cv2.GaussianBlur(rng.normal(size=(97, 97)), (0, 0), 1.0).astype(np.float32)
    away = np.ones_like(surface, bool)
    away[48 - 5 - 8 : 48 - 5 + 9, 48 + 4 - 8 : 48 + 4 + 9] = False
    surface = (surface - surface[away].mean()) / surface[away].std()
    surface[48 - 5, 48 + 4] = 9.0
    found = register._peak_of(3 * surface + 1, 16)
    assert found.peak == pytest.approx(9.0, abs=1e-4)
    assert (found.dx_px, found.dy_px) == pytest.approx((4.0, -5.0), abs=0.5)
    assert found.trusted
    surface[48 + 30, 48] = 7.5  # another peak, beyond what is searched, 9 / 7.5 < 1.25
    assert not register._peak_of(surface, 16).trusted
