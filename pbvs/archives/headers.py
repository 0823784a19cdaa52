"""What the header of an image file tells, read without decoding and, nearly always, without GDAL."""

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
_NOWHERE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what GDAL gives for an image without a place


class Header(NamedTuple):
    """What a file's header tells.

    Attributes:
        height_px, width_px, bands, dtype: as numpy has them once the file is decoded.
        crs: an authority's code such as EPSG:32612, else WKT; "" without one.
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
    """All of a TIFF that decides how GDAL reads it, but for its size and place."""

    geo_keys: Hashable
    coding: tuple[int, int, int]
    bands: int
    dtype: str


class HeaderReader:
    """Reads headers, for any number of threads, and asks GDAL once for each kind of TIFF.

    Of every kind (CRS, compression, bands, type) the first file is opened by rasterio, which tells the CRS
    and proves that it can read the kind as its header says. Files that hold more than a plain header tells,
    or are `accompanied` by files that may, are all opened by rasterio. So the result is always rasterio's.
    """

    def __init__(self) -> None:
        self._crs: dict[_Kind, str | None] = {}  # None: GDAL sees more than the header
        self._asking = threading.Lock()

    def read(self, path: str, accompanied: bool = False) -> Header:
        """The header of one file, by its suffix a PNG or a TIFF.

        Args:
            accompanied: whether files lie beside it that GDAL may take into account (`.tfw`, `.aux.xml`).

        Raises:
            ImageError: not a whole PNG or TIFF, or one that announces an absurd size.
            RasterioError: GDAL cannot open it.
            OSError: it cannot be read.
        """
        if path.lower().endswith(PNG_SUFFIXES):
            return read_png_header(path)
        tiff = read_tiff_header(path)
        crs = None if accompanied or tiff.needs_gdal else self._crs_of(tiff, path)
        return _by_gdal(path) if crs is None else _header(tiff, crs)

    def _crs_of(self, tiff: TiffHeader, path: str) -> str | None:
        kind = _Kind(tiff.geo_keys, tiff.coding, tiff.bands, tiff.dtype)
        if kind not in self._crs:
            with self._asking:
                if kind not in self._crs:
                    told = _by_gdal(path)
                    self._crs[kind] = told.crs if _same(told, _header(tiff, told.crs)) else None
        return self._crs[kind]


def _same(a: Header, b: Header) -> bool:
    return a == b or repr(a) == repr(b)  # a nodata of nan is not equal to itself


def _header(tiff: TiffHeader, crs: str) -> Header:
    transform = None if tiff.transform == _NOWHERE else tiff.transform
    size = (tiff.height_px, tiff.width_px, tiff.bands, tiff.dtype)
    return Header(*size, crs, transform, tiff.nodata, tiff.coding[1] == _TIFF_PALETTE)


def _by_gdal(path: str) -> Header:
    with rasterio.open(Path(path), driver="GTiff") as dataset:
        crs = dataset.crs.to_string() if dataset.crs else ""
        place: Transform = tuple(dataset.transform)[:6]
        size = (dataset.height, dataset.width, dataset.count, dataset.dtypes[0])
        transform = None if place == _NOWHERE else place
        palette = dataset.colorinterp[0] == ColorInterp.palette
        return Header(*size, crs, transform, dataset.nodata, palette)


def read_png_header(path: str) -> Header:
    """Size and type from the first 26 bytes, and whether the file ends as a PNG does.

    Raises:
        ImageError: not a PNG, cut short, or of an absurd size.
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
            raise ImageError("not a whole PNG (cut short: it has no end)")
    return Header(height, width, _PNG_BANDS[colour], "uint16" if bits == 16 else "uint8")


def _png_ends(stream: io.FileIO) -> bool:
    """Whether the last chunk is there: at the end of the file, or before bytes that do not belong to it."""
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
