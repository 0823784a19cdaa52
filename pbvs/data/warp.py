"""Captures onto one grid: values and validity are warped together, so that nodata never smears in.

Warping `value * valid` and `valid` by the same linear rule and dividing gives every grid pixel the mean
of its valid source pixels alone; a grid pixel is valid where valid ones bear over half of its weight.
(GDAL's own nodata handling is not used: rasterio passes over `dst_nodata=0`, and 0 is the nodata here.)

Which rule resamples:

* a capture already on the grid is copied, exactly;
* one of the same ground in the same CRS is resized by `pixels.resize` (by area where it shrinks), the rule
  of every other place that changes a size; so RGB and IR of one grid go through one operation;
* any other is reprojected: by `average` where a grid pixel is at least 1.5 source pixels wide both ways,
  else bilinearly.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.warp import reproject, transform

from pbvs.errors import ImageError
from pbvs.pixels import Stored, read_image, resize

Valid = NDArray[np.bool_]

AVERAGE_FROM = 1.5  # source pixels a grid pixel
WARP_TOLERANCE_PX = 0.05  # how far GDAL may approximate the change of CRS, in source pixels
_SAME_PLACE_PX = 1e-3


@dataclass(frozen=True)
class Grid:
    """Where an image's pixels lie: CRS, transform from (column, row) to the CRS, size in pixels."""

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
        try:
            with quietly_opened(path) as dataset:
                return cls._of_dataset(dataset, path)
        except RasterioError as error:
            raise _unreadable(path, error) from error

    @classmethod
    def _of_dataset(cls, dataset: Any, path: Path) -> Grid:
        if not dataset.crs:
            raise ImageError("the file does not say where on Earth it lies (no CRS)", where=path)
        return cls(dataset.crs, dataset.transform, dataset.height, dataset.width)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height_px, self.width_px

    def at_size(self, size_px: tuple[int, int] | None) -> Grid:
        """The same ground cut into `size_px` (height, width); None keeps the grid."""
        if size_px is None or size_px == self.size_px:
            return self
        height, width = size_px
        across, down = self.width_px / width, self.height_px / height
        a, b, c, d, e, f = self.transform[:6]
        return Grid(self.crs, Affine(a * across, b * down, c, d * across, e * down, f), height, width)

    def same_ground(self, other: Grid) -> bool:
        """Whether both cover the same ground in the same CRS, in whatever number of pixels."""
        if self.crs != other.crs:
            return False
        corners = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))  # in units of the whole image
        mine = [_apply(self.transform, x * self.width_px, y * self.height_px) for x, y in corners]
        theirs = [_apply(other.transform, x * other.width_px, y * other.height_px) for x, y in corners]
        pixel = min(abs(self.transform.determinant), abs(other.transform.determinant)) ** 0.5
        return bool(np.abs(np.subtract(mine, theirs)).max() <= _SAME_PLACE_PX * pixel)

    def described(self) -> list[Any]:
        """The grid as JSON-like values, for fingerprints."""
        return [self.crs.to_wkt(), list(self.transform)[:6], self.height_px, self.width_px]


@contextmanager
def without_place_warnings() -> Iterator[None]:
    """No warnings about images that have no place on Earth.

    Filters of warnings are one for all threads: code that starts threads enters this once, around them all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def quietly_opened(path: Path) -> Iterator[Any]:
    """`rasterio.open` for reading, without a warning for images that have no place."""
    with without_place_warnings(), rasterio.open(path) as dataset:
        yield dataset


def read_capture(path: Path) -> tuple[Stored, Valid, Grid]:
    """A GeoTIFF whole, with its validity and grid.

    Returns:
        `H,W,C` uint8 or uint16; `H,W` bool, True where there is an image; the grid.
        A mask, an alpha band or a declared nodata other than 0 counts as the file says. Zero is also the
        darkest level, of shadow and water: declared as nodata it counts where it is joined to the border
        of the image, undeclared where it is joined to a corner (see `zeros_within`).

    Raises:
        ImageError: torn or unreadable, no CRS, neither uint8 nor uint16.
    """
    stored = read_image(path)
    try:
        with quietly_opened(path) as dataset:
            grid = Grid._of_dataset(dataset, path)
            says_zero = MaskFlags.nodata in dataset.mask_flag_enums[0] and dataset.nodata == 0
            says_all = dataset.mask_flag_enums[0] == [MaskFlags.all_valid]
            told = None if says_zero or says_all else dataset.dataset_mask() > 0
    except RasterioError as error:
        raise _unreadable(path, error) from error
    return stored, zeros_within(stored, corners_only=not says_zero) if told is None else told, grid


def zeros_within(stored: Stored, corners_only: bool) -> Valid:
    """`H,W` bool of an `H,W,C` image: False where all bands are 0 and joined (8 ways) to the border.

    With `corners_only` just what is joined to one of the four corners is False: the footprint of a capture
    is convex, so each piece around it holds a corner, while a lake cut by the border rarely does.
    """
    zeros: Valid = (stored == 0).all(axis=2)
    if not (zeros[0].any() or zeros[-1].any() or zeros[:, 0].any() or zeros[:, -1].any()):
        return np.ones_like(zeros)
    labels = np.asarray(cv2.connectedComponents(zeros.astype(np.uint8), connectivity=8)[1])
    if corners_only:
        edge = labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    else:
        edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.zeros(int(labels.max()) + 1, bool)
    outside[edge] = True
    outside[0] = False  # label 0 is what is not zero
    valid: Valid = ~outside[labels]
    return valid


def onto_grid(stored: Stored, valid: Valid, own: Grid, grid: Grid) -> tuple[Stored, Valid]:
    """Brings an image from its `own` grid onto `grid`, by the rules above; invalid pixels become 0.

    Args:
        stored: `H,W,C` uint8 or uint16.
        valid: `H,W` bool.

    Returns:
        The image in the same type and its validity, at the grid's size.

    Raises:
        ImageError: the two places cannot be related.
    """
    if own.same_ground(grid):
        return resized_with_validity(stored, valid, grid.size_px)
    try:
        ratio = _source_px_per_grid_px(own, grid)
        method = Resampling.average if min(ratio) >= AVERAGE_FROM else Resampling.bilinear
        values, weights = _reprojected(stored, valid, own, grid, method)
    except (RasterioError, CRSError) as error:
        raise ImageError(f"the image cannot be brought onto its location's grid: {error}") from error
    return mean_of_valid(values, weights, stored.dtype)


def resized_with_validity(stored: Stored, valid: Valid, size_px: tuple[int, int]) -> tuple[Stored, Valid]:
    """`pixels.resize` of the valid pixels alone; an image of this size already is given back as it is."""
    if stored.shape[:2] == size_px:
        return stored, valid
    if valid.all():
        return resize(stored, size_px), np.ones(size_px, bool)
    weights = resize(valid.astype(np.float32)[:, :, None], size_px)[:, :, 0]
    values = resize(stored.astype(np.float32) * valid[:, :, None], size_px)
    return mean_of_valid(values, weights, stored.dtype)


def mean_of_valid(values: NDArray, weights: NDArray, dtype: np.dtype) -> tuple[Stored, Valid]:
    """Weighted sums of valid pixels to their means.

    Args:
        values: `H,W,C` float, sums of weight x value over valid source pixels.
        weights: `H,W` float in [0,1], sums of the weights of valid source pixels.
        dtype: uint8 or uint16, the type to round to.

    Returns:
        `H,W,C` in `dtype`, 0 where invalid; `H,W` bool, True where over half of the weight is valid.
    """
    valid = weights > 0.5
    means = values / np.where(valid, weights, 1.0)[:, :, None] * valid[:, :, None]
    top = float(np.iinfo(dtype).max)
    return np.rint(np.clip(means, 0.0, top)).astype(dtype), valid


def _reprojected(
    stored: Stored, valid: Valid, own: Grid, grid: Grid, method: Resampling
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    n_bands = stored.shape[2]
    source = np.empty((n_bands + 1, *stored.shape[:2]), np.float32)
    source[:n_bands] = stored.transpose(2, 0, 1) * valid
    source[n_bands] = valid
    warped = np.zeros((n_bands + 1, *grid.size_px), np.float32)
    reproject(
        source,
        warped,
        src_transform=own.transform,
        src_crs=own.crs,
        dst_transform=grid.transform,
        dst_crs=grid.crs,
        resampling=method,
        tolerance=WARP_TOLERANCE_PX,
    )
    return warped[:n_bands].transpose(1, 2, 0), warped[n_bands]


def _source_px_per_grid_px(own: Grid, grid: Grid) -> tuple[float, float]:
    """How many source pixels one pixel of the grid spans along its columns and rows, at its centre."""
    x, y = grid.width_px / 2, grid.height_px / 2
    points = [_apply(grid.transform, *point) for point in ((x, y), (x + 1, y), (x, y + 1))]
    xs, ys = transform(grid.crs, own.crs, [p[0] for p in points], [p[1] for p in points])[:2]
    pixels = np.array([_apply(~own.transform, *point) for point in zip(xs, ys, strict=True)])
    spans = np.linalg.norm(pixels[1:] - pixels[0], axis=1)
    if not np.isfinite(spans).all():
        raise ImageError("the image's place cannot be related to its location's grid")
    return float(spans[0]), float(spans[1])


def _apply(where: Affine, x: float, y: float) -> tuple[float, float]:
    """A transform of one point; written out since `*` and `@` belong to different versions of affine."""
    a, b, c, d, e, f = where[:6]
    return a * x + b * y + c, d * x + e * y + f


def _unreadable(path: Path, error: Exception) -> ImageError:
    return ImageError(
        f"the image cannot be read: {error}",
        where=path,
        next_step="get the file again, or take it out of the folder",
    )
