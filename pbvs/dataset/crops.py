"""Where a crop of a working image holds enough valid pixels, found on a coarse mask."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.prepare.grid import Valid

_CELLS_A_CROP = 32  # along each side of a crop, to find where enough of it is valid


def coarse_size(stored_px: tuple[int, int], size_px: tuple[int, int], crop_px: int) -> tuple[int, int]:
    """The size at which a mask of `stored_px` is enough to find crops by: some cells along a crop's side."""
    finest = (min(pair) for pair in zip(stored_px, size_px, strict=True))
    height, width = (
        min(math.ceil(side * _CELLS_A_CROP / crop_px), most)
        for side, most in zip(size_px, finest, strict=True)
    )
    return height, width


def valid_corners(
    valid: Valid, size_px: tuple[int, int], crop_px: int, min_valid: float
) -> NDArray[np.int64]:
    """Corners of crops that hold enough valid pixels, as far as a coarse mask can tell.

    Args:
        valid: `h,w` bool, the mask of the whole image.
        size_px: height and width of the working image that it stands for.
        crop_px: side of the crops in working pixels.
        min_valid: the part that is to be valid.

    Returns:
        `n,2` top and left in working pixels, n at least 1: of the crops that are valid to this part, or if
        there are none, of those that are most.
    """
    (rows, columns), (height, width) = valid.shape, size_px
    high, wide = max(1, round(crop_px * rows / height)), max(1, round(crop_px * columns / width))
    # The mean over all cells of a crop, at the cell in its upper left corner.
    parts = cv2.boxFilter(
        valid.astype(np.float32), -1, (wide, high), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT
    )[: rows - high + 1, : columns - wide + 1]
    # A crop may begin anywhere in its first cell: up to a cell's width is not what was counted.
    unsure = max(height / rows, width / columns) / crop_px
    cells = np.argwhere(parts >= min(min_valid + unsure, float(parts.max())))
    corners = np.rint(cells * [height / rows, width / columns]).astype(np.int64)
    within: NDArray[np.int64] = np.minimum(corners, [height - crop_px, width - crop_px])
    return within
