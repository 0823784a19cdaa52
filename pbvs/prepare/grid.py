"""Georeferenced pixel grids, and two ways of resizing in which nodata does not bleed into valid pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine

from pbvs.core.errors import ImageError
from pbvs.core.pixels import Stored, no_georeference_warnings, resize
from pbvs.core.tiff import read_tiff_header
from pbvs.core.types import Mask

# GDAL's cache of decoded blocks, for all threads of the process; its default is 5 % of the machine's memory.
# Not set by `rasterio.Env`, which resets it for all threads when the first of them leaves it.
GDAL_CACHE_BYTES = 128 << 20
os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_BYTES >> 20))
_CORNERS = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])  # in units of the whole image: they fix all others
_SAME_PLACE_PX = 1e-3
_HALF = 0.5 + 1e-5  # a weight of one half does not exceed it, however its float32 sum was rounded


@dataclass(frozen=True)
class Grid:
    """An image's georeferenced pixels: CRS, transform from (column, row) to the CRS, size in pixels."""

    crs: CRS
    transform: Affine
    height_px: int
    width_px: int

    @classmethod
    def of(cls, path: Path) -> Grid:
        """The grid of a GeoTIFF, from its header.

        Raises:
            ImageError: it cannot be read, or has no CRS.
        """
        with open_tiff(path) as dataset:
            grid = cls.of_dataset(dataset)
        if grid is None:
            raise ImageError("the file does not say where on Earth it lies (no CRS)", where=path)
        return grid

    @classmethod
    def of_dataset(cls, dataset: Any) -> Grid | None:
        """The grid of an open rasterio dataset; None without a CRS."""
        return cls(dataset.crs, dataset.transform, *dataset.shape) if dataset.crs else None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height_px, self.width_px

    def at_size(self, size_px: tuple[int, int] | None) -> Grid:
        """The same extent in `size_px` (height, width) pixels; None keeps the grid."""
        if size_px is None or size_px == self.size_px:
            return self
        height, width = size_px
        across, down = self.width_px / width, self.height_px / height
        a, b, c, d, e, f = self.transform[:6]
        return Grid(self.crs, Affine(a * across, b * down, c, d * across, e * down, f), height, width)

    def part(self, top: int, left: int, height: int, width: int) -> Grid:
        """The grid of a part of the image, in pixels of this one."""
        return Grid(self.crs, self.moved(left, top).transform, height, width)

    def moved(self, columns: float, rows: float) -> Grid:
        """The grid of the same size, shifted right and down by `columns` and `rows` of its pixels."""
        a, b, _, d, e, _ = self.transform[:6]
        ((x, y),) = apply_affine(self.transform, np.array([(columns, rows)]))
        return Grid(self.crs, Affine(a, b, x, d, e, y), self.height_px, self.width_px)

    def offset_in(self, other: Grid) -> tuple[int, int] | None:
        """The row and column of `other` at which this grid starts; None where the pixels do not coincide."""
        if self.crs != other.crs:
            return None
        corners = _CORNERS * (self.width_px, self.height_px)
        offsets = apply_affine(~other.transform, apply_affine(self.transform, corners)) - corners
        column, row = np.rint(offsets[0])
        return (int(row), int(column)) if np.abs(offsets - (column, row)).max() <= _SAME_PLACE_PX else None

    def same_ground(self, other: Grid) -> bool:
        """Whether both have the same extent in the same CRS, in any number of pixels."""
        if self.crs != other.crs:
            return False
        mine, theirs = (
            apply_affine(grid.transform, _CORNERS * (grid.width_px, grid.height_px)) for grid in (self, other)
        )
        pixel = min(abs(self.transform.determinant), abs(other.transform.determinant)) ** 0.5
        return bool(np.abs(mine - theirs).max() <= _SAME_PLACE_PX * pixel)

    def described(self) -> list[Any]:
        """The grid as JSON-like values, for fingerprints."""
        return [self.crs.to_wkt(), list(self.transform)[:6], self.height_px, self.width_px]


def open_tiff(path: Path) -> Any:
    """A TIFF open for reading: a rasterio dataset for one thread, to be closed as a context manager.

    Raises:
        ImageError: missing, truncated or corrupt, of another format, or its declared size exceeds the limits.
    """
    try:
        read_tiff_header(path)  # first, since GDAL trusts any size that a header declares
        with no_georeference_warnings():
            return rasterio.open(path, driver="GTiff")
    except (ImageError, RasterioError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ImageError:
    """The error of a source image that cannot be read."""
    return ImageError(
        f"the image cannot be read: {error}",
        where=path,
        next_step="download the file again or delete it",
    )


def resize_masked(stored: Stored, valid: Mask, size_px: tuple[int, int]) -> tuple[Stored, Mask]:
    """`pixels.resize` of the valid pixels alone; an image that already has this size is returned as it is."""
    if stored.shape[:2] == size_px:
        return stored, valid
    if valid.all():
        return resize(stored, size_px), np.ones(size_px, bool)
    weights = resize(valid.astype(np.float32)[:, :, None], size_px)[:, :, 0]
    values = resize(stored.astype(np.float32) * valid[:, :, None], size_px)
    return masked_mean(values, weights, stored.dtype)


def masked_mean(values: NDArray, weights: NDArray, dtype: np.dtype) -> tuple[Stored, Mask]:
    """Means from weighted sums of valid pixels.

    Args:
        values: `H,W,C` float, sums of weight x value over valid source pixels.
        weights: `H,W` float in [0,1], sums of the weights of valid source pixels.
        dtype: uint8 or uint16, the type to round to.

    Returns:
        `H,W,C` in `dtype`, 0 where invalid; `H,W` bool, True where over half of the weight is valid.
    """
    valid = weights > _HALF
    means = values / np.where(valid, weights, 1.0)[:, :, None]
    means *= valid[:, :, None]
    np.clip(means, 0.0, float(np.iinfo(dtype).max), out=means)
    return np.rint(means, out=means).astype(dtype), valid


def apply_affine(where: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine transform of points: `n,2` (column, row) to (x, y), or the reverse for an inverse transform.

    Written out since affine's operator for it is `*` or `@`, depending on its version.
    """
    a, b, c, d, e, f = where[:6]
    x, y = points.T
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
