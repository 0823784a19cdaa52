"""The headers of a scan equal rasterio's, though it opens only one file of each kind."""

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from made_archives import BASE_CRS, affine, write_tiff
from made_tiffs import PLAIN, profiles, put_together, write_profile
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError

from pbvs.archives import headers
from pbvs.archives.headers import Header, HeaderReader
from pbvs.core.errors import ImageError
from pbvs.core.pixels import no_georeference_warnings, write_png
from pbvs.scenes.synth import make_archives

REAL = Path(__file__).parents[2].parent / "shared/data/real"
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def by_rasterio(path: Path) -> Header:
    with no_georeference_warnings(), rasterio.open(path) as dataset:
        transform = tuple(dataset.transform)[:6]
        return Header(
            dataset.height,
            dataset.width,
            dataset.count,
            dataset.dtypes[0],
            dataset.crs.to_string() if dataset.crs else "",
            None if transform == IDENTITY else transform,
            dataset.nodata,
            dataset.colorinterp[0].name == "palette",
        )


def read(path: Path, reader: HeaderReader | None = None, has_sidecar: bool = False) -> Header:
    with no_georeference_warnings():
        return (reader or HeaderReader()).read(str(path), has_sidecar)


def assert_same(header: Header, right: Header) -> None:
    assert header[:5] == right[:5]
    assert header.transform == (right.transform and pytest.approx(right.transform, rel=1e-15))
    assert header.nodata == right.nodata or (math.isnan(header.nodata) and math.isnan(right.nodata))
    assert header.palette == right.palette


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The files that rasterio opens."""
    paths: list[Path] = []
    real = rasterio.open

    def counted(path, *args, **more):
        paths.append(path)
        return real(path, *args, **more)

    monkeypatch.setattr(headers.rasterio, "open", counted)
    return paths


READER = HeaderReader()  # shared by all examples: a kind must not use the CRS of another


@settings(max_examples=60, deadline=None)
@given(profile=profiles(), nbits=st.sampled_from([None, None, 1, 4]))
def test_any_profile(scratch, profile, nbits):
    if nbits and profile["dtype"] == "uint8":
        profile["NBITS"] = nbits
    path = write_profile(scratch / "any.tif", profile)
    assert_same(read(path, READER), by_rasterio(path))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_all_real_images(opened):
    reader = HeaderReader()
    paths = sorted(REAL.rglob("*.tif*"))
    found = [read(path, reader) for path in paths]
    assert len(opened) <= 8 < len(paths)
    for path, header in zip(paths, found, strict=True):
        assert_same(header, by_rasterio(path))


def test_synthetic_scenes(tmp_path, opened):
    make_archives(tmp_path / "archives", locations=2, tiles=2, test_images=1, chip_px=64, seed=3)
    reader = HeaderReader()
    n_read = n_rejected = 0
    opened.clear()
    for path in sorted((tmp_path / "archives").rglob("*.tif*")):
        if path.name.startswith("._"):
            continue
        try:
            header = read(path, reader)
        except (ImageError, RasterioError):
            n_rejected += 1
            continue
        n_read += 1
        n_opened = len(opened)
        assert_same(header, by_rasterio(path))
        del opened[n_opened:]
    assert len(opened) < n_read / 2
    assert n_rejected <= 3


def test_rasterio_opens_one_file_per_kind(tmp_path, opened):
    for n in range(6):
        crs = ("EPSG:32612", BASE_CRS)[n % 2]
        write_tiff(tmp_path / f"{n}.tif", np.zeros((8, 8 + n), np.uint8), crs, affine(corner=(n, 5.0)))
    opened.clear()
    reader = HeaderReader()
    found = [read(tmp_path / f"{n}.tif", reader) for n in range(6)]
    assert len(opened) == 2
    assert [(h.width_px, h.crs, h.transform[2]) for h in found] == [
        (8 + n, ("EPSG:32612", BASE_CRS)[n % 2], float(n)) for n in range(6)
    ]


def test_sidecars_count_as_for_rasterio(tmp_path, opened):
    path = tmp_path / "a.tif"
    write_tiff(path, np.zeros((8, 8), np.uint8), crs=None)
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n101\n199\n")
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:32612</SRS></PAMDataset>")
    reader = HeaderReader()
    header = read(path, reader, has_sidecar=True)
    assert (header.crs, header.transform) == ("EPSG:32612", (2.0, 0.0, 100.0, 0.0, -2.0, 200.0))
    assert_same(header, by_rasterio(path))
    (tmp_path / "a.tfw").unlink()
    (tmp_path / "a.tif.aux.xml").unlink()
    assert read(path, reader).crs == ""


def test_ground_control_points_are_left_to_rasterio(tmp_path, opened):
    path = tmp_path / "a.tif"
    points = [GroundControlPoint(r, c, 100 + c, 200 - r) for r in (0, 8) for c in (0, 8)]
    profile = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, gcps=points, crs="EPSG:32612") as dataset:
        dataset.write(np.zeros((1, 8, 8), np.uint8))
    opened.clear()
    assert_same(read(path), by_rasterio(path))
    assert len(opened) >= 1


def test_a_kind_that_gdal_reads_otherwise_is_left_to_it(tmp_path):
    colour = PLAIN | {258: (3, [8] * 3), 277: (3, [3])}
    (tmp_path / "lab.tif").write_bytes(
        put_together(colour | {262: (3, [8])})
    )  # CIELAB: GDAL converts it to RGBA
    (tmp_path / "rgb.tif").write_bytes(put_together(colour | {262: (3, [2])}))
    reader = HeaderReader()
    assert [read(tmp_path / f"{name}.tif", reader).bands for name in ("lab", "rgb", "lab")] == [4, 3, 4]


def test_a_palette_is_recognised(tmp_path):
    (tmp_path / "a.tif").write_bytes(put_together(PLAIN | {262: (3, [3]), 320: (3, list(range(768)))}))
    assert read(tmp_path / "a.tif").palette
    assert_same(read(tmp_path / "a.tif"), by_rasterio(tmp_path / "a.tif"))


@pytest.mark.parametrize("bands", [1, 3])
def test_png(tmp_path, bands):
    path = tmp_path / "a.png"
    write_png(path, np.zeros((5, 7, bands), np.uint8))
    assert read(path) == Header(5, 7, bands, "uint8")
    whole = path.read_bytes()
    path.write_bytes(whole + b"behind its end")
    assert read(path).width_px == 7
    for cut in (1, 12, 20, len(whole) - 26, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:-cut])
        with pytest.raises(ImageError, match="PNG"):
            read(path)
