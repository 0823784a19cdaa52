"""A part of an image at a working size, read without reading the rest.

A crop of `length` pixels from `start` of a row of `n_out` pixels, which stands for `n_in` stored ones, is
`weights @ stored[first : first + weights.shape[1]]`: the same pixels that resizing the whole row by
`pixels.resize` and then cropping would give (by area where both sides shrink, else bilinear with half-pixel
centres, as OpenCV's INTER_AREA and INTER_LINEAR), up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbvs.data.rasters import Box, read_valid, read_values
from pbvs.data.warp import Valid, mean_of_valid, resized_with_validity


@dataclass(frozen=True)
class Crop:
    """A part of the working image: top, left, height, width in working pixels; `size_px` is the whole's."""

    top: int
    left: int
    height: int
    width: int
    size_px: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return (self.top, self.left, self.height, self.width) == (0, 0, *self.size_px)


def read_crop(
    path: Path, valid: Valid | None, crop: Crop, stored_px: tuple[int, int]
) -> tuple[NDArray[np.uint8], Valid]:
    """The crop of a prepared capture.

    Args:
        path: the capture.
        valid: `H,W` bool of the whole capture; None when all of it is valid.
        crop: the part, in working pixels.
        stored_px: the capture's height and width.

    Returns:
        `h,w,C` uint8 and `h,w` bool, exactly of the crop's size; exact pixels where the working size is the
        stored size, else the resampled mean of the valid ones.

    Raises:
        ImageError: the file is missing or torn.
    """
    if crop.size_px == stored_px:
        box = (crop.top, crop.left, crop.height, crop.width)
        return read_values(path, None if crop.is_whole else box), _part(valid, box)
    if crop.is_whole:
        values = read_values(path)
        resized, kept = resized_with_validity(values, _part(valid, (0, 0, *stored_px)), crop.size_px)
        return resized.astype(np.uint8, copy=False), kept
    by_area = crop.size_px[0] <= stored_px[0] and crop.size_px[1] <= stored_px[1]
    top, rows = resampling(stored_px[0], crop.size_px[0], crop.top, crop.height, by_area)
    left, columns = resampling(stored_px[1], crop.size_px[1], crop.left, crop.width, by_area)
    box = (top, left, rows.shape[1], columns.shape[1])
    shown = _part(valid, box)
    values = read_values(path, box) * shown[:, :, None]
    sums = np.stack([rows @ values[:, :, band] @ columns.T for band in range(values.shape[2])], axis=2)
    pixels, kept = mean_of_valid(sums, rows @ shown.astype(np.float32) @ columns.T, np.dtype(np.uint8))
    return pixels.astype(np.uint8, copy=False), kept


def stored_box(crop: Crop, stored_px: tuple[int, int]) -> Box:
    """The stored pixels that a crop stands for, rounded outwards; `top, left, height, width`."""
    scale_y, scale_x = stored_px[0] / crop.size_px[0], stored_px[1] / crop.size_px[1]
    top, left = int(crop.top * scale_y), int(crop.left * scale_x)
    bottom = min(stored_px[0], int(np.ceil((crop.top + crop.height) * scale_y)))
    right = min(stored_px[1], int(np.ceil((crop.left + crop.width) * scale_x)))
    return top, left, bottom - top, right - left


def resampling(
    n_in: int, n_out: int, start: int, length: int, by_area: bool
) -> tuple[int, NDArray[np.float32]]:
    """The first stored pixel needed, and `length, n_needed` float32 weights whose rows sum to 1."""
    scale = n_in / n_out
    out = np.arange(start, start + length, dtype=np.float64)
    if by_area:
        low, high = out * scale, (out + 1) * scale
        first, last = int(np.floor(low[0] + 1e-9)), min(n_in, int(np.ceil(high[-1] - 1e-9)))
        pixel = np.arange(first, last)
        overlap = np.minimum(high[:, None], pixel + 1) - np.maximum(low[:, None], pixel)
        weights = np.clip(overlap, 0.0, None)
    else:
        centre = (out + 0.5) * scale - 0.5
        below = np.floor(centre).astype(int)
        share = centre - below
        lower, upper = np.clip(below, 0, n_in - 1), np.clip(below + 1, 0, n_in - 1)
        first = int(lower[0])
        weights = np.zeros((length, int(upper[-1]) - first + 1))
        rows = np.arange(length)
        np.add.at(weights, (rows, lower - first), 1.0 - share)
        np.add.at(weights, (rows, upper - first), share)
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _part(valid: Valid | None, box: Box) -> Valid:
    top, left, height, width = box
    return np.ones((height, width), bool) if valid is None else valid[top : top + height, left : left + width]


def read_validity(path: Path, valid_fraction: float) -> Valid | None:
    """`H,W` bool of a prepared capture; None, without reading, where all of it is valid."""
    return None if valid_fraction == 1.0 else read_valid(path)
