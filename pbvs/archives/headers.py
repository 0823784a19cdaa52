"""Image headers, read without decoding and, for nearly every file, without GDAL."""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.enums import ColorInterp

from pbvs.core.errors import ImageError
from pbvs.core.pixels import PNG_SUFFIXES
from pbvs.core.tiff import TiffHeader, Transform, check_limits, read_tiff_header

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BANDS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # colour type to bands once decoded (PNG specification, 11.2.1)
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_TIFF_PALETTE = 3
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what GDAL returns for an image without a georeference


class Header(NamedTuple):
    """The contents of an image file's header.

    Attributes:
        height_px, width_px, bands, dtype: of the decoded array.
        crs: an authority code such as EPSG:32612, else WKT; "" without one.
        transform: `a b c d e f` of x = a column + b row + c, y = d column + e row + f; None without one.
        nodata: the declared value, None when the file declares none.
        palette: whether the values of a TIFF are indices into a palette.
    """

    height_px: int = 0
    width_px: int = 0
    bands: int = 0
    dtype: str = ""
    crs: str = ""
    transform: Transform | None = None
    nodata: float | None = None
    palette: bool = False


class _Kind(NamedTuple):
    """The fields of a TIFF that decide how GDAL reads it, apart from size and position."""

    geo_keys: Hashable
    coding: tuple[int, int, int]
    bands: int
    dtype: str


class HeaderReader:
    """Reads headers from any number of threads, and uses GDAL once per kind of TIFF.

    The first file of every kind (CRS, compression, bands, type) is opened by rasterio, which resolves the CRS
    and confirms that the header is enough for this kind. Files that need more than a plain header, or that
    have sidecars, are always opened by rasterio. So the result always equals rasterio's.
    """

    def __init__(self) -> None:
        self._crs: dict[_Kind, str | None] = {}  # None: GDAL finds more than the header
        self._lock = threading.Lock()

    def read(self, path: str, has_sidecar: bool = False) -> Header:
        """The header of a file, a PNG or a TIFF according to its suffix.

        Args:
            has_sidecar: whether sidecar files that GDAL may use (`.tfw`, `.aux.xml`) exist.

        Raises:
            ImageError: not a PNG or TIFF, cut short, or of an absurd declared size.
            RasterioError: GDAL cannot open it.
            OSError: it cannot be read.
        """
        if path.lower().endswith(PNG_SUFFIXES):
            return read_png_header(path)
        tiff = read_tiff_header(path)
        crs = None if has_sidecar or tiff.needs_gdal else self._crs_of(tiff, path)
        return _by_gdal(path) if crs is None else _header(tiff, crs)

    def _crs_of(self, tiff: TiffHeader, path: str) -> str | None:
        kind = _Kind(tiff.geo_keys, tiff.coding, tiff.bands, tiff.dtype)
        if kind not in self._crs:
            with self._lock:
                if kind not in self._crs:
                    header = _by_gdal(path)
                    self._crs[kind] = header.crs if _same(header, _header(tiff, header.crs)) else None
        return self._crs[kind]


def _same(a: Header, b: Header) -> bool:
    return a == b or repr(a) == repr(b)  # a nodata of NaN is not equal to itself


def _header(tiff: TiffHeader, crs: str) -> Header:
    transform = None if tiff.transform == _IDENTITY else tiff.transform
    size = (tiff.height_px, tiff.width_px, tiff.bands, tiff.dtype)
    return Header(*size, crs, transform, tiff.nodata, tiff.coding[1] == _TIFF_PALETTE)


def _by_gdal(path: str) -> Header:
    with rasterio.open(Path(path), driver="GTiff") as dataset:
        crs = dataset.crs.to_string() if dataset.crs else ""
        transform: Transform = tuple(dataset.transform)[:6]
        size = (dataset.height, dataset.width, dataset.count, dataset.dtypes[0])
        palette = dataset.colorinterp[0] == ColorInterp.palette
        return Header(*size, crs, None if transform == _IDENTITY else transform, dataset.nodata, palette)


def read_png_header(path: str) -> Header:
    """Size and type from the first 26 bytes; checks that the file has its end chunk.

    Raises:
        ImageError: not a PNG, cut short, or of an absurd declared size.
        OSError: it cannot be read.
    """
    with io.FileIO(path) as stream:
        start = stream.read(26)
        if len(start) < 26 or not start.startswith(_PNG_SIGNATURE):
            raise ImageError("not a PNG")
        width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
        if colour not in _PNG_BANDS or not width or not height:
            raise ImageError(f"a PNG of {height} x {width} pixels and colour type {colour}")
        check_limits(height, width, _PNG_BANDS[colour])
        if not _png_ends(stream):
            raise ImageError("the PNG is cut short (no IEND chunk)")
    return Header(height, width, _PNG_BANDS[colour], "uint16" if bits == 16 else "uint8")


def _png_ends(stream: io.FileIO) -> bool:
    """Whether there is an IEND chunk, at the end of the file or before trailing bytes."""
    n_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, n_bytes - len(_PNG_END)))
    if stream.read() == _PNG_END:
        return True
    at = len(_PNG_SIGNATURE)
    while at + 12 <= n_bytes:
        stream.seek(at)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if kind == b"IEND":
            return True
        at += 12 + length
    return False
