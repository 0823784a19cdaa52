"""Options of synthetic archives: SAR with a known georeferencing error, and scaled relief."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pbvs.core.errors import UsageError
from pbvs.scenes.scene import CHARACTERS, make_scene
from pbvs.scenes.synth import make_archives


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def opened(path: Path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.crs.to_string(), dataset.transform


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The same set with correct SAR, and with SAR shifted by up to 6 pixels: two (folder, summary)."""
    both = []
    for shift_px in (0.0, 6.0):
        out = tmp_path_factory.mktemp("moved")
        options = {"locations": 8, "tiles": 0, "test_images": 0, "seed": 5, "chip_px": 48}
        both.append((out, make_archives(out, sar_shift_px=shift_px, **options)))
    return both


def test_a_shift_changes_the_georeference_of_sar_and_nothing_else(moved):
    (right, _), (wrong, summary) = moved
    shifted = {shift.path.relative_to(wrong).as_posix(): shift for shift in summary.shifts}
    before, after = contents(right), contents(wrong)
    truncated = {path for path in after if "2013-11-02" in path}  # a copy of a SAR file's start
    assert set(after) - set(before) == {"sar_shifts.csv"}
    assert {path for path in before if before[path] != after[path]} - truncated == {*shifted, "synth.json"}
    for path, shift in shifted.items():
        image, crs, affine = opened(right / path)
        other, other_crs, other_affine = opened(wrong / path)
        np.testing.assert_array_equal(image, other)
        assert crs == other_crs
        assert (other_affine.c - affine.c, affine.f - other_affine.f) == pytest.approx(
            (shift.east_m, shift.south_m), abs=1e-6
        )
        assert other_affine[:2] + other_affine[3:5] == affine[:2] + affine[3:5]


def test_shifts_are_recorded_in_metres_and_in_colour_pixels(moved):
    _, (out, summary) = moved
    for shift in summary.shifts:
        _, _, affine = opened(next(p for p in sorted(shift.path.parent.glob("*_rgb.*")) if p.name[0] != "."))
        assert shift.east_m == pytest.approx(shift.east_px * affine.a)
        assert shift.south_m == pytest.approx(shift.south_px * -affine.e)
    with (out / "sar_shifts.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [out / row["path"] for row in rows] == [shift.path for shift in summary.shifts]
    for row, shift in zip(rows, summary.shifts, strict=True):
        for name in ("east_m", "south_m", "east_px", "south_px"):
            assert float(row[name]) == pytest.approx(getattr(shift, name), abs=1e-6)
    assert json.loads((out / "synth.json").read_text())["sar_shift_px"] == 6.0
    assert summary.files == len(contents(out))


def test_shifts_fill_a_disc(moved):
    _, (_, summary) = moved
    offsets = np.array([(shift.east_px, shift.south_px) for shift in summary.shifts])
    assert len(np.unique(offsets, axis=0)) == len(offsets) >= 16
    radius = np.hypot(*offsets.T) / 6.0
    assert radius.max() <= 1.0
    assert (
        0.35 < np.mean(radius**2) < 0.65
    )  # 1/2 for a uniform disc; with 18 or more samples the standard error is 0.07
    assert (np.abs(offsets.mean(axis=0)) < 2.2).all()


def test_without_a_shift_nothing_is_recorded(moved):
    (out, summary), _ = moved
    assert summary.shifts == []
    assert not (out / "sar_shifts.csv").exists()
    assert set(json.loads((out / "synth.json").read_text())) == {
        *("seed", "chip_px", "ir", "gray_factor", "target_px", "made")
    }


def test_overwriting_removes_the_old_shifts(tmp_path):
    options = {"locations": 1, "tiles": 0, "test_images": 0, "chip_px": 48}
    make_archives(tmp_path, sar_shift_px=2.0, **options)
    assert (tmp_path / "sar_shifts.csv").exists()
    make_archives(tmp_path, overwrite=True, **options)
    assert not (tmp_path / "sar_shifts.csv").exists()


@pytest.mark.parametrize("character", list(CHARACTERS))
def test_relief_scales_terrain_and_heights_and_nothing_else(character):
    full, half, level = (
        make_scene(np.random.default_rng(1), character, (260.0, 260.0), 1.0, relief)
        for relief in (1.0, 0.5, 0.0)
    )
    assert max(full.height.max(), full.terrain.max()) > 1
    np.testing.assert_array_equal(half.height, full.height / 2)
    np.testing.assert_array_equal(half.terrain, full.terrain / 2)
    assert not level.height.any()
    assert not level.terrain.any()
    np.testing.assert_array_equal(level.albedo, full.albedo)
    np.testing.assert_array_equal(level.material, full.material)


@pytest.mark.parametrize(
    "wrong",
    [{"sar_shift_px": -1.0}, {"sar_shift_px": float("nan")}, {"relief": -0.5}, {"relief": float("inf")}],
)
def test_shifts_and_reliefs_out_of_range_raise_usage_error(tmp_path, wrong):
    with pytest.raises(UsageError, match="0 or more"):
        make_archives(tmp_path / "out", locations=1, tiles=0, test_images=0, **wrong)
    assert not (tmp_path / "out").exists()
