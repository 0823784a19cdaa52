"""One source image to one prepared capture, in memory that does not grow with either.

The grid is made in rows of blocks from the top down. Of the source each block reads only the part that it is
made of, and the capture is written as its rows are done. Beside GDAL's cache (128 MB for all threads) a
thread takes about 100 MB, and a bit for each pixel of source and grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import ImageError, UsageError
from pbvs.core.pixels import to_uint8
from pbvs.core.types import Mask
from pbvs.prepare.capture_source import Source, opened_source
from pbvs.prepare.grid import GDAL_CACHE_BYTES, Grid
from pbvs.prepare.rasters import Box, written_capture
from pbvs.prepare.rasters_tiff import TILE_PX
from pbvs.prepare.warp_place import STRIP_PX, Copied, Placement, placed

Numbers = tuple[float, float]

WHOLE_PX = 1 << 22  # images up to 2048 x 2048 are made as one block
BLOCK_PX = 1 << 21  # source pixels (or grid pixels, where these are more) that a block of a larger one takes
_ROWS_PX = 512  # of the grid, written at once where the image is larger
_N_VALUES = 65536


@dataclass(frozen=True)
class Made:
    """What became of a source image.

    Attributes:
        height_px, width_px: size of the grid.
        valid_fraction: the part of it that the image covers with data, rounded down to 1e-6: 1 means each
            and every pixel.
        n_bytes: of the file written; 0 when nothing was.
    """

    height_px: int
    width_px: int
    valid_fraction: float
    n_bytes: int


def make_capture(
    source: Path,
    out: Path,
    *,
    grid: Grid | None,
    stretch: Numbers | None,
    min_overlap: float = 0.0,
    shift_px: Numbers = (0.0, 0.0),
) -> Made:
    """Brings a source image onto a grid, to 8 bits, and into a tiled GeoTIFF with a mask.

    Threads may each call this, within one `no_georeference_warnings` around them all.

    Args:
        source: PNG or TIFF, uint8 or uint16 (see `opened_source`).
        out: where the capture goes; whole or not at all, and the same input gives the same bytes.
        grid: where the pixels come to lie, by the rules of `pbvs.prepare.warp_place`; None for an
            EO/SAR tile, which is kept as it is, all of it valid.
        stretch: the values that become 0 and 255, for uint16; None maps the whole range.
        min_overlap: nothing is written when less than this part of the grid would be valid, in [0,1].
        shift_px: (dx, dy): the content lands dx columns to the right and dy rows below of where its place
            on Earth says, in pixels of the grid.

    Raises:
        ImageError: the source cannot be read, does not tell its place, or it cannot be related to the grid.
        DataError: the capture cannot be written.
        UsageError: a shift without a grid.
    """
    with opened_source(source) as image:
        placement = _placement(image, source, grid, shift_px)
        size_px = image.size_px if grid is None else grid.size_px
        work = _Blocks(image, placement, size_px, stretch, all_valid=grid is None)
        try:
            with written_capture(out, size_px, image.n_bands, grid) as tiff:
                for stored, valid in work.rows():
                    tiff.write_rows(stored, valid)
                fraction = math.floor(1e6 * tiff.n_valid / (size_px[0] * size_px[1])) / 1e6
                if fraction < min_overlap:
                    raise _CoversTooLittle
        except _CoversTooLittle:
            return Made(*size_px, fraction, 0)
    return Made(*size_px, fraction, out.stat().st_size)


class _CoversTooLittle(Exception):
    """Leaves the block of a file that is not to be kept."""


def value_histogram(source: Path) -> NDArray[np.int64]:
    """`65536` counts by value of the valid pixels of an image, all bands together.

    Raises:
        ImageError: it cannot be read.
    """
    counts = np.zeros(_N_VALUES, np.int64)
    with opened_source(source) as image:
        height, width = image.size_px
        rows = max(1, BLOCK_PX // width)
        for top in range(0, height, rows):
            box = (top, 0, min(rows, height - top), width)
            counts += np.bincount(image.read(box)[image.valid(box)].ravel(), minlength=_N_VALUES)
    return counts


def _placement(image: Source, source: Path, grid: Grid | None, shift_px: Numbers) -> Placement:
    if grid is None:
        if shift_px != (0.0, 0.0):
            raise UsageError("an image without a grid cannot be moved on it", where=source)
        return Copied(image.size_px)
    if image.grid is None:
        raise ImageError("the file does not say where on Earth it lies (no CRS)", where=source)
    # What the shifted image shows at a place of the grid is what the image shows that much before it.
    return placed(image.grid, grid.moved(-shift_px[0], -shift_px[1]))


@dataclass(frozen=True)
class _Blocks:
    """The grid, made block by block."""

    image: Source
    placement: Placement
    size_px: tuple[int, int]
    stretch: Numbers | None
    all_valid: bool

    def rows(self) -> Iterator[tuple[NDArray[np.uint8], Mask]]:
        """The grid from the top down, `h,W,C` uint8 with 0 where it is not valid, and `h,W` bool."""
        (height, width), rows = self.size_px, self._rows_px()
        for top in range(0, height, rows):
            stored = np.zeros((min(rows, height - top), width, self.image.n_bands), np.uint8)
            valid: Mask = np.zeros(stored.shape[:2], bool)
            for box in self._boxes(top, len(stored)):
                there = slice(box[0] - top, box[0] - top + box[2]), slice(box[1], box[1] + box[3])
                self._fill(box, stored[there], valid[there])
            yield stored, valid

    def _fill(self, box: Box, stored: NDArray[np.uint8], valid: Mask) -> None:
        """Makes one block in the two arrays of its size, which are all 0."""
        needed = self.placement.source_box(box)
        if needed is None:
            return
        known: Mask = np.ones(needed[2:], bool) if self.all_valid else self.image.valid(needed)
        if not known.any():
            return
        made, valid[:] = self.placement.made(box, self.image.read(needed), known)
        np.multiply(to_uint8(made, *(self.stretch or ())), valid[:, :, None], out=stored)

    def _cost(self) -> tuple[float, float]:
        """Pixels to hold for each row and each column of the grid: the source's, or the grid's if more."""
        return max(1.0, self.placement.ratio[0]), max(1.0, self.placement.ratio[1])

    def _is_one_block(self) -> bool:
        down, across = self._cost()
        return self.size_px[0] * down * self.size_px[1] * across <= WHOLE_PX

    def _rows_px(self) -> int:
        """Rows of the grid to hold at once: whole rows of tiles."""
        if self._is_one_block():
            return self.size_px[0]
        return max(1, int(_ROWS_PX / self._cost()[0]) // TILE_PX) * TILE_PX

    def _boxes(self, top: int, rows: int) -> Iterator[Box]:
        """The blocks of some rows of the grid, row by row.

        Blocks of one row need about the same rows of the source. Where it is stored in strips, these are
        decoded once, provided that they stay in GDAL's cache: so they are to take half of it at most.
        """
        if self._is_one_block():
            yield (0, 0, *self.size_px)
            return
        down, across = self._cost()
        row_bytes = self.image.size_px[1] * self.image.n_bands * self.image.dtype.itemsize
        most_rows = min(BLOCK_PX**0.5, GDAL_CACHE_BYTES / 2 / row_bytes)
        high = max(1, min(rows, int(min(most_rows, BLOCK_PX / (STRIP_PX * across)) / down)))
        wide = max(1, int(BLOCK_PX / (high * down * across)) // STRIP_PX) * STRIP_PX
        for first in range(top, top + rows, high):
            for left in range(0, self.size_px[1], wide):
                yield first, left, min(high, top + rows - first), min(wide, self.size_px[1] - left)
