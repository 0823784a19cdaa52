"""What the header of a TIFF or BigTIFF says, read without GDAL and without trust in what it announces.

GDAL takes a fifth of a millisecond and more to open a file, and believes some fields: 500 bytes that announce
15,000 bands keep it busy for minutes. Here a few small reads tell size, type, place and whether the pixels
lie within the file; nothing is decoded.

Layout: TIFF 6.0, sections 2, 3 and 15, and BigTIFF as libtiff has it. Place and nodata: GeoTIFF 1.1 (OGC
19-008), annex B, read as GDAL's driver does (OSGeo/gdal, frmts/gtiff/gtiffdataset_read.cpp, MIT).
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pbvs.core.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_VALUES = 2**32
"""The most pixels times bands that an image may announce: 3.6 mosaics of 20,000 x 20,000 pixels in RGB."""

MOST_BANDS = 512
"""The most bands that an image may announce; hyperspectral sensors have up to about 430."""

Transform = tuple[float, float, float, float, float, float]

_HEAD_BYTES = 8192  # holds the header, the fields and the list of strips of nearly every file
_MOST_FIELDS = 1000
_MOST_FIELD_BYTES = 2**27  # the places of as many 16 x 16 tiles as `MOST_VALUES` allows

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339
_PIXEL_SCALE, _INTERGRAPH, _TIE_POINTS, _MATRIX = 33550, 33920, 33922, 34264
_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXT, _NODATA, _RPC = 34735, 34736, 34737, 42113, 50844
_RASTER_TYPE_KEY, _PIXEL_IS_POINT = 1025, 2

_LISTS = (_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES)
_SEPARATE_PLANES = 2
_CODES = {
    **{1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"},
    **{16: "Q", 17: "q", 18: "Q"},
}
_RATIONALS = {5: 8, 10: 8}
_KIND_BYTES = {kind: struct.calcsize("=" + code) for kind, code in _CODES.items()} | _RATIONALS
_DTYPES = {
    **{(1, bits): f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{(2, bits): f"int{bits}" for bits in (8, 16, 32, 64)},
    **{(3, bits): f"float{bits}" for bits in (32, 64)},
    **{(6, bits): f"complex{bits}" for bits in (64, 128)},
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAMES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"PK": "zip", b"BM": "BMP"}


@dataclass(frozen=True)
class _Form:
    """How numbers lie in a file: byte order, and the layout of a directory."""

    order: str
    count: struct.Struct
    field: struct.Struct
    place: struct.Struct
    inline_bytes: int


def _form(order: str, big: bool) -> _Form:
    count, field, place = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    forms = (struct.Struct(order + count), struct.Struct(order + field), struct.Struct(order + place))
    return _Form(order, *forms, inline_bytes=8 if big else 4)


_FORMS = {
    start + struct.pack(order + "H", version): _form(order, version == 43)
    for start, order in ((b"II", "<"), (b"MM", ">"))
    for version in (42, 43)
}


class TiffSource:
    """The bytes of a TIFF, at any place: a whole file in memory, or an open one of which little is read."""

    def __init__(self, data: bytes, stream: io.FileIO | None = None, n_bytes: int | None = None):
        """`data` are the first bytes; `stream` gives the others of all `n_bytes`."""
        self.n_bytes = len(data) if n_bytes is None else n_bytes
        self._stream = stream
        self._start, self._window = 0, data

    def bytes_at(self, at: int, n_bytes: int) -> bytes:
        """`n_bytes` from place `at`.

        Raises:
            ImageError: they do not lie within the file.
        """
        inside = at - self._start
        if inside >= 0 and inside + n_bytes <= len(self._window):
            return self._window[inside : inside + n_bytes]
        if at + n_bytes > self.n_bytes or self._stream is None:
            raise _not_whole("a directory or a list lies beyond its end")
        self._stream.seek(at)
        self._start, self._window = at, self._stream.read(max(n_bytes, _HEAD_BYTES)) or b""
        if len(self._window) < n_bytes:
            raise _not_whole("it shrinks while it is read")
        return self._window[:n_bytes]


class Directory:
    """One directory of a TIFF: the fields that describe one image; values are read when asked for."""

    def __init__(self, source: TiffSource, form: _Form, fields: dict[int, tuple[int, int, bytes]]):
        self.order = form.order
        self._source, self._form, self._fields = source, form, fields

    def __contains__(self, tag: int) -> bool:
        return tag in self._fields

    def raw(self, tag: int) -> bytes:
        """A field's bytes as they are stored; none without the field.

        Raises:
            ImageError: they lie beyond the end of the file, or are far more than the field can need.
        """
        if tag not in self._fields:
            return b""
        kind, count, value = self._fields[tag]
        n_bytes = count * _KIND_BYTES.get(kind, 1)
        if n_bytes <= self._form.inline_bytes:
            return value[:n_bytes]
        if n_bytes > (_MOST_FIELD_BYTES if tag in _LISTS else _HEAD_BYTES * 128):
            raise _not_whole(f"a field of {n_bytes} bytes")
        return self._source.bytes_at(self._form.place.unpack(value)[0], n_bytes)

    def numbers(self, tag: int) -> tuple[float, ...]:
        """A field's numbers; none without the field or when it holds no plain numbers."""
        kind, count, _ = self._fields.get(tag, (0, 0, b""))
        return struct.unpack(f"{self.order}{count}{_CODES[kind]}", self.raw(tag)) if kind in _CODES else ()

    def whole_number(self, tag: int, default: int) -> int:
        """A field's first number where it is a whole one, else `default`; lists are not read."""
        kind, count, value = self._fields.get(tag, (0, 0, b""))
        code = _CODES.get(kind, "f")
        if code in "fd" or not count:
            return default
        if count * _KIND_BYTES[kind] > len(value):
            value = self._source.bytes_at(self._form.place.unpack(value)[0], _KIND_BYTES[kind])
        return int(struct.unpack_from(self.order + code, value)[0])

    def places(self, tag: int) -> NDArray[np.unsignedinteger]:
        """A list of places or sizes in bytes, `n` unsigned; empty without the field."""
        import numpy as np

        kind = self._fields.get(tag, (0, 0, b""))[0]
        if kind not in (3, 4, 16):
            return np.empty(0, np.uint64)
        return np.frombuffer(self.raw(tag), f"{self.order}u{_KIND_BYTES[kind]}")

    def text(self, tag: int) -> str:
        """A field's text up to its first NUL, without blanks around it."""
        return self.raw(tag).split(b"\0", 1)[0].decode("latin-1").strip()


def directories(source: TiffSource) -> Iterator[Directory]:
    """The chain of directories, each a count, that many fields, and the next one's place.

    A chain that runs in a circle has no end: stop when there are enough.

    Raises:
        ImageError: not a TIFF, or torn: a directory or one of its values is too large for the file.
    """
    start = source.bytes_at(0, min(16, source.n_bytes))
    form = _FORMS.get(start[:4])
    if form is None or len(start) < 16:
        names = (f"it is a {name}" for begin, name in _NAMES.items() if start.startswith(begin))
        raise _not_whole(next(names, "it does not begin as one"))
    (at,) = form.place.unpack_from(start, 8 if form.inline_bytes == 8 else 4)
    while at:
        (n_fields,) = form.count.unpack(source.bytes_at(at, form.count.size))
        if n_fields > _MOST_FIELDS:
            raise _not_whole(f"{n_fields} fields")
        at += form.count.size
        n_bytes = n_fields * form.field.size
        block = source.bytes_at(at, n_bytes + form.place.size)
        yield Directory(source, form, _fields(form, block[:n_bytes], source.n_bytes))
        (at,) = form.place.unpack_from(block, n_bytes)


def _fields(form: _Form, block: bytes, n_bytes: int) -> dict[int, tuple[int, int, bytes]]:
    fields: dict[int, tuple[int, int, bytes]] = {}
    for tag, kind, count, value in form.field.iter_unpack(block):
        if count * _KIND_BYTES.get(kind, 1) > n_bytes:
            raise _not_whole("a field is larger than the file")
        fields.setdefault(tag, (kind, count, value))  # of doubled fields libtiff takes the first
    return fields


def declared_size(directory: Directory) -> tuple[int, int, int]:
    """Height and width in pixels, and number of bands, as a directory claims them."""
    return (
        directory.whole_number(_HEIGHT, 0),
        directory.whole_number(_WIDTH, 0),
        directory.whole_number(_SAMPLES, 1),
    )


def check_limits(
    height_px: int, width_px: int, bands: int, most_values: int = MOST_VALUES, most_bands: int = MOST_BANDS
) -> None:
    """Passes what an image may announce.

    Raises:
        ImageError: more bands, or more pixels times bands, than the most.
    """
    if bands > most_bands or height_px * width_px * bands > most_values:
        raise ImageError(f"it announces {height_px} x {width_px} pixels of {bands} bands")


@dataclass(frozen=True)
class TiffHeader:
    """What the first directory tells, as rasterio would.

    Attributes:
        height_px, width_px, bands: the size, within `MOST_VALUES` and `MOST_BANDS`.
        dtype: numpy's name for a pixel's type; "" for one that numpy or GDAL has otherwise.
        transform: `a b c d e f` of x = a column + b row + c, y = d column + e row + f, of the outer corner
            of the first pixel; None without a place.
        geo_keys: the bytes that tell the CRS, equal for equal CRSs of one writer; all empty without one.
        nodata: the declared value; None without one, or when the type cannot hold it.
        coding: compression, photometric interpretation and planar configuration, by their TIFF numbers.
        needs_gdal: why only GDAL can tell what it makes of this file; "" when the above is all.
    """

    height_px: int
    width_px: int
    bands: int
    dtype: str
    transform: Transform | None
    geo_keys: tuple[bytes, ...]
    nodata: float | None
    coding: tuple[int, int, int]
    needs_gdal: str


def read_tiff_header(path: str | Path) -> TiffHeader:
    """The header of a TIFF or BigTIFF of either byte order, by a few small reads.

    Raises:
        ImageError: not a TIFF, a torn one (some of its pixels would lie beyond its end), or one that
            announces an absurd size.
        OSError: the file cannot be read.
    """
    with io.FileIO(path) as stream:
        head = stream.read(_HEAD_BYTES) or b""
        return header_of(TiffSource(head, stream, stream.seek(0, io.SEEK_END)))


def header_of(source: TiffSource) -> TiffHeader:
    """As `read_tiff_header`, with the same ImageError, of bytes at hand."""
    first = next(directories(source), None)
    if first is None:
        raise _not_whole("it holds no image")
    height, width, bands = declared_size(first)
    if not (height and width and bands):
        raise _not_whole(f"an image of {height} x {width} pixels and {bands} bands")
    check_limits(height, width, bands)
    dtype, odd_type = _dtype(first, bands)
    transform, odd_place = _transform(first)
    nodata, odd_nodata = _nodata(first, dtype)
    odd_blocks = _check_blocks(first, source.n_bytes, (height, width, bands))
    return TiffHeader(
        height,
        width,
        bands,
        dtype,
        transform,
        _geo_keys(first),
        nodata,
        (
            first.whole_number(_COMPRESSION, 1),
            first.whole_number(_PHOTOMETRIC, -1),
            first.whole_number(_PLANAR, 1),
        ),
        odd_type or odd_place or odd_nodata or odd_blocks,
    )


def _not_whole(why: str) -> ImageError:
    return ImageError(f"not a whole TIFF ({why})")


def _dtype(directory: Directory, bands: int) -> tuple[str, str]:
    bits, formats = directory.numbers(_BITS) or (1,), directory.numbers(_FORMAT) or (1,)
    if len({*bits}) > 1 or len({*formats}) > 1:
        return "", "bands of mixed types"
    dtype = _DTYPES.get((int(formats[0]), int(bits[0])), "")
    return dtype, "" if dtype else f"{bits[0]} bits of sample format {formats[0]}"


def _geo_keys(directory: Directory) -> tuple[bytes, ...]:
    if _GEO_KEYS not in directory:
        return ()
    return (directory.order.encode(), *(directory.raw(tag) for tag in (_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXT)))


def _transform(directory: Directory) -> tuple[Transform | None, str]:
    """The affine transform: scale and tie point win over a matrix, as in GDAL."""
    if _RPC in directory or _INTERGRAPH in directory:
        return None, "a place by RPC or Intergraph's matrix"
    scale, ties = directory.numbers(_PIXEL_SCALE), directory.numbers(_TIE_POINTS)
    matrix = directory.numbers(_MATRIX)
    if scale and len(ties) == 6:
        if len(scale) < 2 or not (scale[0] > 0 and scale[1] > 0):
            return None, "a pixel of no or negative size"
        a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
        c, f = ties[3] - ties[0] * a, ties[4] - ties[1] * e
    elif len(matrix) == 16 and not scale and not ties:
        a, b, c, d, e, f = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    elif scale or ties or matrix:
        return None, "a place by ground control points, or by half of what it takes"
    else:
        return None, ""
    if _is_point(directory):  # the place is that of the first pixel's centre
        c, f = c - (a * 0.5 + b * 0.5), f - (d * 0.5 + e * 0.5)
    return (a, b, c, d, e, f), ""


def _is_point(directory: Directory) -> bool:
    keys = directory.numbers(_GEO_KEYS)
    return any(
        keys[at] == _RASTER_TYPE_KEY and keys[at + 1] == 0 and keys[at + 3] == _PIXEL_IS_POINT
        for at in range(4, len(keys) - 3, 4)
    )


def _nodata(directory: Directory, dtype: str) -> tuple[float | None, str]:
    if _NODATA not in directory:
        return None, ""
    text = directory.text(_NODATA)
    import numpy as np

    if text.lower() in ("nan", "-nan"):
        return (math.nan if dtype.startswith("float") else None), ""
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    # GDAL moves values near the ends of float32, and keeps 64-bit integers apart.
    if abs(value) > 1e38 or dtype in ("int64", "uint64") or dtype.startswith("complex"):
        return None, f"a nodata value of {text!r}"
    if dtype == "float32":
        return float(np.float32(value)), ""
    if dtype == "float64" or not dtype:
        return value, ""
    limits = np.iinfo(dtype)
    return (value if limits.min <= value <= limits.max else None), ""


def _check_blocks(directory: Directory, n_bytes: int, size: tuple[int, int, int]) -> str:
    """Raises ImageError unless all strips or tiles lie within the file; else why GDAL must judge, or "".

    Those at place 0 with 0 bytes were never written by GDAL, which reads them as nodata.
    """
    import numpy as np

    tiled = _TILE_OFFSETS in directory
    offsets = directory.places(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    sizes = directory.places(_TILE_BYTES if tiled else _STRIP_BYTES).astype(np.uint64)
    height, width, bands = size
    rows = directory.whole_number(_TILE_HEIGHT, 0) if tiled else directory.whole_number(_STRIP_ROWS, height)
    columns = directory.whole_number(_TILE_WIDTH, 0) if tiled else width
    if not (rows and columns and len(offsets)) or len(offsets) != len(sizes):
        return "no proper list of strips or tiles"
    planes = bands if directory.whole_number(_PLANAR, 1) == _SEPARATE_PLANES else 1
    per_plane = -(-height // rows) * -(-width // columns)
    if not tiled and per_plane > 1 and directory.whole_number(_COMPRESSION, 1) == 1:
        # Some writers give a plane's last strip the size of the others; only its rows are read.
        last = sizes[per_plane - 1 :: per_plane]
        np.minimum(last, sizes[0] // rows * (height - (per_plane - 1) * rows), out=last)
    within = offsets.max() <= n_bytes and sizes.max() <= n_bytes  # so that their sums cannot run over
    if not within or (offsets + sizes).max() > n_bytes or len(offsets) < per_plane * planes:
        raise _not_whole("cut short: pixels that it lists lie beyond its end")
    return ""
