import numpy as np
import pytest
from made_archives import BASE_CRS, affine, affine_around, colours, ground, infrared, sar_in, write_tiff
from rasterio.crs import CRS
from rasterio.transform import Affine

from pbvs.data.warp import Grid, onto_grid, read_capture, zeros_within
from pbvs.errors import ImageError
from pbvs.pixels import resize


def grid(size: int = 64, pixel_m: float = 1.0, corner: tuple[float, float] | None = None) -> Grid:
    where = affine(pixel_m) if corner is None else affine(pixel_m, corner)
    return Grid(CRS.from_string(BASE_CRS), where, size, size)


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:3395", "EPSG:4326"])
def test_another_crs_lands_on_the_same_ground(tmp_path, crs):
    stored, valid, own = read_capture(sar_in(tmp_path / "a.tif", crs, size=160))
    warped, kept = onto_grid(stored, valid, own, grid())
    assert kept.all()
    wanted = ground((64, 64), BASE_CRS, affine())
    assert np.abs(warped[:, :, 0] - wanted).max() < 2.0
    # a shift by one pixel would show: the test can tell
    assert np.abs(warped[:, 1:, 0] - wanted[:, :-1]).max() > 4.0


def test_same_grid_is_copied_exactly():
    image = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    warped, kept = onto_grid(image, everywhere(image), grid(), grid())
    assert warped is image
    assert kept.all()


def test_nodata_does_not_smear():
    image = np.full((64, 64, 1), 200, np.uint8)
    valid = np.zeros((64, 64), bool)
    valid[:, :40] = True
    image[~valid] = 255
    shifted = grid(corner=(400_000.4, 4_500_000.3))
    warped, kept = onto_grid(image, valid, grid(), shifted)
    assert set(np.unique(warped)) == {0, 200}
    assert (warped[:, :, 0] > 0).tolist() == kept.tolist()
    assert kept[:, :39].all()
    assert not kept[:, 40:].any()


def test_uint16_keeps_its_top_value():
    image = np.full((64, 64, 1), 65535, np.uint16)
    warped, kept = onto_grid(image, everywhere(image), grid(), grid(corner=(400_000.5, 4_500_000.0)))
    assert warped.dtype == np.uint16
    assert (warped[kept] == 65535).all()


def test_partial_cover():
    image = np.full((64, 64, 1), 90, np.uint8)
    warped, kept = onto_grid(image, everywhere(image), grid(), grid(corner=(400_032.0, 4_500_000.0)))
    assert kept[:, :32].all()
    assert not kept[:, 32:].any()
    assert (warped[:, 32:] == 0).all()


def test_shrinking_averages_in_both_ways():
    fine = np.zeros((256, 256, 1), np.uint8)
    fine[::2] = 200  # lines of one pixel: every other sampling would give bars of 0 and 200
    own = grid(256, 0.25)
    resized, _ = onto_grid(fine, everywhere(fine), own, grid())
    assert (resized == 100).all()
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 1), dtype=np.uint8)
    other = Grid(CRS.from_string("EPSG:32612"), affine(0.25), 256, 256)  # the same coordinates, another datum
    warped, kept = onto_grid(noise, everywhere(noise), other, grid())
    assert kept.all()
    assert np.abs(warped.astype(int) - resize(noise, (64, 64))).max() <= 1


def test_rgb_and_ir_go_through_one_operation():
    rgb = colours(ground((128, 128), BASE_CRS, affine(0.5)))
    own = grid(128, 0.5)
    small, _ = onto_grid(rgb, everywhere(rgb), own, grid())
    assert np.array_equal(small, resize(rgb, (64, 64)))
    ir, _ = onto_grid(infrared(rgb)[:, :, None], everywhere(rgb), own, grid())
    assert np.abs(ir[:, :, 0].astype(int) - infrared(small)).max() <= 1


def test_resizing_leaves_nodata_out():
    image = np.full((64, 64, 1), 180, np.uint8)
    image[:, 33:] = 0
    valid = image[:, :, 0] > 0
    small, kept = onto_grid(image, valid, grid(), grid(32, 2.0))
    assert set(np.unique(small)) == {0, 180}
    assert kept[:, :16].all()
    assert not kept[:, 16:].any()  # column 16 is half valid: not over half


def test_grid_at_size_keeps_the_ground():
    small = grid().at_size((16, 32))
    assert small.size_px == (16, 32)
    assert small.transform == Affine(2.0, 0, 400_000.0, 0, -4.0, 4_500_000.0)
    assert small.same_ground(grid())
    assert not small.same_ground(grid(corner=(400_001.0, 4_500_000.0)))
    assert grid().at_size(None) == grid()


def test_zeros_count_where_they_reach_out():
    image = np.full((9, 9, 2), 7, np.uint8)
    image[0:3, 0:3] = 0  # at a corner
    image[5, 4:] = 0  # from the border inwards, no corner
    image[7, 2] = 0  # inside
    image[8, 0, 0] = 0  # one band only, at a corner
    by_corner, by_border = zeros_within(image, corners_only=True), zeros_within(image, corners_only=False)
    assert not by_corner[0:3, 0:3].any()
    assert (~by_corner).sum() == 9
    assert (~by_border).sum() == 9 + 5
    assert by_border[7, 2]


def test_declared_nodata_counts_as_the_file_says(tmp_path):
    image = np.full((8, 8), 50, np.uint8)
    image[3, 3] = 9
    _, valid, _ = read_capture(write_tiff(tmp_path / "a.tif", image, nodata=9))
    assert (~valid).sum() == 1
    assert not valid[3, 3]


def test_no_crs_and_torn_files_are_image_errors(tmp_path):
    flat = np.ones((64, 64), np.uint8)
    with pytest.raises(ImageError, match="no CRS"):
        read_capture(write_tiff(tmp_path / "a.tif", flat, crs=None))
    torn = write_tiff(tmp_path / "b.tif", flat)
    torn.write_bytes(torn.read_bytes()[:-2000])
    with pytest.raises(ImageError) as caught:
        read_capture(torn)
    assert caught.value.where == str(torn)


def test_a_place_across_the_world_is_invalid_or_an_error():
    image = np.full((16, 16, 1), 60, np.uint8)
    there = affine_around("EPSG:3395", 16)
    there = Affine(there.a, 0, there.c + 1e7, 0, there.e, there.f)
    far = Grid(CRS.from_string("EPSG:3395"), there, 16, 16)
    try:
        _, kept = onto_grid(image, everywhere(image), far, grid())
    except ImageError:
        return
    assert not kept.any()
