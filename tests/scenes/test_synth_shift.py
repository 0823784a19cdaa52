"""Made SAR that lies where it says or a known way off it, and made ground as high as it was or level."""

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
    """The same set with SAR where it belongs, and put up to 6 pixels off: two (folder, summary)."""
    both = []
    for shift_px in (0.0, 6.0):
        out = tmp_path_factory.mktemp("moved")
        options = {"locations": 8, "tiles": 0, "test_images": 0, "seed": 5, "chip_px": 48}
        both.append((out, make_archives(out, sar_shift_px=shift_px, **options)))
    return both


def test_a_put_in_shift_changes_the_place_of_sar_and_nothing_else(moved):
    (right, _), (wrong, summary) = moved
    shifted = {shift.path.relative_to(wrong).as_posix(): shift for shift in summary.shifts}
    before, after = contents(right), contents(wrong)
    torn = {path for path in after if "2013-11-02" in path}  # a part of a SAR file
    assert set(after) - set(before) == {"sar_shifts.csv"}
    assert {path for path in before if before[path] != after[path]} - torn == {*shifted, "synth.json"}
    for path, shift in shifted.items():
        image, crs, where = opened(right / path)
        other, other_crs, other_where = opened(wrong / path)
        np.testing.assert_array_equal(image, other)
        assert crs == other_crs
        assert (other_where.c - where.c, where.f - other_where.f) == pytest.approx(
            (shift.east_m, shift.south_m), abs=1e-6
        )
        assert other_where[:2] + other_where[3:5] == where[:2] + where[3:5]


def test_put_in_shifts_are_told_in_metres_and_in_pixels_of_the_colour(moved):
    _, (out, summary) = moved
    for shift in summary.shifts:
        _, _, where = opened(next(p for p in sorted(shift.path.parent.glob("*_rgb.*")) if p.name[0] != "."))
        assert shift.east_m == pytest.approx(shift.east_px * where.a)
        assert shift.south_m == pytest.approx(shift.south_px * -where.e)
    with (out / "sar_shifts.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [out / row["path"] for row in rows] == [shift.path for shift in summary.shifts]
    for row, shift in zip(rows, summary.shifts, strict=True):
        for name in ("east_m", "south_m", "east_px", "south_px"):
            assert float(row[name]) == pytest.approx(getattr(shift, name), abs=1e-6)
    assert json.loads((out / "synth.json").read_text())["sar_shift_px"] == 6.0
    assert summary.files == len(contents(out))


def test_put_in_shifts_fill_a_disc(moved):
    _, (_, summary) = moved
    away = np.array([(shift.east_px, shift.south_px) for shift in summary.shifts])
    assert len(np.unique(away, axis=0)) == len(away) >= 16
    radius = np.hypot(*away.T) / 6.0
    assert radius.max() <= 1.0
    assert 0.35 < np.mean(radius**2) < 0.65  # of a uniform disc a half; 18 or more draws stray by 0.07
    assert (np.abs(away.mean(axis=0)) < 2.2).all()


def test_without_a_put_in_shift_nothing_is_told(moved):
    (out, summary), _ = moved
    assert summary.shifts == []
    assert not (out / "sar_shifts.csv").exists()
    assert set(json.loads((out / "synth.json").read_text())) == {
        *("seed", "chip_px", "ir", "gray_factor", "target_px", "made")
    }


def test_overwriting_takes_the_old_shifts_away(tmp_path):
    options = {"locations": 1, "tiles": 0, "test_images": 0, "chip_px": 48}
    make_archives(tmp_path, sar_shift_px=2.0, **options)
    assert (tmp_path / "sar_shifts.csv").exists()
    make_archives(tmp_path, overwrite=True, **options)
    assert not (tmp_path / "sar_shifts.csv").exists()


@pytest.mark.parametrize("character", list(CHARACTERS))
def test_relief_scales_what_stands_up_and_nothing_else(character):
    unwrap, half, level = (
        make_scene(np.random.default_rng(1), character, (260.0, 260.0), 1.0, relief)
        for relief in (1.0, 0.5, 0.0)
    )
    assert max(unwrap.height.max(), unwrap.terrain.max()) > 1
    np.testing.assert_array_equal(half.height, unwrap.height / 2)
    np.testing.assert_array_equal(half.terrain, unwrap.terrain / 2)
    assert not level.height.any()
    assert not level.terrain.any()
    np.testing.assert_array_equal(level.albedo, unwrap.albedo)
    np.testing.assert_array_equal(level.material, unwrap.material)


@pytest.mark.parametrize(
    "wrong",
    [{"sar_shift_px": -1.0}, {"sar_shift_px": float("nan")}, {"relief": -0.5}, {"relief": float("inf")}],
)
def test_shifts_and_reliefs_out_of_range_are_misuse(tmp_path, wrong):
    with pytest.raises(UsageError, match="0 or more"):
        make_archives(tmp_path / "out", locations=1, tiles=0, test_images=0, **wrong)
    assert not (tmp_path / "out").exists()
