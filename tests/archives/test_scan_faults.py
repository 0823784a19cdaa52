"""A bad file becomes a problem row with its reason, quickly, and never stops the scan."""

import os
import struct
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_archives import BASE_CRS, add_location, affine, colours, write_tiff
from made_tiffs import PLAIN, bomb, put_together

from pbvs.archives import headers
from pbvs.archives.scan import Scan, scan
from pbvs.core.errors import DataError
from pbvs.core.pixels import encode_png, no_georeference_warnings

GRAY = np.full((16, 16), 90, np.uint8)
TILES = Path("Train_Data_and_Validation_EO_SAR")
USABLE = 3  # usable files of the location that every fault is added to


@pytest.fixture
def place(tmp_path) -> Path:
    """A location of three good files."""
    return add_location(tmp_path)


def scanned(place: Path) -> Scan:
    return scan(place.parent.parent, cache=False)


def problem(found: Scan, name: str) -> tuple[str, str]:
    """Kind and description of the only problem of the file called `name`, which must be unusable."""
    (row,) = found.images[found.images.path.str.endswith("/" + name)].itertuples()
    assert not row.usable
    ((kind, what),) = found.problems[found.problems.path == row.path][["kind", "what"]].values.tolist()
    return kind, what


def png(width: int, height: int, colour: int, *extra: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def cmyk_jpeg(folder: Path) -> bytes:
    path = folder / "cmyk.jpg"
    profile = {"driver": "JPEG", "count": 4, "height": 8, "width": 8, "dtype": "uint8"}
    with no_georeference_warnings(), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.zeros((4, 8, 8), np.uint8))
    data = path.read_bytes()
    path.unlink()
    return data


def tiff(folder: Path, image: np.ndarray) -> bytes:
    path = folder / "template.tif"
    write_tiff(path, image)
    data = path.read_bytes()
    path.unlink()
    return data


BYTES = {
    "empty": (lambda _: b"", "empty", "no bytes"),
    "text": (lambda _: b"<html>not found</html>" * 9, "unreadable", "does not begin as one"),
    "JPEG": (cmyk_jpeg, "unreadable", "it is a JPEG"),
    "PNG": (lambda _: encode_png(GRAY[:, :, None]), "unreadable", "it is a PNG"),
    "cut header": (lambda f: tiff(f, GRAY)[:60], "unreadable", "beyond its end"),
    "cut pixels": (lambda f: tiff(f, GRAY)[:-1], "unreadable", "cut short"),
    "bomb": (lambda _: bomb(), "unreadable", "1000000 x 1000000 pixels"),
    "many bands": (lambda _: bomb(9, 9, 15_000), "unreadable", "15000 bands"),
    "NaN": (lambda f: tiff(f, np.full((8, 8), np.nan, np.float32)), "dtype", "float32"),
    "infinities": (lambda f: tiff(f, np.full((8, 8), np.inf, np.float64)), "dtype", "float64"),
    "signed": (lambda f: tiff(f, GRAY.astype(np.int16)), "dtype", "int16"),
    "complex": (lambda f: tiff(f, GRAY.astype(np.complex64)), "dtype", "complex64"),
    "RGBA": (lambda f: tiff(f, np.dstack([GRAY] * 4)), "bands", "4 bands where sar has 1"),
    "palette": (
        lambda _: put_together(PLAIN | {262: (3, [3]), 320: (3, list(range(768)))}),
        "bands",
        "palette",
    ),
    "nowhere": (lambda _: put_together(PLAIN), "no_crs", "not georeferenced"),
    "no pixels": (lambda _: put_together({256: (4, [4]), 257: (4, [3])}), "unreadable", "cannot be read"),
}


@pytest.mark.parametrize("fault", BYTES)
def test_tiffs(place, tmp_path, fault):
    make, kind, what = BYTES[fault]
    (place / "odd_GEC.tif").write_bytes(make(tmp_path))
    started = time.monotonic()
    found = scanned(place)
    assert time.monotonic() - started < 5
    assert problem(found, "odd_GEC.tif")[0] == kind
    assert what in problem(found, "odd_GEC.tif")[1]
    assert found.images.usable.sum() == USABLE
    assert str(tmp_path) not in "".join(found.problems.what)


@pytest.mark.parametrize(
    ("data", "kind", "what"),
    [
        (png(16, 16, 3, (b"PLTE", bytes(range(48)))), "bands", "3 bands where eo has 1"),
        (png(16, 16, 6), "bands", "4 bands"),
        (png(16, 16, 2), "bands", "3 bands"),
        (png(10**6, 10**6, 0), "unreadable", "1000000 x 1000000 pixels"),
        (png(16, 16, 0)[:-3], "unreadable", "cut short"),
        (png(16, 16, 5), "unreadable", "colour type 5"),
        (png(0, 16, 0), "unreadable", "16 x 0"),
        (b"\xff\xd8\xff" * 20, "unreadable", "not a PNG"),
        (b"", "empty", "no bytes"),
    ],
)
def test_tiles(tmp_path, data, kind, what):
    for folder, content in (("SAR", encode_png(GRAY[:, :, None])), ("EO", data)):
        (tmp_path / TILES / folder / "train").mkdir(parents=True)
        (tmp_path / TILES / folder / "train" / "7.png").write_bytes(content)
    found = scan(tmp_path, cache=False)
    assert problem(found, "EO/train/7.png")[0] == kind
    assert what in problem(found, "EO/train/7.png")[1]
    assert "SAR without its EO" in found.problems.what.tolist()


def test_links_that_lead_nowhere_or_to_themselves(place):
    (place / "loop_rgb.tif").symlink_to(place / "loop_rgb.tif")
    (place / "gone_rgb.tif").symlink_to(place / "nothing")
    (place / "linked_rgb.tif").symlink_to(place / "flight_20190601_rgb.tiff")
    found = scanned(place)
    assert problem(found, "loop_rgb.tif")[0] == "unreadable"
    assert "symbolic links" in problem(found, "loop_rgb.tif")[1]
    assert "No such file" in problem(found, "gone_rgb.tif")[1]
    assert found.images.usable.sum() == USABLE + 1


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes there")
def test_a_pipe_does_not_keep_the_scan_waiting(place):
    os.mkfifo(place / "pipe_rgb.tif")
    found = scanned(place)
    assert problem(found, "pipe_rgb.tif")[0] == "unreadable"


def test_a_file_that_vanishes_or_may_not_be_read(place, monkeypatch):
    real = headers.read_tiff_header

    def reading(path):
        if path.endswith("_rgb.tiff"):
            Path(path).unlink()
        if path.endswith("_ir.tif"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(headers, "read_tiff_header", reading)
    found = scanned(place)
    assert problem(found, "flight_20190601_rgb.tiff") == (
        "unreadable",
        "the file cannot be read: No such file or directory",
    )
    assert problem(found, "flight_20190601_ir.tif") == (
        "unreadable",
        "the file cannot be read: Permission denied",
    )
    assert found.problems.kind.tolist().count("missing_modality") == 1


def test_a_folder_that_may_not_be_listed_is_a_row(place, monkeypatch):
    other = add_location(place.parent.parent, name="1.0_2.0")
    real = os.scandir

    def refusing(path):
        if Path(path) == other:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = scanned(place)
    assert found.problems.values.tolist() == [
        [
            "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0",
            "unreadable",
            "the folder cannot be listed: Permission denied",
        ]
    ]


def test_a_root_that_may_not_be_listed_is_an_error(place, monkeypatch):
    def refusing(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="Permission denied"):
        scanned(place)


def test_a_folder_named_as_an_image_is_a_folder(place):
    (place / "x_rgb.tif").mkdir()
    found = scanned(place)
    assert len(found.images) == USABLE
    assert found.problems.empty


def test_images_without_georeference_do_not_warn(place):
    for n in range(5):
        write_tiff(place / f"nowhere{n}_rgb.tif", colours(np.full((8, 8), 9.0)), crs=None)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = scanned(place)
    assert heard == []
    assert found.problems.kind.tolist() == ["no_crs"] * 5


def test_a_crs_without_a_transform_and_the_other_way_round(place):
    profile = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "uint8"}
    with no_georeference_warnings():
        for name, where in (("a", {"crs": BASE_CRS}), ("b", {"transform": affine()})):
            with rasterio.open(place / f"{name}.tif", "w", **profile, **where) as dataset:
                dataset.write(GRAY[None, :8, :8])
    found = scanned(place)
    assert problem(found, "a.tif")[1].endswith("(no transform)")
    assert problem(found, "b.tif")[1].endswith("(no CRS)")
    images = found.images.set_index("capture")
    assert (images.crs["a"], images["transform"]["a"]) == (BASE_CRS, "")
    assert (images.crs["b"], images["transform"]["b"]) == ("", "1.0 0.0 400000.0 0.0 -1.0 4500000.0")
