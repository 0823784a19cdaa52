import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from made_archives import BASE_CRS, CORNER, affine, ground, sar_in, write_tiff
from rasterio.crs import CRS
from rasterio.env import get_gdal_config

from pbvs.core.errors import DataError, ImageError, UsageError
from pbvs.core.pixels import no_georeference_warnings, resize, to_uint8, write_png
from pbvs.prepare import capture, capture_source, rasters_tiff, validity, warp_place
from pbvs.prepare.capture import Made, make_capture, value_histogram
from pbvs.prepare.capture_source import opened_source
from pbvs.prepare.grid import Grid
from pbvs.prepare.rasters import read_valid, read_values


def grid(size: int = 64, pixel_m: float = 1.0, corner: tuple[float, float] = CORNER) -> Grid:
    return Grid(CRS.from_string(BASE_CRS), affine(pixel_m, corner), size, size)


def noise(height: int, width: int, bands: int = 1, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(1, top + 1, (height, width, bands), dtype=dtype)


def made(source: Path, there: Grid | None, **options) -> tuple[Made, np.ndarray, np.ndarray]:
    out = source.parent / "out" / "made.tif"
    found = make_capture(source, out, **({"grid": there, "stretch": None} | options))
    return found, read_values(out), read_valid(out)


# ---- pixels


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:3395", "EPSG:4326"])
def test_another_crs_lands_on_the_same_ground(tmp_path, crs):
    told, values, valid = made(sar_in(tmp_path / "a.tif", crs, size=160), grid())
    assert (told.height_px, told.width_px, told.valid_fraction) == (64, 64, 1.0)
    assert told.n_bytes == (tmp_path / "out/made.tif").stat().st_size
    assert valid.all()
    wanted = ground((64, 64), BASE_CRS, affine())
    assert np.abs(values[:, :, 0] - wanted).max() < 2.0
    with rasterio.open(tmp_path / "out/made.tif") as dataset:
        assert (dataset.crs, dataset.transform) == (CRS.from_string(BASE_CRS), affine())


def test_the_same_grid_is_copied_and_the_same_ground_resized(tmp_path):
    image = noise(64, 64, 3)
    source = write_tiff(tmp_path / "a.tif", image)
    assert np.array_equal(made(source, grid())[1], image)
    assert np.array_equal(made(source, grid().at_size((20, 40)))[1], resize(image, (20, 40)))
    assert np.array_equal(made(source, grid().at_size((100, 90)))[1], resize(image, (100, 90)))


def test_partial_cover(tmp_path):
    source = write_tiff(tmp_path / "a.tif", np.full((64, 64), 90, np.uint8))
    told, values, valid = made(source, grid(corner=(CORNER[0] + 21.0, CORNER[1])))
    assert told.valid_fraction == 0.671875  # 43 of 64 columns
    assert valid[:, :43].all()
    assert not valid[:, 43:].any()
    assert set(np.unique(values[:, :43])) == {90}
    assert (values[:, 43:] == 0).all()
    two_of_three = write_tiff(tmp_path / "b.tif", np.full((3, 2), 90, np.uint8))
    fraction = made(two_of_three, Grid(CRS.from_string(BASE_CRS), affine(), 3, 3))[0].valid_fraction
    assert fraction == 0.666666  # rounded down


def test_a_shift_moves_the_content_right_and_down(tmp_path):
    image = noise(64, 64)
    source = write_tiff(tmp_path / "a.tif", image)
    _, values, valid = made(source, grid(), shift_px=(3.0, 5.0))
    assert np.array_equal(values[5:, 3:], image[:-5, :-3])
    assert valid[5:, 3:].all()
    assert not valid[:5].any()
    assert not valid[:, :3].any()
    assert (values[:5] == 0).all()


def test_what_is_not_valid_is_0(tmp_path):
    image = noise(64, 64, 3)
    image[20:40] = 9
    told, values, valid = made(write_tiff(tmp_path / "a.tif", image, nodata=9), grid())
    assert not valid[20:40].any()
    assert (values[~valid] == 0).all()
    assert np.array_equal(values[valid], image[valid])
    assert told.valid_fraction == np.floor(1e6 * valid.mean()) / 1e6


@pytest.mark.parametrize("crs", [BASE_CRS, "EPSG:32612", "EPSG:4326"])
def test_a_shift_by_parts_of_a_pixel_of_the_grid(tmp_path, crs):
    there = Grid(CRS.from_string(BASE_CRS), affine(0.5, (CORNER[0] + 8, CORNER[1] - 8)), 96, 96)
    source = sar_in(tmp_path / "a.tif", crs, size=300)
    shifted = made(source, there, shift_px=(-6.4, 2.7))[1][:, :, 0]
    moved_back = affine(0.5, (CORNER[0] + 8 + 3.2, CORNER[1] - 8 + 1.35))  # what is shown lay there
    assert np.abs(shifted - ground((96, 96), BASE_CRS, moved_back)).max() < 1.6
    assert np.abs(shifted - ground((96, 96), BASE_CRS, there.transform)).max() > 4


def test_sixteen_bits_are_stretched_after_warping(tmp_path):
    image = noise(64, 64, 1, np.uint16)
    source = write_tiff(tmp_path / "a.tif", image)
    assert np.array_equal(made(source, grid())[1], to_uint8(image))
    stretched = made(source, grid(), stretch=(9000.0, 40000.0))[1]
    assert np.array_equal(stretched, to_uint8(image, 9000.0, 40000.0))
    half = made(source, grid().at_size((32, 32)), stretch=(9000.0, 40000.0))[1]
    assert np.array_equal(half, to_uint8(resize(image, (32, 32)), 9000.0, 40000.0))
    image[:40] = 0
    told, values, valid = made(write_tiff(tmp_path / "b.tif", image, nodata=0), grid(), stretch=(1.0, 2.0))
    assert told.valid_fraction == 0.375
    assert (values[:40] == 0).all()
    assert not valid[:40].any()


def test_tiles_stay_as_they_are(tmp_path):
    tile = noise(37, 51)
    tile[:20] = 0  # no known place: zeros are pixels as any other
    write_png(tmp_path / "a.png", tile)
    deep = noise(37, 51, 1, np.uint16)
    for source, wanted in (
        (tmp_path / "a.png", tile),
        (write_tiff(tmp_path / "b.tif", tile, crs=None), tile),
        (write_tiff(tmp_path / "c.tif", tile, nodata=0), tile),
        (write_tiff(tmp_path / "d.tif", deep, crs=None), to_uint8(deep)),
    ):
        told, values, valid = made(source, None)
        assert (told.height_px, told.width_px, told.valid_fraction) == (37, 51, 1.0)
        assert np.array_equal(values, wanted)
        assert valid.all()


# ---- validity


def valid_of(source: Path) -> np.ndarray:
    with opened_source(source) as image:
        return image.valid((0, 0, *image.size_px))


def test_zero_is_nodata_where_it_comes_from_outside(tmp_path):
    image = noise(60, 60)
    image[:7, :9] = 0  # at a corner
    image[30, 50:] = 0  # at the border
    image[40:44, 20] = 0  # inside
    declared = valid_of(write_tiff(tmp_path / "a.tif", image, nodata=0))
    undeclared = valid_of(write_tiff(tmp_path / "b.tif", image))
    assert (~undeclared).sum() == 63
    assert not undeclared[:7, :9].any()
    assert (~declared).sum() == 63 + 10
    assert not declared[30, 50:].any()
    other = noise(60, 60, seed=2)
    other[:2, :3] = 0
    both = valid_of(write_tiff(tmp_path / "c.tif", np.concatenate([image, other], axis=2)))
    assert (~both).sum() == 6  # a pixel is zero when all its bands are
    assert not both[:2, :3].any()


def test_what_the_file_says_counts(tmp_path):
    image = noise(30, 40, 3)
    holes = np.random.default_rng(3).random((30, 40)) < 0.7
    nine = np.where(holes[:, :, None], np.maximum(image, 10), 9).astype(np.uint8)
    assert np.array_equal(valid_of(write_tiff(tmp_path / "a.tif", nine, nodata=9)), holes)
    alpha = np.concatenate([image, holes[:, :, None] * np.uint8(255)], axis=2)
    path = write_tiff(tmp_path / "b.tif", alpha)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [*dataset.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    assert np.array_equal(valid_of(path), holes)
    path = write_tiff(tmp_path / "c.tif", image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(holes)
    assert np.array_equal(valid_of(path), holes)
    with opened_source(path) as opened:
        assert np.array_equal(opened.valid((3, 5, 20, 30)), holes[3:23, 5:35])


# ---- blocks


def small_blocks(patched: pytest.MonkeyPatch) -> None:
    """Blocks, bands and strips so small that an image of some hundred pixels has many."""
    patched.setattr(capture, "WHOLE_PX", 1)
    patched.setattr(capture, "BLOCK_PX", 3000)
    patched.setattr(capture, "STRIP_PX", 64)
    patched.setattr(rasters_tiff, "TILE_PX", 32)
    patched.setattr(capture, "TILE_PX", 32)
    patched.setattr(capture, "_ROWS_PX", 40)


def holed(height: int, width: int, bands: int, dtype: type) -> np.ndarray:
    """An image with a slanted border of zeros and lakes of zeros that the border does not reach."""
    image = noise(height, width, bands, dtype)
    rows, columns = np.indices((height, width))
    image[(columns < 30 + rows // 9) | (rows + columns > height + width - 90)] = 0
    image[100:140, 120:150] = 0
    return image


CASES = {
    "copied": ({}, Grid(CRS.from_string(BASE_CRS), affine(1.0, (CORNER[0] - 7, CORNER[1] + 9)), 230, 300)),
    "smaller": ({}, Grid(CRS.from_string(BASE_CRS), affine(), 260, 330).at_size((70, 97))),
    "larger": ({}, Grid(CRS.from_string(BASE_CRS), affine(), 260, 330).at_size((400, 700))),
    "shifted": ({"shift_px": (2.3, -4.6)}, Grid(CRS.from_string(BASE_CRS), affine(), 260, 330)),
    "averaged": ({"shift_px": (0.4, 0.1)}, Grid(CRS.from_string(BASE_CRS), affine(2.5), 100, 130)),
    "reprojected": ({}, Grid(CRS.from_string("EPSG:3395"), affine(1.1, (-12_485_000.0, 4_900_000.0)), 9, 9)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("case", CASES)
def test_blocks_do_not_show(tmp_path, monkeypatch, case, dtype):
    options, there = CASES[case]
    source = write_tiff(tmp_path / "a.tif", holed(260, 330, 2, dtype))
    if case == "reprojected":  # in the other CRS, about the middle of the image
        middle = rasterio.warp.transform(BASE_CRS, there.crs, [CORNER[0] + 150], [CORNER[1] - 130])
        there = Grid(there.crs, affine(1.1, (middle[0][0] - 200, middle[1][0] + 140)), 260, 300)
    options = options | {"stretch": None if dtype == np.uint8 else (500.0, 60_000.0)}
    monkeypatch.setattr(warp_place, "STRIP_PX", 64)
    told, values, valid = made(source, there, **options)
    assert 0.5 < told.valid_fraction < 0.95
    small_blocks(monkeypatch)
    told_too, in_blocks, valid_too = made(source, there, **options)
    assert told_too.valid_fraction == told.valid_fraction
    assert np.array_equal(valid_too, valid)
    assert (in_blocks[~valid] == 0).all()
    if case in ("smaller", "larger"):  # OpenCV for the whole, the same weights for the blocks
        assert np.abs(in_blocks.astype(int) - values).max() <= 1
    else:
        assert np.array_equal(in_blocks, values)


@pytest.mark.parametrize("nodata", [None, 0])
def test_bands_of_the_zeros_do_not_show(tmp_path, monkeypatch, nodata):
    image = holed(260, 330, 1, np.uint8)
    image[200, 40:200] = 0  # a thread from the border to a lake
    image[140:201, 130] = 0
    source = write_tiff(tmp_path / "a.tif", image, nodata=nodata)
    whole = valid_of(source)
    monkeypatch.setattr(validity.valid_around_zeros, "__kwdefaults__", {"band_px": 330 * 3})
    assert np.array_equal(valid_of(source), whole)
    assert whole[100:140, 120:150].any() == (image[200, 30] != 0)


def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "WHOLE_PX", 1)
    monkeypatch.setattr(capture, "BLOCK_PX", 1 << 14)
    monkeypatch.setattr(capture, "_ROWS_PX", 128)
    monkeypatch.setattr(validity.valid_around_zeros, "__kwdefaults__", {"band_px": 1 << 16})
    image = np.full((3000, 1000, 3), 70, np.uint8)
    image[:60] = 0
    source = write_tiff(tmp_path / "a.tif", image, where=affine(0.02))
    here = Grid(CRS.from_string(BASE_CRS), affine(0.02), 3000, 1000)
    turned = Grid(CRS.from_string("EPSG:32612"), affine(0.02), 1000, 1000)
    for there in (here, here.at_size((200, 300)), turned):
        tracemalloc.start()
        told = make_capture(source, tmp_path / "out.tif", grid=there, stretch=None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0.93 < told.valid_fraction < 0.99
        assert peak < 4.5e6  # of 9 MB of pixels
    tracemalloc.start()
    counts = value_histogram(source)
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()
    assert counts[70] == image.size - 60 * 1000 * 3
    with rasterio.Env():
        assert get_gdal_config("GDAL_CACHEMAX") == int(os.environ["GDAL_CACHEMAX"]) << 20


# ---- what is written


def test_too_little_writes_nothing(tmp_path):
    source = write_tiff(tmp_path / "a.tif", np.full((64, 64), 90, np.uint8))
    there, out = grid(corner=(CORNER[0] + 16, CORNER[1])), tmp_path / "out/made.tif"
    told = make_capture(source, out, grid=there, stretch=None, min_overlap=0.76)
    assert told == Made(64, 64, 0.75, 0)
    assert list(out.parent.iterdir()) == []
    told = make_capture(source, out, grid=there, stretch=None, min_overlap=0.75)
    assert told.n_bytes == out.stat().st_size > 0
    before = out.read_bytes()
    assert make_capture(source, out, grid=there, stretch=None, min_overlap=0.9).n_bytes == 0
    assert out.read_bytes() == before


def test_the_same_input_gives_the_same_bytes_beside_others(tmp_path):
    sources = [sar_in(tmp_path / "a.tif", size=300), write_tiff(tmp_path / "b.tif", noise(64, 64, 3))]
    there = grid().at_size((300, 300))
    started = threading.Barrier(4)

    def work(n: int) -> list[bytes]:
        started.wait()
        for n_source, source in enumerate(sources):
            make_capture(source, tmp_path / f"{n}/{n_source}.tif", grid=there, stretch=None)
        return [(tmp_path / f"{n}/{n_source}.tif").read_bytes() for n_source in range(2)]

    with no_georeference_warnings(), ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(work, range(4))
    assert all(other == first for other in others)


def test_a_capture_that_cannot_be_written(tmp_path):
    source = write_tiff(tmp_path / "a.tif", noise(64, 64))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written") as caught:
        make_capture(source, tmp_path / "file/made.tif", grid=grid(), stretch=None)
    assert not isinstance(caught.value, ImageError)


# ---- sources that are at fault


def test_faults_of_the_source_are_image_errors_that_name_it(tmp_path):
    flat = np.ones((64, 64), np.uint8)
    torn = write_tiff(tmp_path / "torn.tif", noise(64, 64))
    torn.write_bytes(torn.read_bytes()[:-2000])
    floats = write_tiff(tmp_path / "floats.tif", np.full((64, 64), np.nan, np.float32))
    palette = write_tiff(tmp_path / "palette.tif", flat)
    with rasterio.open(palette, "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3), 1: (4, 5, 6)})
    write_png(tmp_path / "flat.png", flat[:, :, None])
    for source, reason in (
        (torn, "cannot be read"),
        (floats, "float32"),
        (palette, "palette"),
        (tmp_path / "missing.tif", "No such file"),
        (tmp_path / "flat.png", "no CRS"),
        (write_tiff(tmp_path / "nowhere.tif", flat, crs=None), "no CRS"),
    ):
        with pytest.raises(ImageError, match=reason) as caught:
            make_capture(source, tmp_path / "out/made.tif", grid=grid(), stretch=None)
        assert caught.value.where == str(source)
    assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(UsageError, match="without a grid"):
        make_capture(tmp_path / "flat.png", tmp_path / "o.tif", grid=None, stretch=None, shift_px=(1.0, 0.0))


def test_a_file_torn_in_its_middle_leaves_nothing_half_written(tmp_path, monkeypatch):
    small_blocks(monkeypatch)
    source = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 2, "height": 260, "width": 330, "dtype": "uint8"}
    packed = {"compress": "deflate", "blockysize": 5, "crs": CRS.from_string(BASE_CRS)}
    with rasterio.open(source, "w", **profile, **packed, transform=affine()) as dataset:
        dataset.write(noise(260, 330, 2).transpose(2, 0, 1))
    data = bytearray(source.read_bytes())
    data[100_000:103_000] = bytes(3000)
    source.write_bytes(data)
    there, out = Grid(CRS.from_string(BASE_CRS), affine(), 260, 330), tmp_path / "out/made.tif"
    with pytest.raises(ImageError, match="cannot be read"):
        make_capture(source, out, grid=there, stretch=None)
    assert list(out.parent.iterdir()) == []
    out.write_bytes(b"of an earlier call")
    with pytest.raises(ImageError, match="cannot be read"):
        make_capture(source, out, grid=there, stretch=None)
    assert [path.read_bytes() for path in out.parent.iterdir()] == [b"of an earlier call"]


def test_blocks_that_can_only_be_decoded_whole_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(capture_source, "MAX_BLOCK_BYTES", 64 * 64 * 3 - 1)
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    profile = {"driver": "GTiff", "count": 3, "height": 128, "width": 128, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "a.tif", "w", **profile, **tiles, crs=CRS.from_string(BASE_CRS), transform=affine()
    ) as dataset:
        dataset.write(noise(128, 128, 3).transpose(2, 0, 1))
    with pytest.raises(ImageError, match="blocks of 0 MB, which can only be decoded whole") as caught:
        make_capture(tmp_path / "a.tif", tmp_path / "o.tif", grid=grid(), stretch=None)
    assert "gdal_translate" in (caught.value.next_step or "")


@pytest.mark.parametrize("bands", [1, 3])
def test_one_strip_that_is_all_of_a_large_image_is_read_row_by_row(tmp_path, bands):
    image = np.zeros((6000, 1500, bands), np.uint8)
    image[:, :, 0] = np.arange(6000, dtype=np.uint16)[:, None] % 251 + 1
    profile = {"driver": "GTiff", "count": bands, "height": 6000, "width": 1500, "dtype": "uint8"}
    packed = {"blockysize": 6000, "compress": "deflate", "crs": CRS.from_string(BASE_CRS)}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, **packed, transform=affine()) as dataset:
        dataset.write(image.transpose(2, 0, 1))
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.block_shapes[0] == (1, 1500)  # GDAL's own way with such files
    with opened_source(tmp_path / "a.tif") as opened:
        for top in (5990, 0, 3000):
            assert np.array_equal(opened.read((top, 0, 10, 1500)), image[top : top + 10])


# ---- histograms


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_histogram_of_the_valid_pixels(tmp_path, monkeypatch, dtype):
    image = holed(200, 330, 2, dtype)
    source = write_tiff(tmp_path / "a.tif", image)
    valid = valid_of(source)
    assert not valid.all()
    wanted = np.bincount(image[valid].ravel(), minlength=65536)
    assert np.array_equal(value_histogram(source), wanted)
    monkeypatch.setattr(capture, "BLOCK_PX", 3000)
    assert np.array_equal(value_histogram(source), wanted)
    nowhere = write_tiff(tmp_path / "b.tif", image, crs=None)
    assert np.array_equal(value_histogram(nowhere), np.bincount(image.ravel(), minlength=65536))


def test_histogram_of_a_png(tmp_path):
    image = noise(20, 30, 1, np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert np.array_equal(value_histogram(tmp_path / "a.png"), np.bincount(image.ravel(), minlength=65536))
