"""A tiled GeoTIFF written from the top down in one pass: 8 bits, deflated, with an internal mask.

Not through GDAL, for two reasons: a disk that fills up while GDAL closes a file goes unnoticed, and what GDAL
writes depends on what its block cache, which all threads share, happens to throw out. Here the same image
gives the same bytes, and every fault is an `OSError`. Only the tags that tell the place come from GDAL.

Structure: TIFF 6.0 (Adobe, 1992) and its Technical Note 2 (deflate), BigTIFF where 4 GB might not do, GeoTIFF
1.1 (OGC 19-008), and the mask as GDAL keeps it: a second directory of one bit a pixel, 1 where valid.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from pbvs.core.tiff import TiffSource, directories
from pbvs.core.types import Mask
from pbvs.prepare.grid import Grid
from pbvs.prepare.validity import PackedMask

TILE_PX = 128  # a random crop of 256 px touches 9 of them, 2.25 times its own pixels; of 256 px, 4 times
_DEFLATE_LEVEL = 1  # after differencing, higher levels take 2 to 5 times as long to save 3 %
_SAFE_BYTES = 4_000_000_000  # offsets of classic TIFF end at 4,294,967,295

_ASCII, _SHORT, _LONG, _DOUBLE, _LONG8 = 2, 3, 4, 12, 16  # TIFF's types
_BYTES_OF = {_ASCII: 1, _SHORT: 2, _LONG: 4, _DOUBLE: 8, _LONG8: 8}
_FORMAT_OF = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}
_PLACE_TAGS = dict.fromkeys((33550, 33922, 34264, 34736), _DOUBLE) | {34735: _SHORT, 34737: _ASCII}


@dataclass(frozen=True)
class _Tag:
    number: int
    kind: int
    data: bytes  # little endian

    @classmethod
    def of(cls, number: int, kind: int, *values: int) -> _Tag:
        return cls(number, kind, struct.pack(f"<{len(values)}{_FORMAT_OF[kind]}", *values))

    @property
    def count(self) -> int:
        return len(self.data) // _BYTES_OF[self.kind]


class TiledTiff:
    """Writes one image to a binary stream that can seek; the stream is the caller's to close.

    Rows come from the top down by `write_rows`, then `finish` once; before `finish` it is no TIFF.

    Args:
        stream: at its start.
        size_px: height and width.
        n_bands: 3 are red, green and blue; any other number counts as gray and more.
        grid: where it lies; None for an image of no known place.

    Raises:
        OSError: from any method, when the stream cannot be written to.
    """

    def __init__(self, stream: BinaryIO, size_px: tuple[int, int], n_bands: int, grid: Grid | None) -> None:
        self.height_px, self.width_px = size_px
        self.n_bands, self.n_valid = n_bands, 0
        self._stream, self._grid = stream, grid
        self._mask = PackedMask(*size_px)
        self._next_row = 0
        self._places: list[tuple[int, int]] = []  # offset and bytes of each tile
        self._is_big = self._most_bytes() > _SAFE_BYTES
        stream.write(bytes(16 if self._is_big else 8))  # the header comes last: it points to the directory

    @property
    def all_valid(self) -> bool:
        """Whether each pixel written so far is valid."""
        return self.n_valid == self._next_row * self.width_px

    def _most_bytes(self) -> int:
        across, down = (-(-side // TILE_PX) for side in (self.width_px, self.height_px))
        tile = TILE_PX * TILE_PX * self.n_bands
        return across * down * (tile + tile // 1000 + 64 + TILE_PX * TILE_PX // 8 + 64)

    def write_rows(self, stored: NDArray[np.uint8], valid: Mask) -> None:
        """The next rows: `h,W,C` uint8 and `h,W` bool; h is a multiple of `TILE_PX` but at the bottom."""
        height = len(valid)
        is_last = self._next_row + height == self.height_px
        if stored.shape != (height, self.width_px, self.n_bands) or valid.shape != stored.shape[:2]:
            raise ValueError(f"rows of {stored.shape} and {valid.shape} for an image {self.width_px} wide")
        if not is_last and (height % TILE_PX or self._next_row + height > self.height_px):
            raise ValueError(f"{height} rows from row {self._next_row} on are not whole rows of tiles")
        self._mask.put_rows(self._next_row, valid)
        self.n_valid += int(np.count_nonzero(valid))
        self._next_row += height
        for top in range(0, height, TILE_PX):
            tiles = _row_of_tiles(stored[top : top + TILE_PX])
            tiles[:, :, 1:] -= tiles[:, :, :-1]  # horizontal differencing, modulo 256
            self._places += [self._write_deflated(tile.tobytes()) for tile in tiles]

    def finish(self) -> None:
        """Writes the mask, only if something is invalid, and what makes a TIFF of it all."""
        if self._next_row != self.height_px:
            raise ValueError(f"{self._next_row} of {self.height_px} rows were written")
        next_directory = 0
        if not self.all_valid:
            places = [self._write_deflated(bits) for bits in self._mask_tiles()]
            next_directory = self._write_directory(self._mask_tags(places), 0)
        directory = self._write_directory(self._image_tags(), next_directory)
        self._stream.seek(0)
        header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, directory) if self._is_big else None
        self._stream.write(header or struct.pack("<2sHI", b"II", 42, directory))

    # ---- parts of the file

    def _write_deflated(self, data: bytes) -> tuple[int, int]:
        return self._write(zlib.compress(data, _DEFLATE_LEVEL))

    def _write(self, data: bytes) -> tuple[int, int]:
        """Writes at the end, on an even offset; gives the offset and the number of bytes."""
        offset = self._stream.tell()
        self._stream.write(data + bytes(len(data) % 2))
        return offset, len(data)

    def _mask_tiles(self) -> Iterable[bytes]:
        for top in range(0, self.height_px, TILE_PX):
            rows = min(TILE_PX, self.height_px - top)
            valid = self._mask.get(top, 0, rows, self.width_px)
            for tile in _row_of_tiles(valid[:, :, None]):
                yield np.packbits(tile[:, :, 0], axis=1).tobytes()

    def _image_tags(self) -> list[_Tag]:
        is_rgb = self.n_bands == 3
        n_more = 0 if is_rgb else self.n_bands - 1
        tags = [
            *self._common_tags(self._places, self.n_bands),
            _Tag.of(258, _SHORT, *[8] * self.n_bands),
            _Tag.of(262, _SHORT, 2 if is_rgb else 1),
            _Tag.of(317, _SHORT, 2),  # horizontal differencing
            *_place_tags(self._grid, self.height_px),
        ]
        return [*tags, _Tag.of(338, _SHORT, *[0] * n_more)] if n_more else tags

    def _mask_tags(self, places: list[tuple[int, int]]) -> list[_Tag]:
        kind = (_Tag.of(254, _LONG, 4), _Tag.of(258, _SHORT, 1), _Tag.of(262, _SHORT, 4))
        return [*kind, *self._common_tags(places, 1)]

    def _common_tags(self, places: list[tuple[int, int]], n_bands: int) -> list[_Tag]:
        offsets, sizes = zip(*places, strict=True)
        return [
            _Tag.of(256, _LONG, self.width_px),
            _Tag.of(257, _LONG, self.height_px),
            _Tag.of(259, _SHORT, 8),  # deflate
            _Tag.of(277, _SHORT, n_bands),
            _Tag.of(284, _SHORT, 1),  # all bands of a pixel together
            _Tag.of(322, _LONG, TILE_PX),
            _Tag.of(323, _LONG, TILE_PX),
            _Tag.of(324, _LONG8 if self._is_big else _LONG, *offsets),
            _Tag.of(325, _LONG, *sizes),
        ]

    def _write_directory(self, tags: list[_Tag], next_directory: int) -> int:
        """A directory and the values that do not fit into it; gives its offset."""
        offset_format, count_format = ("Q", "Q") if self._is_big else ("I", "H")
        room = struct.calcsize(offset_format)
        entries = b""
        for tag in sorted(tags, key=lambda tag: tag.number):
            value = tag.data.ljust(room, b"\0")
            if len(tag.data) > room:
                value = struct.pack(f"<{offset_format}", self._write(tag.data)[0])
            entries += struct.pack(f"<HH{offset_format}", tag.number, tag.kind, tag.count) + value
        count = struct.pack(f"<{count_format}", len(tags))
        return self._write(count + entries + struct.pack(f"<{offset_format}", next_directory))[0]


def _row_of_tiles(rows: NDArray) -> NDArray:
    """`h,W,C` (h up to a tile) to `n,TILE,TILE,C` of its own memory, filled up with 0."""
    height, width, bands = rows.shape
    n = -(-width // TILE_PX)
    filled = np.zeros((TILE_PX, n * TILE_PX, bands), rows.dtype)
    filled[:height, :width] = rows
    return np.ascontiguousarray(filled.reshape(TILE_PX, n, TILE_PX, bands).transpose(1, 0, 2, 3))


def _place_tags(grid: Grid | None, height_px: int) -> list[_Tag]:
    """The tags that tell CRS and transform, as GDAL words them, taken from a file of one pixel.

    An image of no known place counts in pixels from its lower left corner: with no transform at all,
    rasterio would warn each time that it is opened, and filters of warnings are not safe in threads.
    """
    where = Affine(1.0, 0.0, 0.0, 0.0, -1.0, float(height_px)) if grid is None else grid.transform
    crs = None if grid is None else grid.crs
    profile = {"driver": "GTiff", "count": 1, "height": 1, "width": 1, "dtype": "uint8"}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=crs, transform=where):
            pass
        data = memory.read()
    directory = next(directories(TiffSource(data)))
    return [_Tag(tag, kind, directory.raw(tag)) for tag, kind in _PLACE_TAGS.items() if tag in directory]
