import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_archives import BASE_CRS, affine, write_tiff
from rasterio.crs import CRS
from rasterio.transform import Affine

from pbvs.core.errors import ImageError
from pbvs.core.pixels import resize
from pbvs.prepare.grid import Grid, apply_affine, masked_mean, open_tiff, resize_masked

CORNER = (400_000.0, 4_500_000.0)


def grid(size: int = 64, pixel_m: float = 1.0, corner: tuple[float, float] = CORNER) -> Grid:
    return Grid(CRS.from_string(BASE_CRS), affine(pixel_m, corner), size, size)


def test_grid_of_a_file(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.ones((5, 7), np.uint8), where=affine(2.0))
    assert Grid.of(path) == Grid(CRS.from_string(BASE_CRS), affine(2.0), 5, 7)
    with pytest.raises(ImageError, match="no CRS"):
        Grid.of(write_tiff(tmp_path / "b.tif", np.ones((5, 7), np.uint8), crs=None))


def test_grid_at_size_keeps_the_ground():
    small = grid().at_size((16, 32))
    assert small.size_px == (16, 32)
    assert small.transform == Affine(2.0, 0, 400_000.0, 0, -4.0, 4_500_000.0)
    assert small.same_ground(grid())
    assert not small.same_ground(grid(corner=(400_001.0, 4_500_000.0)))
    assert grid().at_size(None) == grid()


def test_parts_and_moves_of_a_turned_grid():
    turned = Grid(CRS.from_string(BASE_CRS), Affine(2.0, 1.0, 100.0, 0.5, -3.0, 900.0), 40, 50)
    moved = turned.moved(4, 10)
    assert moved.transform == Affine(2.0, 1.0, 100.0 + 8 + 10, 0.5, -3.0, 900.0 + 2 - 30)
    assert moved.size_px == (40, 50)
    assert turned.part(10, 4, 3, 5) == Grid(turned.crs, moved.transform, 3, 5)
    assert moved.offset_in(turned) == (10, 4)
    assert turned.offset_in(moved) == (-10, -4)


def test_pixels_are_the_same_only_when_all_of_them_are():
    assert grid().offset_in(grid()) == (0, 0)
    assert grid(corner=(400_007.0, 4_499_998.0)).offset_in(grid()) == (2, 7)
    assert grid(corner=(400_000.01, 4_500_000.0)).offset_in(grid()) is None
    assert grid(pixel_m=1.0001).offset_in(grid()) is None  # 0.006 px at the far end
    other = Grid(CRS.from_string("EPSG:32612"), grid().transform, 64, 64)
    assert other.offset_in(grid()) is None


def test_mapped_is_the_affine_of_each_point():
    points = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (2.0, 3.0)])
    found = apply_affine(Affine(2.0, 1.0, 100.0, 0.5, -3.0, 900.0), points)
    assert found.tolist() == [[100, 900], [102, 900.5], [101, 897], [107, 892]]


def test_means_of_valid_pixels():
    weights = np.array([[1.0, 0.75, 0.5, 0.5000001, 0.0]])
    values = np.array([[200.0, 150.0, 100.0, 100.0, 0.0]])[:, :, None]
    means, valid = masked_mean(values.astype(np.float32), weights.astype(np.float32), np.dtype(np.uint8))
    assert means[:, :, 0].tolist() == [[200, 200, 0, 0, 0]]
    assert valid.tolist() == [[True, True, False, False, False]]
    high, _ = masked_mean(np.full((1, 1, 1), 65536.4), np.ones((1, 1)), np.dtype(np.uint16))
    assert high.dtype == np.uint16
    assert high[0, 0, 0] == 65535


def test_resizing_leaves_nodata_out():
    image = np.full((64, 64, 1), 180, np.uint8)
    image[:, 33:] = 0
    valid = image[:, :, 0] > 0
    small, kept = resize_masked(image, valid, (32, 32))
    assert set(np.unique(small)) == {0, 180}
    assert kept[:, :16].all()
    assert not kept[:, 16:].any()  # column 16 is half valid: not over half
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = np.ones((64, 64), bool)
    assert np.array_equal(resize_masked(noise, whole, (20, 24))[0], resize(noise, (20, 24)))
    assert resize_masked(noise, whole, (64, 64))[0] is noise


def test_what_is_no_tiff_is_an_error_that_names_the_file(tmp_path):
    jpeg, absurd = tmp_path / "a.tif", tmp_path / "b.tif"
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a.jpg").rename(jpeg)
    fields = ((256, 1_000_000), (257, 1_000_000), (258, 8), (273, 8), (277, 1), (278, 1_000_000), (279, 1))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    absurd.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(fields)) + entries + bytes(4))
    for path, reason in ((jpeg, "JPEG"), (absurd, "1000000 x 1000000"), (tmp_path / "c.tif", "No such file")):
        with pytest.raises(ImageError, match=reason) as caught:
            open_tiff(Path(path))
        assert caught.value.where == str(path)
