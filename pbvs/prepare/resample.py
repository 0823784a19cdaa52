"""A crop of an image at a working size, computed from no more stored pixels than it needs.

A working pixel is the weighted mean of the stored pixels that it covers: by area where both sides shrink,
else bilinear with half-pixel centres, as OpenCV's INTER_AREA and INTER_LINEAR. So a crop has the same pixels,
up to rounding, as resizing the whole image by `pixels.resize` and cropping it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pbvs.core.pixels import Stored
from pbvs.core.types import Mask
from pbvs.prepare.grid import masked_mean, resize_masked
from pbvs.prepare.rasters import Box

_ROUNDING = 1e-9  # of a stored pixel: an end at a pixel's edge does not need the next pixel


@dataclass(frozen=True)
class ResampleWeights:
    """The weights of a row of stored pixels for a row of working pixels.

    Attributes:
        first, n_needed: the stored pixels that are needed.
        index: `n,k` int, k stored pixels per working pixel, counted from `first`.
        weights: `n,k` float32, their weights; each row sums to 1.
    """

    first: int
    n_needed: int
    index: NDArray[np.int64]
    weights: NDArray[np.float32]

    def down(self, values: NDArray) -> NDArray[np.float32]:
        """`n_needed,...` to `n,...`: resamples along the first axis."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (values.ndim - 1))
        resampled: NDArray[np.float32] = weights[:, 0] * values[self.index[:, 0]]
        for k in range(1, self.index.shape[1]):
            resampled += weights[:, k] * values[self.index[:, k]]
        return resampled


@dataclass(frozen=True)
class Crop:
    """A crop of the working image.

    Attributes:
        top, left, height, width: the crop, in working pixels.
        size_px: height and width of the whole working image.
        stored_px: height and width of the stored image, which is resized to `size_px`.
    """

    top: int
    left: int
    height: int
    width: int
    size_px: tuple[int, int]
    stored_px: tuple[int, int]

    @property
    def box(self) -> Box | None:
        """The stored pixels that the crop needs; None for all of them."""
        if (self.top, self.left, self.height, self.width) == (0, 0, *self.size_px):
            return None
        if self.size_px == self.stored_px:
            return self.top, self.left, self.height, self.width
        rows, columns = self._weights
        return rows.first, columns.first, rows.n_needed, columns.n_needed

    @property
    def box_px(self) -> tuple[int, int]:
        """Height and width of `box`."""
        return self.stored_px if self.box is None else self.box[2:]

    def valid_fraction(self, valid_mask: Mask) -> float:
        """The fraction of the crop's pixels that will be valid, in [0,1]; `valid_mask` as in `cut`."""
        if self.size_px == self.stored_px or valid_mask.all():
            return float(valid_mask.mean())
        return float((self._resampled(valid_mask[:, :, None])[:, :, 0] > 0.5).mean())

    def cut(self, values: Stored, valid_mask: Mask) -> tuple[Stored, Mask]:
        """The crop, from the stored pixels in `box`.

        Args:
            values: `h,w,C` uint8 or uint16, the pixels.
            valid_mask: `h,w` bool, True where they are valid.

        Returns:
            `height,width,C` in the same type and `height,width` bool. The stored pixels themselves where the
            working size is the stored size; else resampled means of the valid pixels, valid where these have
            over half of the weight, and 0 elsewhere.
        """
        if self.size_px == self.stored_px:
            return values, valid_mask
        if self.box is None:
            return resize_masked(values, valid_mask, self.size_px)
        if valid_mask.all():
            weights = np.ones((self.height, self.width), np.float32)
        else:
            weights = self._resampled(valid_mask[:, :, None])[:, :, 0]
            values = values * valid_mask[:, :, None]
        return masked_mean(self._resampled(values), weights, values.dtype)

    def _resampled(self, values: NDArray) -> NDArray[np.float32]:
        """`h,w,C` of the box to `height,width,C`."""
        rows, columns = self._weights
        return columns.down(rows.down(values).transpose(1, 0, 2)).transpose(1, 0, 2)

    @cached_property
    def _weights(self) -> tuple[ResampleWeights, ResampleWeights]:
        """Of rows and of columns."""
        (stored_height, stored_width), (height, width) = self.stored_px, self.size_px
        weights = area_weights if height <= stored_height and width <= stored_width else bilinear_weights
        return (
            weights(stored_height, height, self.top, self.height),
            weights(stored_width, width, self.left, self.width),
        )


def area_weights(n_in: int, n_out: int, start: int, length: int) -> ResampleWeights:
    """Weights of `length` pixels from `start` of `n_out`, each the mean of its part of `n_in` stored."""
    edges = np.arange(start, start + length + 1) * (n_in / n_out)
    first_of = np.floor(edges[:-1] + _ROUNDING).astype(np.int64)
    end_of = np.minimum(np.ceil(edges[1:] - _ROUNDING).astype(np.int64), n_in)
    pixel = first_of[:, None] + np.arange(int((end_of - first_of).max()))
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return _normalized(np.minimum(pixel, n_in - 1), np.clip(overlap, 0.0, None), int(end_of[-1]))


def bilinear_weights(n_in: int, n_out: int, start: int, length: int) -> ResampleWeights:
    """Weights of `length` pixels from `start` of `n_out`, each between the two nearest of `n_in` stored."""
    centre = (np.arange(start, start + length) + 0.5) * (n_in / n_out) - 0.5
    below = np.floor(centre).astype(np.int64)
    fraction = (centre - below)[:, None]
    pixel = np.clip(np.stack([below, below + 1], axis=1), 0, n_in - 1)
    return _normalized(pixel, np.concatenate([1.0 - fraction, fraction], axis=1), int(pixel.max()) + 1)


def _normalized(pixel: NDArray[np.int64], weights: NDArray[np.float64], end: int) -> ResampleWeights:
    first = int(pixel[0, 0])
    normalized = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return ResampleWeights(first, end - first, np.minimum(pixel, end - 1) - first, normalized)
