"""How an image comes onto a grid, block by block, each made of no more of the image than it needs.

Values and validity are brought over together, so that nodata never smears in: resampling `value * valid`
and `valid` by the same linear rule and dividing gives every grid pixel the mean of its valid source pixels
alone; a grid pixel is valid where valid ones bear over half of its weight. (GDAL's own nodata handling is not
used: rasterio passes over `dst_nodata=0`, and 0 is the nodata here.)

Which rule resamples:

* an image whose pixels are the grid's, in part or moved by whole pixels, is copied exactly;
* one of the same ground in the same CRS is resized by `pixels.resize` (by area where it shrinks), the rule
  of every other place that changes a size; so RGB and IR of one grid go through one operation;
* any other is reprojected: by `average` where a grid pixel is at least 1.5 source pixels wide both ways,
  else bilinearly.

The blocks do not show. Copies are exact; so are reprojected images, since GDAL is always given the same
columns of the grid, whatever the blocks: it takes the change of CRS to be linear along a row where that is
right to 1/8 of a source pixel, and over 256 columns it is right to far less. A resized image is made by
OpenCV where it is one block, and by the same weights where it is more: there one grey level may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what rasterio.warp lets through, and no public module offers
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject, transform

from pbvs.core.errors import ImageError
from pbvs.core.pixels import Stored
from pbvs.core.types import Mask
from pbvs.prepare.grid import Grid, apply_affine, masked_mean
from pbvs.prepare.rasters import Box
from pbvs.prepare.resample import Crop

AVERAGE_FROM = 1.5  # source pixels a grid pixel
STRIP_PX = 256  # columns of the grid that are reprojected at once: blocks are best made of whole strips
_MARGIN_PX = 16  # around a block's outline: for the kernel, and should GDAL choose another datum shift there
_N_POINTS = 9  # along each side of a block, to find its place in the source


class Placement(Protocol):
    """One image and one grid, and how the first comes onto the second."""

    @property
    def ratio(self) -> tuple[float, float]:
        """Source pixels a grid pixel, down and across."""

    def source_box(self, box: Box) -> Box | None:
        """The part of the image that a block of the grid is made of; None when the two do not meet."""

    def made(self, box: Box, stored: Stored, valid: Mask) -> tuple[Stored, Mask]:
        """A block of the grid.

        Args:
            box: the block, as given to `source_box`.
            stored: `h,w,C` uint8 or uint16, that part of the image.
            valid: `h,w` bool, where it holds data.

        Returns:
            The block in the same type, and where it is valid; what it holds elsewhere means nothing.
        """


def placed(own: Grid, grid: Grid) -> Placement:
    """How an image of the grid `own` comes onto `grid`, by the rules above.

    Raises:
        ImageError: the two places cannot be related.
    """
    offset = grid.offset_in(own)
    if offset is not None:
        return Copied(own.size_px, *offset)
    if own.same_ground(grid):
        return Resized(own.size_px, grid.size_px)
    return Reprojected.between(own, grid)


@dataclass(frozen=True)
class Copied:
    """The image's own pixels; the grid's first one is at row `top` and column `left` of the image."""

    own_px: tuple[int, int]
    top: int = 0
    left: int = 0
    ratio: tuple[float, float] = (1.0, 1.0)

    def source_box(self, box: Box) -> Box | None:
        """See `Placement`."""
        top, left = box[0] + self.top, box[1] + self.left
        return _clipped(top, left, top + box[2], left + box[3], self.own_px)

    def made(self, box: Box, stored: Stored, valid: Mask) -> tuple[Stored, Mask]:
        """See `Placement`."""
        if valid.shape == box[2:]:
            return stored, valid
        top, left = max(0, -box[0] - self.top), max(0, -box[1] - self.left)
        there = slice(top, top + valid.shape[0]), slice(left, left + valid.shape[1])
        values, shown = _empty(box, stored)
        values[there], shown[there] = stored, valid
        return values, shown


@dataclass(frozen=True)
class Resized:
    """The image's ground in another number of pixels."""

    own_px: tuple[int, int]
    grid_px: tuple[int, int]

    @property
    def ratio(self) -> tuple[float, float]:
        """See `Placement`."""
        return self.own_px[0] / self.grid_px[0], self.own_px[1] / self.grid_px[1]

    def source_box(self, box: Box) -> Box | None:
        """See `Placement`."""
        return Crop(*box, self.grid_px, self.own_px).box or (0, 0, *self.own_px)

    def made(self, box: Box, stored: Stored, valid: Mask) -> tuple[Stored, Mask]:
        """See `Placement`."""
        return Crop(*box, self.grid_px, self.own_px).cut(stored, valid)


@dataclass(frozen=True)
class Reprojected:
    """The image in another CRS, or on other ground; `ratio` is that at the grid's centre."""

    own: Grid
    grid: Grid
    ratio: tuple[float, float]

    @classmethod
    def between(cls, own: Grid, grid: Grid) -> Reprojected:
        """The placement of an image of the grid `own`; ImageError where the two places cannot be related."""
        x, y = grid.width_px / 2, grid.height_px / 2
        centre, across, down = _in_source(own, grid, np.array([(x, y), (x + 1, y), (x, y + 1)]))
        ratio = float(np.linalg.norm(down - centre)), float(np.linalg.norm(across - centre))
        if not np.isfinite(ratio).all():
            raise _cannot_be_related()
        return cls(own, grid, ratio)

    def source_box(self, box: Box) -> Box | None:
        """See `Placement`."""
        top, left, height, width = _whole_strips(box, self.grid.width_px)
        across, down = np.meshgrid(
            np.linspace(left, left + width, _N_POINTS), np.linspace(top, top + height, _N_POINTS)
        )
        there = _in_source(self.own, self.grid, np.stack([across.ravel(), down.ravel()], axis=1))
        margin = _MARGIN_PX + max(self.ratio)
        (first_x, first_y), (last_x, last_y) = there.min(axis=0) - margin, there.max(axis=0) + margin
        return _clipped(
            int(np.floor(first_y)),
            int(np.floor(first_x)),
            int(np.ceil(last_y)),
            int(np.ceil(last_x)),
            self.own.size_px,
        )

    def made(self, box: Box, stored: Stored, valid: Mask) -> tuple[Stored, Mask]:
        """See `Placement`."""
        values, shown = _empty(box, stored)
        given = self.source_box(box)
        if given is None or not valid.any():
            return values, shown
        for strip in _strips(_whole_strips(box, self.grid.width_px)):
            needed = _common(self.source_box(strip), given)
            asked = _common(strip, box)
            if needed is None or asked is None:
                continue
            part, there, of_strip = _within(needed, given), _within(asked, box), _within(asked, strip)
            sums, weights = self._reprojected(strip, needed, stored[part], valid[part])
            values[there], shown[there] = masked_mean(sums[of_strip], weights[of_strip], stored.dtype)
        return values, shown

    def _reprojected(
        self, strip: Box, needed: Box, stored: Stored, valid: Mask
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Sums `h,w,C` and weights `h,w` of the strip, as `masked_mean` takes them."""
        n_bands = stored.shape[2]
        source = np.empty((n_bands + 1, *valid.shape), np.float32)
        np.multiply(stored.transpose(2, 0, 1), valid, out=source[:n_bands])
        source[n_bands] = valid
        warped = np.zeros((n_bands + 1, *strip[2:]), np.float32)
        by_area = min(self.ratio) >= AVERAGE_FROM
        try:
            reproject(
                source,
                warped,
                src_transform=self.own.part(*needed).transform,
                src_crs=self.own.crs,
                dst_transform=self.grid.part(*strip).transform,
                dst_crs=self.grid.crs,
                resampling=Resampling.average if by_area else Resampling.bilinear,
                # Else GDAL guesses the widths of its kernel from each strip alone.
                XSCALE=1.0 / max(1.0, self.ratio[1]),
                YSCALE=1.0 / max(1.0, self.ratio[0]),
            )
        except (RasterioError, CPLE_BaseError) as error:
            raise _cannot_be_related(error) from error
        return warped[:n_bands].transpose(1, 2, 0), warped[n_bands]


def _whole_strips(box: Box, width_px: int) -> Box:
    """The box widened to whole strips of a grid that is so many pixels wide."""
    top, left, height, width = box
    first, end = left // STRIP_PX * STRIP_PX, -(-(left + width) // STRIP_PX) * STRIP_PX
    return top, first, height, min(end, width_px) - first


def _strips(box: Box) -> Iterator[Box]:
    """The strips of a box of whole ones."""
    top, left, height, width = box
    for first in range(left, left + width, STRIP_PX):
        yield top, first, height, min(STRIP_PX, left + width - first)


def _in_source(own: Grid, grid: Grid, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the grid, `n,2` column and row in pixels, as columns and rows of the image."""
    try:
        xs, ys = transform(grid.crs, own.crs, *apply_affine(grid.transform, points).T)[:2]
    except (RasterioError, CPLE_BaseError) as error:
        raise _cannot_be_related(error) from error
    return apply_affine(~own.transform, np.stack([xs, ys], axis=1))


def _clipped(top: int, left: int, bottom: int, right: int, size_px: tuple[int, int]) -> Box | None:
    top, left, bottom, right = max(0, top), max(0, left), min(size_px[0], bottom), min(size_px[1], right)
    return (top, left, bottom - top, right - left) if top < bottom and left < right else None


def _common(one: Box | None, other: Box) -> Box | None:
    if one is None:
        return None
    top, left = max(one[0], other[0]), max(one[1], other[1])
    bottom, right = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    return (top, left, bottom - top, right - left) if top < bottom and left < right else None


def _within(part: Box, whole: Box) -> tuple[slice, slice]:
    """Rows and columns of `part` in an array of `whole`."""
    top, left = part[0] - whole[0], part[1] - whole[1]
    return slice(top, top + part[2]), slice(left, left + part[3])


def _empty(box: Box, stored: Stored) -> tuple[Stored, Mask]:
    return np.zeros((*box[2:], stored.shape[2]), stored.dtype), np.zeros(box[2:], bool)


def _cannot_be_related(error: Exception | None = None) -> ImageError:
    reason = f": {error}" if error else ""
    return ImageError(f"the image's place cannot be related to its location's grid{reason}")
