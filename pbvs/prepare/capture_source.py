"""A source image read in parts, each with where it holds data, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pbvs.core.errors import ImageError
from pbvs.core.pixels import TIFF_SUFFIXES, Stored, read_image
from pbvs.core.types import Mask
from pbvs.prepare.grid import Grid, open_tiff, unreadable
from pbvs.prepare.rasters import Box
from pbvs.prepare.validity import PackedMask, valid_around_zeros

MAX_BLOCK_BYTES = 128 << 20  # that must be decoded at once


class Source(Protocol):
    """An image that is read in parts.

    Attributes:
        size_px: height and width.
        n_bands: how many bands.
        dtype: uint8 or uint16.
        grid: where it lies; None when the file does not tell.
    """

    size_px: tuple[int, int]
    n_bands: int
    dtype: np.dtype
    grid: Grid | None

    def read(self, box: Box) -> Stored:
        """`h,w,C` of a part; ImageError when it cannot be read."""

    def valid(self, box: Box) -> Mask:
        """`h,w` bool of a part, True where it holds data; ImageError when it cannot be read.

        An image of no known place holds data throughout. Else a mask, an alpha band or a declared nodata
        other than 0 counts as the file says. Zero is also the darkest level, of shadow and water: declared as
        nodata it counts where it is joined to the border of the image, undeclared where it is joined to a
        corner (see `valid_around_zeros`).
        """


@contextmanager
def opened_source(path: Path) -> Iterator[Source]:
    """Opens a source image; for one thread, within the block.

    A PNG is read whole. Of a TIFF no more is read at once than is asked for: strips, tiles, and also one
    strip that is all of the image, since GDAL then decodes row by row (deflate, LZW, uncompressed).

    Raises:
        ImageError: missing, torn, of another format, neither uint8 nor uint16, with a palette, of an absurd
            size (see `pbvs.core.tiff`), or in blocks of over `MAX_BLOCK_BYTES` that must be decoded at once.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        yield _Whole(read_image(path))
        return
    with open_tiff(path) as dataset:
        yield _Raster(dataset, path)


class _Whole:
    """An image in memory, of no known place."""

    def __init__(self, stored: Stored) -> None:
        self.size_px: tuple[int, int] = (stored.shape[0], stored.shape[1])
        self.n_bands, self.dtype = stored.shape[2], stored.dtype
        self.grid: Grid | None = None
        self._stored = stored

    def read(self, box: Box) -> Stored:
        top, left, height, width = box
        return self._stored[top : top + height, left : left + width]

    def valid(self, box: Box) -> Mask:
        return np.ones(box[2:], bool)


class _Raster:
    """An open rasterio dataset."""

    def __init__(self, dataset: Any, path: Path) -> None:
        _check(dataset, path)
        self.size_px: tuple[int, int] = dataset.shape
        self.n_bands, self.dtype = dataset.count, np.dtype(dataset.dtypes[0])
        self.grid = Grid.of_dataset(dataset)
        self._dataset, self._path = dataset, path

    def read(self, box: Box) -> Stored:
        values: Stored = np.empty((*box[2:], self.n_bands), self.dtype)
        self._read(self._dataset.read, box, out=values.transpose(2, 0, 1))
        return values

    def valid(self, box: Box) -> Mask:
        if self.grid is None:
            return np.ones(box[2:], bool)
        flags = self._dataset.mask_flag_enums[0]
        says_zero = MaskFlags.nodata in flags and self._dataset.nodata == 0
        if not says_zero and MaskFlags.all_valid not in flags:
            dataset_mask: Mask = self._read(self._dataset.dataset_mask, box) > 0
            return dataset_mask
        mask = self._within_border if says_zero else self._within_corners
        return np.ones(box[2:], bool) if mask is None else mask.get(*box)

    @cached_property
    def _within_border(self) -> PackedMask:
        return valid_around_zeros(self.size_px, self._zeros, corners_only=False)

    @cached_property
    def _within_corners(self) -> PackedMask | None:
        height, width = self.size_px
        corners = [(row, column, 1, 1) for row in (0, height - 1) for column in (0, width - 1)]
        if all(self.read(corner).any() for corner in corners):
            return None  # all is valid, and most images end here, without being read
        return valid_around_zeros(self.size_px, self._zeros, corners_only=True)

    def _zeros(self, top: int, rows: int) -> Mask:
        return np.logical_not(self.read((top, 0, rows, self.size_px[1])).any(axis=2))

    def _read(self, method: Any, box: Box, **more: Any) -> Any:
        top, left, height, width = box
        try:
            return method(window=Window(left, top, width, height), **more)
        except RasterioError as error:
            raise unreadable(self._path, error) from error


def _check(dataset: Any, path: Path) -> None:
    """Refuses, by what the header says, what is not meant or cannot be read in bounded memory."""
    types = ", ".join(sorted(set(dataset.dtypes)))
    if types not in ("uint8", "uint16"):
        raise ImageError(
            f"pixels are {types}, not uint8 or uint16",
            where=path,
            next_step="convert the image to 8 or 16 bits unsigned",
        )
    if dataset.colorinterp[0] == ColorInterp.palette:
        raise ImageError(
            "pixels are numbers of a palette, not levels", where=path, next_step="convert the image to RGB"
        )
    most_px = max(rows * columns for rows, columns in dataset.block_shapes)
    n_bytes = most_px * dataset.count * np.dtype(types).itemsize
    if n_bytes > MAX_BLOCK_BYTES:
        raise ImageError(
            f"the image is stored in blocks of {n_bytes / 1e6:.0f} MB, which can only be decoded whole",
            where=path,
            next_step="store it in tiles: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT",
        )
