"""Finds crops with enough valid pixels on a coarse mask."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.core.types import Mask

_CELLS_PER_CROP = 32  # cells of the coarse mask along each side of a crop


def coarse_size(stored_px: tuple[int, int], size_px: tuple[int, int], crop_px: int) -> tuple[int, int]:
    """The size (height, width) of the coarse mask for `valid_corners`, for a stored mask of `stored_px`."""
    finest = (min(pair) for pair in zip(stored_px, size_px, strict=True))
    height, width = (
        min(math.ceil(side * _CELLS_PER_CROP / crop_px), most)
        for side, most in zip(size_px, finest, strict=True)
    )
    return height, width


def valid_corners(valid: Mask, size_px: tuple[int, int], crop_px: int, min_valid: float) -> NDArray[np.int64]:
    """Corners of crops with enough valid pixels, to the precision of a coarse mask.

    Args:
        valid: `h,w` bool, the mask of the whole image.
        size_px: height and width of the working image.
        crop_px: side of the crops in working pixels.
        min_valid: the required valid fraction, in [0,1].

    Returns:
        `n,2 int64` top and left in working pixels, n at least 1: crops that reach `min_valid`, or if none
        does, those with the largest valid fraction.
    """
    (rows, columns), (height, width) = valid.shape, size_px
    high, wide = max(1, round(crop_px * rows / height)), max(1, round(crop_px * columns / width))
    # The mean over all cells of a crop, at the cell in its upper left corner.
    fractions = cv2.boxFilter(
        valid.astype(np.float32), -1, (wide, high), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT
    )[: rows - high + 1, : columns - wide + 1]
    # A crop may start anywhere in its first cell, so up to one cell's width may differ from the count.
    margin = max(height / rows, width / columns) / crop_px
    cells = np.argwhere(fractions >= min(min_valid + margin, float(fractions.max())))
    corners = np.rint(cells * [height / rows, width / columns]).astype(np.int64)
    within: NDArray[np.int64] = np.minimum(corners, [height - crop_px, width - crop_px])
    return within
