"""Headers read without GDAL say what rasterio says; nothing that a header announces is believed blindly."""

import math
import struct
import time

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_tiffs import PLAIN, bomb, profiles, put_together, write_profile
from rasterio.transform import Affine

from pbvs.core.errors import ImageError
from pbvs.core.pixels import no_georeference_warnings
from pbvs.core.tiff import TiffHeader, TiffSource, directories, header_of, read_tiff_header

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
UTM = {"crs": "EPSG:32612", "transform": Affine(2.0, 0.0, 500.0, 0.0, -2.0, 900.0)}


def header(data: bytes) -> TiffHeader:
    return header_of(TiffSource(data))


def written(path, **profile):
    """A file of 20 x 30 pixels of one band of uint8, or as `profile` has it; its bytes."""
    usual = {"count": 1, "height": 20, "width": 30, "dtype": "uint8", "SPARSE_OK": False}
    write_profile(path, usual | {"AREA_OR_POINT": "Area"} | profile)
    return path.read_bytes()


# ---- the same as rasterio


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tiffs")


@settings(max_examples=100, deadline=None)
@given(profile=profiles())
def test_any_profile_reads_as_rasterio_reads_it(scratch, profile):
    path = write_profile(scratch / "any.tif", profile)
    told = read_tiff_header(path)
    with no_georeference_warnings(), rasterio.open(path) as dataset:
        assert (told.height_px, told.width_px, told.bands) == (dataset.height, dataset.width, dataset.count)
        assert {told.dtype} == {*dataset.dtypes}
        assert told.nodata == dataset.nodata or (math.isnan(told.nodata) and math.isnan(dataset.nodata))
        assert (told.transform or IDENTITY) == pytest.approx(tuple(dataset.transform)[:6], rel=1e-15)
        assert bool(told.geo_keys) or not dataset.crs
    assert told.needs_gdal == ""
    assert header(path.read_bytes()) == told or math.isnan(told.nodata)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [0.1, -9999, 1e30, float("nan")])
def test_float_nodata(tmp_path, dtype, nodata):
    path = tmp_path / "a.tif"
    told = header(written(path, dtype=dtype, nodata=nodata))
    with no_georeference_warnings(), rasterio.open(path) as dataset:
        assert repr(told.nodata) == repr(dataset.nodata)
    assert told.needs_gdal == ""


def test_directory_at_the_end_and_a_long_list_of_strips(tmp_path):
    path = tmp_path / "a.tif"
    written(path, height=6000, width=2, blockysize=1, nodata=7, **UTM)
    with rasterio.open(path, "r+") as dataset:
        dataset.crs = "EPSG:4326"  # written anew behind the pixels
        dataset.update_tags(note="x" * 3000)
    told = read_tiff_header(path)
    assert (told.height_px, told.nodata, told.transform) == (6000, 7, (2.0, 0.0, 500.0, 0.0, -2.0, 900.0))
    (at,) = struct.unpack("<I", path.read_bytes()[4:8])
    assert at > 12_000


def test_equal_crs_have_equal_keys_and_others_not(tmp_path):
    one, same, other = (
        header(written(tmp_path / f"{i}.tif", crs=crs, height=10 + i))
        for i, crs in enumerate(["EPSG:32612", "EPSG:32612", "EPSG:26912"])
    )
    assert one.geo_keys == same.geo_keys != other.geo_keys
    assert header(written(tmp_path / "n.tif")).geo_keys == ()


def test_fields_by_hand():
    keys = [1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 2]
    fields = PLAIN | {33550: (12, [2.0, 4.0, 0.0]), 33922: (12, [1.0, 2.0, 0.0, 100.0, 200.0, 0.0])}
    area = header(put_together(fields | {42113: (2, [b" 255 \0"])}))
    assert (area.height_px, area.width_px, area.bands, area.dtype, area.nodata) == (3, 4, 1, "uint8", 255.0)
    assert area.transform == (2.0, 0.0, 98.0, 0.0, -4.0, 208.0)
    for order in "<>":
        for big in (False, True):
            point = header(put_together(fields | {34735: (3, keys)}, order, big))
            assert point.transform == (2.0, 0.0, 97.0, 0.0, -4.0, 210.0)  # half a pixel left and up
    turned = header(put_together(PLAIN | {34264: (12, [float(n) for n in range(16)])}))
    assert turned.transform == (0.0, 1.0, 3.0, 4.0, 5.0, 7.0)
    assert (area.coding, area.needs_gdal) == ((1, 1, 1), "")
    old = PLAIN | {258: (3, [8] * 3), 259: (3, [5] * 3), 277: (3, [3]), 284: (3, [2])}  # one number a band
    old |= {273: (4, [0] * 3), 279: (4, [0] * 3)}
    assert header(put_together(old)).coding == (5, 1, 2)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({258: (3, [8, 16]), 277: (3, [2])}, "mixed types"),
        ({258: (3, [8, 8]), 277: (3, [2]), 339: (3, [1, 3])}, "mixed types"),
        ({258: (3, [4])}, "4 bits"),
        ({258: (3, [16]), 339: (3, [3])}, "16 bits of sample format 3"),
        ({33922: (12, [0.0] * 24)}, "ground control"),
        ({33550: (12, [1.0, 1.0, 0.0])}, "ground control"),
        ({33550: (12, [1.0, -1.0, 0.0]), 33922: (12, [0.0] * 6)}, "negative"),
        ({33550: (12, [1.0, float("nan"), 0.0]), 33922: (12, [0.0] * 6)}, "no or negative"),
        ({50844: (12, [0.0] * 92)}, "RPC"),
        ({42113: (2, [b"none\0"])}, "'none'"),
        ({258: (3, [32]), 339: (3, [3]), 42113: (2, [b"-3.40282346638529e+38\0"])}, "nodata"),
        ({279: (4, [0, 0])}, "list of strips"),
        ({278: (4, [0])}, "list of strips"),
        ({324: (4, [0]), 325: (4, [0])}, "list of strips"),
    ],
)
def test_what_only_gdal_can_judge_is_said(fields, why):
    assert why in header(put_together(PLAIN | fields)).needs_gdal
    assert header(put_together(PLAIN)).needs_gdal == ""


def test_a_nodata_that_the_type_cannot_hold_is_none(tmp_path):
    for value, kept in (
        (b"-1\0", None),
        (b"256\0", None),
        (b"nan\0", None),
        (b"0\0", 0.0),
        (b"1e2\0", 100.0),
    ):
        data = put_together(PLAIN | {42113: (2, [value])})
        assert header(data).nodata == kept
        (tmp_path / "a.tif").write_bytes(data)
        with no_georeference_warnings(), rasterio.open(tmp_path / "a.tif") as dataset:
            assert dataset.nodata == kept


# ---- torn, absurd and hostile


@pytest.mark.parametrize("layout", [{"blockysize": 3}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
@pytest.mark.parametrize("compress", [None, "deflate"])
def test_one_byte_less_is_cut_short(tmp_path, layout, compress):
    data = written(tmp_path / "a.tif", compress=compress, count=2, interleave="band", **layout)
    first = next(directories(TiffSource(data)))
    tags = (324, 325) if "tiled" in layout else (273, 279)
    end = int((first.places(tags[0]) + first.places(tags[1])).max())
    header(data[:end])
    with pytest.raises(ImageError, match="cut short"):
        header(data[: end - 1])


def test_a_last_strip_that_claims_the_size_of_the_others_is_whole(tmp_path):
    strips = {278: (4, [2]), 273: (4, [200, 208]), 279: (4, [8, 8])}  # 2 + 1 rows of 4 bytes
    data = put_together(PLAIN | strips)
    assert len(data) <= 200
    whole = data.ljust(200) + bytes(range(12))
    header(whole)
    (tmp_path / "a.tif").write_bytes(whole)
    with no_georeference_warnings(), rasterio.open(tmp_path / "a.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), np.arange(12).reshape(3, 4))
    with pytest.raises(ImageError, match="cut short"):
        header(whole[:-1])


def test_a_list_of_fewer_strips_than_rows_need_is_cut_short():
    with pytest.raises(ImageError, match="cut short"):
        header(put_together(PLAIN | {278: (4, [1])}))
    header(put_together(PLAIN | {278: (4, [1]), 273: (4, [0] * 3), 279: (4, [0] * 3)}))


def test_places_whose_sum_runs_over_are_beyond_the_end():
    with pytest.raises(ImageError, match="cut short"):
        header(put_together(PLAIN | {273: (16, [2**64 - 1]), 279: (16, [2])}, big=True))


def test_a_bomb_is_refused_and_a_large_mosaic_is_not(tmp_path):
    started = time.monotonic()
    with pytest.raises(ImageError, match="announces 1000000 x 1000000 pixels of 1 bands"):
        header(bomb())
    with pytest.raises(ImageError, match="3 x 4 pixels of 15000 bands"):
        header(bomb(3, 4, 15_000))
    mosaic = put_together(
        PLAIN | {256: (4, [20_000]), 257: (4, [20_000]), 258: (3, [8] * 3), 277: (3, [3]), 278: (4, [20_000])}
    )
    assert header(mosaic).bands == 3
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "does not begin"),
        (b"II*\0", "does not begin"),
        (b"II*\0 and nothing of a TIFF", "beyond its end"),
        (b"\xff\xd8\xff\xe0" + b"0" * 99, "a JPEG"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 99, "a PNG"),
        (b"II*\0" + b"\0" * 99, "no image"),
        (put_together({}) + b"..", "0 x 0"),
        (put_together(PLAIN | {256: (4, [0])}), "3 x 0"),
        (put_together(PLAIN)[:-9], "beyond its end"),
        (b"II*\0\x08\0\0\0\xff\xff" + b"0" * 99, "65535 fields"),
    ],
)
def test_no_tiff(tmp_path, data, why):
    (tmp_path / "a.tif").write_bytes(data)
    for read in (lambda: header(data), lambda: read_tiff_header(tmp_path / "a.tif")):
        with pytest.raises(ImageError, match=why):
            read()


def test_fields_larger_than_the_file_or_than_sense():
    huge = bytearray(put_together(PLAIN | {42113: (2, [b"0\0"])}))
    at = huge.index(struct.pack("<HH", 42113, 2))
    huge[at + 4 : at + 8] = struct.pack("<I", 10**9)
    with pytest.raises(ImageError, match="larger than the file"):
        header(bytes(huge))
    with pytest.raises(ImageError, match="a field of 2097152 bytes"):
        header(put_together(PLAIN | {42113: (2, [b"0" * 2**21])}))


def test_of_doubled_fields_the_first_counts_as_for_libtiff(tmp_path):
    data = bytearray(put_together(PLAIN | {254: (4, [0])}))
    at = data.index(struct.pack("<HH", 254, 4))
    data[at : at + 12] = struct.pack("<HHII", 256, 4, 1, 2)  # a first width of 2; the other says 4
    (tmp_path / "a.tif").write_bytes(data)
    with no_georeference_warnings(), rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.width == header(bytes(data)).width_px == 2


def test_pages_are_walked_and_a_circle_has_no_end():
    data = put_together(PLAIN, pages=3)
    assert len([*directories(TiffSource(data))]) == 3
    back = data[:-4] + struct.pack("<I", 8)
    pages = directories(TiffSource(back))
    assert all(256 in next(pages) for _ in range(50))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    big=st.booleans(),
    order=st.sampled_from("<>"),
    cut=st.integers(0, 300),
)
def test_no_bytes_make_it_fail_otherwise_or_linger(places, big, order, cut):
    place = {33550: (12, [1.0, 1.0, 0.0]), 33922: (12, [0.0] * 6), 34735: (3, [1, 1, 0, 1, 1025, 0, 1, 2])}
    data = bytearray(put_together(PLAIN | place | {42113: (2, [b"12345\0"])}, order, big))
    for at, value in places:
        data[at % len(data)] = value
    started = time.monotonic()
    try:
        told = header(bytes(data[: len(data) - cut % len(data)]))
    except ImageError:
        told = None
    assert time.monotonic() - started < 5
    assert told is None or told.height_px * told.width_px * told.bands <= 2**32
