"""Alignment after `prepare`: SAR on colour, years of one location, and synthetic scenes."""

import functools
import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from pbvs.core.pixels import read_image
from pbvs.dataset.index import PreparedData
from pbvs.prepare.prepare import PrepareRules, prepare
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.register import Shift, estimate_shift
from pbvs.scenes import render, synth_files
from pbvs.scenes.brushes import Material
from pbvs.scenes.scene import Scene
from pbvs.scenes.synth import make_archives

REAL = Path(__file__).parents[2].parent / "shared/data/real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")


def prepared(root: Path, out: Path, *modalities: str, **rules) -> PreparedData:
    """At native resolution."""
    prepare(root, out, modalities=modalities, families={"stack"}, size_px=None, rules=PrepareRules(**rules))
    return PreparedData.open(out)


def shift_between(data: PreparedData, moving: str, fixed: str) -> Shift:
    paths = data.root / moving, data.root / fixed
    valid = read_valid(paths[0]) & read_valid(paths[1])
    return estimate_shift(read_values(paths[0]), read_values(paths[1]), valid)


def sar_and_rgb(data: PreparedData) -> pd.DataFrame:
    """The SAR captures with the path of an RGB to each, the mosaic where there is one."""
    rgb = data.captures("stack", "rgb").sort_values(["mosaic", "path"], ascending=[False, True])
    first = rgb.drop_duplicates(["city", "location"])[["city", "location", "path"]]
    return data.captures("stack", "sar").merge(first.rename(columns={"path": "rgb"}), on=["city", "location"])


def sizes_px(shifts: list[Shift]) -> np.ndarray:
    return np.array([np.hypot(shift.dx_px, shift.dy_px) for shift in shifts])


# ---- exact places


def pattern(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Waves over the ground in [0,255], some 36 to 57 pixels of 10 m long."""
    return 128 + 50 * np.sin(east / 57) * np.cos(north / 61) + 40 * np.cos(east / 91 + north / 83)


def test_a_pattern_in_utm_lies_exactly_on_a_grid_of_world_mercator(tmp_path):
    """The real archives' projections and resolutions; places by the exact transform, pixel by pixel."""
    optical = CRS.from_epsg(3395), Affine(10.0, 0, -13_173_500.0, 0, -10.0, 3_976_460.0), (300, 320)
    sar = CRS.from_epsg(32611), Affine(8.3217, 0, 375_600.0, 0, -8.3217, 3_739_500.0), (420, 400)
    place = tmp_path / "a/Train_Data_Bingham_SAR_IR_RGB/33.78688_-118.33958"
    place.mkdir(parents=True)
    for name, (crs, where, shape), bands in (("20201104_rgb", optical, 3), ("20201107_UMBRA_GEC", sar, 1)):
        rows, columns = np.indices(shape) + 0.5
        xs, ys = where.a * columns + where.c, where.e * rows + where.f
        east, north = (np.reshape(v, shape) for v in transform(crs, optical[0], xs.ravel(), ys.ravel()))
        image = np.rint(pattern(east, north)).astype(np.uint8)
        profile = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": bands, "dtype": "uint8"}
        with rasterio.open(place / f"{name}.tiff", "w", crs=crs, transform=where, **profile) as dataset:
            dataset.write(np.stack([image] * bands))
    data = prepared(tmp_path / "a", tmp_path / "out", "sar", "rgb")
    pair = sar_and_rgb(data).iloc[0]
    inner = read_valid(data.root / pair.path)
    inner &= np.pad(np.ones((260, 280), bool), 20)
    assert inner.mean() > 0.7
    on_grid, wanted = (read_values(data.root / path)[:, :, 0].astype(float) for path in (pair.path, pair.rgb))
    slopes = np.stack([np.gradient(wanted, axis=axis)[inner] for axis in (1, 0)], axis=1)
    off = np.linalg.lstsq(slopes, (wanted - on_grid)[inner], rcond=None)[0]
    assert np.abs(off).max() < 0.03, off
    assert (on_grid - wanted)[inner].std() < 1.0


# ---- the real images


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> PreparedData:
    return prepared(REAL, tmp_path_factory.mktemp("real") / "out", "sar", "rgb", "ir")


@functools.cache
def residual_shifts(root: Path) -> dict[str, Shift]:
    """The shift of SAR against RGB at each location."""
    data = PreparedData.open(root)
    return {row.location: shift_between(data, row.path, row.rgb) for row in sar_and_rgb(data).itertuples()}


@needs_real
def test_real_sar_lies_where_it_lay_before_it_was_warped_to_utm(real):
    """The tiles of the EO/SAR archive are cut from the same pairs, from the SAR on the colour's own grid.

    So this is the error of warping there (by the authors of the archive) and back, and of nothing else.
    """
    eo = (REAL / "Train_Data_and_Validation_EO_SAR/EO").rglob("*.png")
    tiles = {path: read_image(path)[:, :, 0] for path in eo}
    window = cv2.createHanningWindow((256, 256), cv2.CV_32F)
    found = {}
    for row in sar_and_rgb(real).itertuples():
        box = (0, 256, 256, 256)
        gray = read_values(real.root / row.rgb, box).mean(axis=2)
        tile = min(tiles, key=lambda path: np.abs(tiles[path] - gray).mean())
        assert np.abs(tiles[tile] - gray).mean() < 6, row.location
        before = read_image(Path(str(tile).replace("/EO/", "/SAR/"))).mean(axis=2, dtype=np.float32)
        after = read_values(real.root / row.path, box).mean(axis=2, dtype=np.float32)
        smooth = [cv2.GaussianBlur(image, (0, 0), 1.0) for image in (after, before)]
        found[row.location] = np.hypot(*cv2.phaseCorrelate(*smooth, window)[0])
    assert len(found) == 14
    assert max(found.values()) < 0.15, found


@needs_real
def test_real_gradients_of_sar_and_colour_agree_near_their_places(real):
    """The pairs themselves are off by up to 7 pixels east and west, as their heights are: 4 by more than 3.

    The SAR was never brought to level ground, so within one location the shift changes by up to ten pixels
    from plain to hill. What `prepare` could add would be common to all, or lie north and south.
    """
    shifts = residual_shifts(real.root)
    assert len(shifts) == 14
    assert all(shift.trusted for shift in shifts.values())
    across, down = (np.array([getattr(s, name) for s in shifts.values()]) for name in ("dx_px", "dy_px"))
    assert (np.abs(down) < 3).all()
    assert (np.abs(across) < 3).sum() >= 10, across
    assert np.abs(across).max() < 7.5
    assert abs(np.mean(across)) < 1
    assert abs(np.mean(down)) < 1


@needs_real
def test_real_sar_registered_lies_where_it_agrees(real, tmp_path):
    """The location that lies the furthest off: nearly seven pixels to the east of its colour."""
    location = "34.09356_-118.15560"
    before = residual_shifts(real.root)[location]
    assert before.dx_px == min(shift.dx_px for shift in residual_shifts(real.root).values())
    root = REAL / "Train_Data_Bingham_SAR_IR_RGB" / location
    pair = sar_and_rgb(data := prepared(root, tmp_path / "out", "sar", "rgb", register=True)).iloc[0]
    assert (pair.shift_x_px, pair.shift_y_px) == pytest.approx((before.dx_px, before.dy_px), abs=2e-3)
    left = shift_between(data, pair.path, pair.rgb)
    assert np.hypot(left.dx_px, left.dy_px) < 1 / 3


@needs_real
def test_real_captures_of_ten_years_lie_on_one_grid(real):
    table = real.table
    years = table[table.location.str.startswith("47.")]
    assert years.location.nunique() == 7
    errors = []
    for _, captures in years.groupby("location"):
        grids = set()
        for path in captures.path:
            with rasterio.open(real.root / path) as dataset:
                grids.add((dataset.crs.to_string(), dataset.transform, dataset.shape))
        assert len(grids) == 1
        colour = captures[captures.modality == "rgb"].sort_values("taken").path.tolist()
        assert len(colour) >= 4
        shifts = [shift_between(real, *pair) for pair in itertools.pairwise(colour)]
        errors += [np.hypot(shift.dx_px, shift.dy_px) for shift in shifts if shift.trusted]
    assert len(errors) >= 40
    assert np.median(errors) < 0.5
    assert np.mean(np.array(errors) < 1.5) > 0.95  # an aerial image's own place is good to about a pixel


# ---- synthetic scenes


CITY = synth_files.CITIES[0]
FLIGHT = render.Flight(180.0, 55.0, 1.0, (1.0, 1.0, 1.0), 0.0, 0.4, 1.0, 10.0)
PASS = render.Pass(270.0, 52.0, 4.0, 1.0)
BLOCKS_M = [(x, y) for x in (40.0, 105.0, 160.0) for y in (35.0, 90.0, 165.0)]  # from the chip's corner


def blocks_on_water() -> Scene:
    """Level: bright squares of 8 m on dark water, both to the eye and to the radar."""
    px_per_m, side_m = 2.5, synth_files.CHIP_M + 2 * synth_files.MARGIN_M
    zero = np.zeros((int(side_m * px_per_m),) * 2, np.float32)
    scene = Scene(
        px_per_m,
        np.full(zero.shape, Material.WATER, np.uint8),
        np.full((*zero.shape, 3), 0.1, np.float32),
        *(zero, zero, zero, zero + np.float32(0.2), zero + np.float32(0.5)),
    )
    for x, y in BLOCKS_M:
        rows, columns = (
            slice(int((m + synth_files.MARGIN_M - 4) * 2.5), int((m + synth_files.MARGIN_M + 4) * 2.5))
            for m in (y, x)
        )
        scene.material[rows, columns] = Material.METAL_ROOF
        scene.albedo[rows, columns] = 0.8
    return scene


def write_blocks(root: Path, east_m: float, south_m: float) -> None:
    """A location of `blocks_on_water`, its SAR georeferenced (east, south) of its true position."""
    site = synth_files.site_of(CITY, 0, np.random.default_rng(0))
    place, scene = root / f"Train_Data_{CITY.name}_SAR_IR_RGB" / site.name, blocks_on_water()
    size = 410, 400
    grid = synth_files.plain_grid(size, scene.px_per_m)
    rgb = render.optical(scene, grid, FLIGHT, np.random.default_rng(1)).rgb
    where = synth_files.optical_affine(site, size, (0.0, 0.0))
    synth_files.write_geotiff(
        place / "20200101_rgb.tif", synth_files.stored(rgb), CITY.optical_crs, where, None
    )
    on = synth_files.sar_grid(site, synth_files.Footprint(2.0, -1.0, 222.0, 0.1), 0.55, scene.px_per_m)
    image = synth_files.stored(render.radar(scene, on.grid, PASS, np.random.default_rng(2)), valid=on.valid)
    a, b, c, d, e, f = on.affine[:6]
    moved = Affine(a, b, c + east_m, d, e, f - south_m)
    synth_files.write_geotiff(place / "20200102_GEC.tif", image, CITY.sar_crs, moved, 0)


def centres_px(image: np.ndarray) -> np.ndarray:
    """`N,2` column and row of the middle of each block, by the mean of its pixels brighter than half."""
    gray = image.mean(axis=2)
    found = []
    for x, y in BLOCKS_M:
        column, row = int(x * 400 / 200), int(y * 410 / 200)
        part = cv2.GaussianBlur(gray[row - 28 : row + 28, column - 28 : column + 28], (0, 0), 1.5)
        rows, columns = np.nonzero(part > (part.min() + part.max()) / 2)
        found.append((columns.mean() + column - 28, rows.mean() + row - 28))
    return np.array(found)


@pytest.mark.parametrize("put_px", [(0.0, 0.0), (5.3, -3.7)])
def test_synthetic_sar_lies_on_synthetic_colour_by_the_places_of_known_blocks(tmp_path, put_px):
    write_blocks(tmp_path / "a", put_px[0] * 200 / 400, put_px[1] * 200 / 410)
    data = prepared(tmp_path / "a", tmp_path / "out", "sar", "rgb")
    pair = sar_and_rgb(data).iloc[0]
    centres = [centres_px(read_values(data.root / path)) for path in (pair.path, pair.rgb)]
    off = centres[0] - centres[1] - put_px
    assert np.abs(off).max() < 0.5, off
    assert np.abs(off.mean(axis=0)).max() < 0.15


@pytest.fixture(scope="module")
def level(tmp_path_factory):
    """Level ground, SAR put up to 8 pixels off and registered; and the shifts put in, by source path."""
    root = tmp_path_factory.mktemp("level")
    archives = make_archives(
        root, locations=5, tiles=0, test_images=0, seed=2, chip_px=208, sar_shift_px=8.0, relief=0.0
    )
    out = tmp_path_factory.mktemp("registered") / "out"
    data = prepared(root, out, "sar", "rgb", register=True, uint16="percentile")
    return data, {shift.path.relative_to(root).as_posix(): shift for shift in archives.shifts}


def test_a_put_in_shift_is_taken_out_to_a_third_of_a_pixel(level):
    data, put = level
    pairs = sar_and_rgb(data)
    wanted = np.array([(put[path].east_px, put[path].south_px) for path in pairs.source_path])
    assert np.hypot(*wanted.T).max() > 6
    left = np.hypot(pairs.shift_x_px + wanted[:, 0], pairs.shift_y_px + wanted[:, 1])
    moved = (pairs.shift_x_px != 0) | (pairs.shift_y_px != 0)
    assert len(pairs) >= 12
    assert moved.mean() >= 0.9
    assert (left[moved] < 1 / 3).mean() >= 0.9, left[moved].sort_values()
    assert left[moved].median() < 0.15
    again = sizes_px([shift_between(data, row.path, row.rgb) for row in pairs[moved].itertuples()])
    assert again.max() < 1 / 3


def test_another_place_is_never_trusted(level):
    """Each SAR with the colour of another location, cut to one size."""
    data, _ = level
    pairs = sar_and_rgb(data)
    found = []
    others = pairs.loc[np.roll(pairs.index, len(pairs) // 2)]
    for mine, other in zip(pairs.itertuples(), others.itertuples(), strict=True):
        if mine.location == other.location:
            continue
        box = (0, 0, min(mine.height_px, other.height_px), min(mine.width_px, other.width_px))
        sar, rgb = (read_values(data.root / path, box) for path in (mine.path, other.rgb))
        valid = read_valid(data.root / mine.path, box) & read_valid(data.root / other.rgb, box)
        found.append(estimate_shift(sar, rgb, valid))
    assert len(found) >= 12
    assert not any(shift.trusted for shift in found)


def test_tall_things_draw_the_shift_towards_where_they_came_from(tmp_path):
    """A known error: the radar looks from the west, so SAR leans west and is shifted back east."""
    scene = blocks_on_water()
    tall = replace(scene, height=np.where(scene.material == Material.METAL_ROOF, 6.0, 0.0).astype(np.float32))
    grid = synth_files.plain_grid((400, 400), scene.px_per_m)
    rgb = synth_files.stored(render.optical(tall, grid, FLIGHT, np.random.default_rng(1)).rgb)
    valid = np.ones((400, 400), bool)
    for content, least, most in ((scene, -0.5, 0.5), (tall, 3.0, 12.0)):
        sar = synth_files.stored(render.radar(content, grid, PASS, np.random.default_rng(2)))[:, :, None]
        found = estimate_shift(np.asarray(sar, np.uint8), np.asarray(rgb, np.uint8), valid)
        assert least < found.dx_px < most, found
