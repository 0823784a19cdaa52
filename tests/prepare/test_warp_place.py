import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_archives import BASE_CRS, affine, affine_around, colours, ground, infrared
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform
from scipy.ndimage import map_coordinates

from pbvs.core.errors import ImageError
from pbvs.core.pixels import resize
from pbvs.prepare import warp_place
from pbvs.prepare.grid import Grid
from pbvs.prepare.warp_place import Copied, Placement, Reprojected, Resized, placed

CORNER = (400_000.0, 4_500_000.0)


def grid(size: int = 64, pixel_m: float = 1.0, corner: tuple[float, float] = CORNER) -> Grid:
    return Grid(CRS.from_string(BASE_CRS), affine(pixel_m, corner), size, size)


def around(crs: str, size: int) -> Grid:
    """A grid in another CRS that holds the base grid and a margin about it."""
    return Grid(CRS.from_string(crs), affine_around(crs, size), size, size)


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


def in_blocks(place: Placement, image, valid, size_px, high: int, wide: int):
    values = np.zeros((*size_px, image.shape[2]), image.dtype)
    shown = np.zeros(size_px, bool)
    for top in range(0, size_px[0], high):
        for left in range(0, size_px[1], wide):
            box = (top, left, min(high, size_px[0] - top), min(wide, size_px[1] - left))
            needed = place.source_box(box)
            if needed is None:
                continue
            part = slice(needed[0], needed[0] + needed[2]), slice(needed[1], needed[1] + needed[3])
            there = slice(top, top + box[2]), slice(left, left + box[3])
            values[there], shown[there] = place.made(box, image[part], valid[part])
    return values * shown[:, :, None], shown


def onto(image, valid, own: Grid, there: Grid):
    """The image on the grid, made as one block."""
    return in_blocks(placed(own, there), image, valid, there.size_px, *there.size_px)


# ---- each rule


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:3395", "EPSG:4326"])
def test_another_crs_lands_on_the_same_ground(crs):
    own = around(crs, 160)
    image = np.rint(ground((160, 160), crs, own.transform)).astype(np.uint8)[:, :, None]
    warped, kept = onto(image, everywhere(image), own, grid())
    assert kept.all()
    wanted = ground((64, 64), BASE_CRS, affine())
    assert np.abs(warped[:, :, 0] - wanted).max() < 2.0
    # a shift by one pixel would show: the test can tell
    assert np.abs(warped[:, 1:, 0] - wanted[:, :-1]).max() > 4.0


def test_reprojection_is_exact_where_a_row_is_no_straight_line():
    # Pixels of 20 m: along 900 of them a row of one CRS bends by a tenth of a pixel in the other.
    wide = Grid(CRS.from_string("EPSG:3395"), Affine(20, 0, -12_500_000.0, 0, -20, 4_900_000.0), 40, 900)
    rows, columns = np.indices(wide.size_px) + 0.5
    xs, ys = 20 * columns - 12_500_000.0, 4_900_000.0 - 20 * rows
    east, north = (np.array(a) for a in transform(wide.crs, "EPSG:32612", xs.ravel(), ys.ravel()))
    corner = round(east.min()) - 150.0, round(north.max()) + 150.0
    own = Grid(CRS.from_string("EPSG:32612"), Affine(15, 0, corner[0], 0, -15, corner[1]), 120, 950)
    image = np.random.default_rng(0).integers(0, 256, (120, 950, 1), dtype=np.uint8)
    warped, kept = onto(image, everywhere(image), own, wide)
    at = [(corner[1] - north) / 15 - 0.5, (east - corner[0]) / 15 - 0.5]
    wanted = map_coordinates(image[:, :, 0].astype(float), at, order=1).reshape(wide.size_px)
    assert kept.all()
    error = np.abs(warped[:, :, 0] - wanted)
    assert error.max() < 5  # of noise, where a tenth of a pixel is 25 levels
    assert error.mean() < 1.0
    parts, _ = in_blocks(placed(own, wide), image, everywhere(image), wide.size_px, 40, 130)
    assert np.array_equal(parts, warped)


def test_the_same_pixels_are_copied():
    image = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    valid = np.random.default_rng(1).random((64, 64)) < 0.8
    values, kept = onto(image, valid, grid(), grid())
    assert values.dtype == np.uint16
    assert np.array_equal(values, image * valid[:, :, None])
    assert np.array_equal(kept, valid)
    assert isinstance(placed(grid(), grid()), Copied)


@pytest.mark.parametrize(("east", "south"), [(5, 0), (0, 9), (-3, 4), (-63, -63), (64, 0)])
def test_pixels_moved_by_whole_ones_are_copied(east, south):
    image = np.random.default_rng(0).integers(1, 256, (64, 64, 1), dtype=np.uint8)
    there = grid(corner=(CORNER[0] + east, CORNER[1] - south))
    values, kept = onto(image, everywhere(image), grid(), there)
    around_it = np.zeros((192, 192, 1), np.uint8)
    around_it[64:128, 64:128] = image
    wanted = around_it[64 + south : 128 + south, 64 + east : 128 + east]
    assert np.array_equal(values, wanted)
    assert np.array_equal(kept, wanted[:, :, 0] > 0)


def test_nodata_does_not_smear():
    image = np.full((64, 64, 1), 200, np.uint8)
    valid = np.zeros((64, 64), bool)
    valid[:, :40] = True
    image[~valid] = 255
    warped, kept = onto(image, valid, grid(), grid(corner=(400_000.4, 4_500_000.3)))
    assert set(np.unique(warped)) == {0, 200}
    assert (warped[:, :, 0] > 0).tolist() == kept.tolist()
    assert kept[:, :39].all()
    assert not kept[:, 40:].any()


def test_half_a_pixel_of_data_is_not_over_half():
    image = np.full((64, 64, 1), 200, np.uint8)
    valid = np.zeros((64, 64), bool)
    valid[:, :40] = True
    _, kept = onto(image, valid, grid(), grid(corner=(400_000.5, 4_500_000.0)))
    assert kept[:, :39].all()
    assert not kept[:, 39:].any()


def test_uint16_keeps_its_top_value():
    image = np.full((64, 64, 1), 65535, np.uint16)
    warped, kept = onto(image, everywhere(image), grid(), grid(corner=(400_000.5, 4_500_000.0)))
    assert warped.dtype == np.uint16
    assert (warped[kept] == 65535).all()


def test_shrinking_averages_in_both_ways():
    fine = np.zeros((256, 256, 1), np.uint8)
    fine[::2] = 200  # lines of one pixel: every other sampling would give bars of 0 and 200
    resized, _ = onto(fine, everywhere(fine), grid(256, 0.25), grid())
    assert (resized == 100).all()
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 1), dtype=np.uint8)
    other = Grid(CRS.from_string("EPSG:32612"), affine(0.25), 256, 256)  # the same coordinates, another datum
    warped, kept = onto(noise, everywhere(noise), other, grid())
    assert isinstance(placed(other, grid()), Reprojected)
    assert kept.all()
    assert np.abs(warped.astype(int) - resize(noise, (64, 64))).max() <= 1


def test_the_same_ground_is_resized_so_rgb_and_ir_keep_their_relation():
    rgb = colours(ground((128, 128), BASE_CRS, affine(0.5)))
    own = grid(128, 0.5)
    assert isinstance(placed(own, grid()), Resized)
    small, _ = onto(rgb, everywhere(rgb), own, grid())
    assert np.array_equal(small, resize(rgb, (64, 64)))
    ir, _ = onto(infrared(rgb)[:, :, None], everywhere(rgb), own, grid())
    assert np.abs(ir[:, :, 0].astype(int) - infrared(small)).max() <= 1


def test_places_that_cannot_be_related():
    far = Grid(CRS.from_string("EPSG:3395"), Affine(1, 0, -2.3e6, 0, -1, 4.9e6), 16, 16)
    image = np.full((16, 16, 1), 60, np.uint8)
    assert not onto(image, everywhere(image), far, grid())[1].any()
    local = Grid(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), affine(), 16, 16)
    with pytest.raises(ImageError, match="cannot be related"):
        placed(local, grid())


# ---- the blocks do not show


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(("copied", "up", "down", "same datum", "turned", "coarser")),
    st.sampled_from((np.uint8, np.uint16)),
    st.integers(15, 69),
    st.integers(21, 89),
    st.integers(0, 2**32 - 1),
)
def test_blocks_give_what_the_whole_gives(kind, dtype, high, wide, seed):
    crs = CRS.from_string(BASE_CRS)
    there = Grid(crs, affine(1.0), 70, 90)
    own = {
        "copied": Grid(crs, affine(1.0, (CORNER[0] - 11, CORNER[1] - 5)), 64, 80),
        "up": Grid(crs, affine(1.0), 70, 90).at_size((33, 41)),
        "down": Grid(crs, affine(1.0), 70, 90).at_size((155, 187)),
        "same datum": Grid(crs, affine(0.8, (CORNER[0] + 7.3, CORNER[1] + 9.1)), 80, 100),
        "turned": around("EPSG:32618", 150),
        "coarser": Grid(crs, affine(0.23, (CORNER[0] - 3.3, CORNER[1] + 2.1)), 300, 390),
    }[kind]
    rng = np.random.default_rng(seed)
    image = rng.integers(0, np.iinfo(dtype).max + 1, (*own.size_px, 2), dtype=dtype)
    chunks = np.kron(rng.random((40, 49)) < 0.8, np.ones((10, 10), bool))
    valid = chunks[: own.size_px[0], : own.size_px[1]]
    place = placed(own, there)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warp_place, "STRIP_PX", 32)
        whole, kept = in_blocks(place, image, valid, there.size_px, *there.size_px)
        parts, kept_too = in_blocks(place, image, valid, there.size_px, high, wide)
    assert 0.1 < kept.mean() < 1.0
    assert np.array_equal(kept, kept_too)
    exact = dtype == np.uint8 or isinstance(place, Copied)  # else sums in 32 bits: 1 of 65535
    if isinstance(place, Resized):
        # OpenCV makes the whole, and the same weights make the parts, which then agree with each other.
        assert np.abs(parts.astype(int) - whole).max() <= 1
        whole, _ = in_blocks(place, image, valid, there.size_px, 17, 23)
    assert np.abs(parts.astype(int) - whole).max() <= (0 if exact else 1)


def test_a_block_needs_only_its_part_of_the_image():
    own = Grid(CRS.from_string("EPSG:32612"), affine_around("EPSG:32612", 3000), 3000, 3000)
    fine = grid(1500, 64 / 1500)
    place = placed(own, fine)
    _, _, height, width = place.source_box((600, 256, 100, 256))
    assert height < 350
    assert width < 650
    assert place.source_box((0, 0, 1500, 1500))[2] < 2200  # of 3000: there is a margin about the grid
    away = placed(own, grid(1500, 64 / 1500, (CORNER[0] + 500, CORNER[1])))
    assert away.source_box((0, 0, 1500, 1500)) is None
