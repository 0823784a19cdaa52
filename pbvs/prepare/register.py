"""The residual shift between two images of one grid that show the same ground differently: SAR and colour.

What they share is where edges are, not how bright things are: contrast inverts from place to place, and
speckle grows with brightness. So the axes of gradients are compared, after smoothing, each normalized by the
mean gradient nearby. With g a gradient, t its angle and k that mean, an image is the three channels
|g|/k (1, cos 2t, sin 2t); the product of two images' channels is 2 |g||g'|/(k k') cos^2(t - t'), the same for
g and -g: the measure of normalised gradient fields (Haber & Modersitzki, Intensity gradient based
registration and fusion of multi-modal images, MICCAI 2006). Its normalised cross-correlation over the pixels
that overlap at each displacement comes from Fourier transforms of images and masks (Padfield, Masked object
registration in the Fourier domain, IEEE TIP 21(5), 2012). So no window is needed, which would bias the peak
towards zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from pbvs.core.types import Mask

REACH_PX = 32  # the largest displacement searched, each way
LEAST_PEAK = 6.0  # standard deviations: unrelated pairs stay under 5
LEAST_LEAD = 1.25  # of the peak over the next: a street grid also fits itself one block further

_LEAST_SIDE_PX = 64
_SMOOTHING_PX = 1.0  # standard deviation: averages speckle over some 12 pixels
_NEARBY_PX = 37  # side of the square over which gradients are normalized
_LEAST_NEARBY = 0.25  # of the whole image's mean gradient, so that even ground does not become structure
_RIM_PX = 1 + math.ceil(4 * _SMOOTHING_PX)  # how far smoothing and slopes spread invalid pixels
_PEAK_RADIUS_PX = 8  # displacements nearer than this belong to the peak
_BACKGROUND_REACHES = 3  # displacements up to this many times the reach give the background statistics
_LEAST_OVERLAP = 0.25  # of the pixels compared; displacements with less are ignored

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """How far the moving image must be shifted to match the fixed one.

    Attributes:
        dx_px, dy_px: columns to the right and rows down, within `REACH_PX` each.
        peak: how far the correlation there exceeds the mean of that at other displacements, in their standard
            deviations; 0 where nothing could be compared.
        trusted: whether the peak is significant.
    """

    dx_px: float
    dy_px: float
    peak: float
    trusted: bool


NO_SHIFT = Shift(0.0, 0.0, 0.0, False)


def estimate_shift(moving: NDArray[np.uint8], fixed: NDArray[np.uint8], valid: Mask) -> Shift:
    """The displacement at which the gradients of two images correlate best, if they show the same ground.

    Searched up to `REACH_PX` each way, or an eighth of the shorter side where that is less; the subpixel
    position is the maximum of a quadratic surface through the best displacement and its 8 neighbours. It is
    trusted when `peak` is at least `LEAST_PEAK` and `LEAST_LEAD` times that of any other local maximum, and
    not on the border of the search.

    Elevated things lean towards the sensor in SAR, and bias the shift by the lean of what most gradients
    belong to; on level ground the shift is that of the ground.

    Args:
        moving, fixed: `H,W,C` uint8 of one grid; the means of the bands are compared, C may differ.
        valid: `H,W` bool, True where both are valid.

    Returns:
        The shift, trusted or not; `NO_SHIFT` where nothing can be compared: a side under 64 pixels, no pixel
        far enough from invalid ones, or an image without a gradient.
    """
    if min(valid.shape) < _LEAST_SIDE_PX:
        return NO_SHIFT
    # Away from invalid pixels and from the image's border.
    eroded = cv2.erode(np.pad(valid.astype(np.uint8), _RIM_PX), np.ones((2 * _RIM_PX + 1,) * 2, np.uint8))
    inner: Mask = eroded[_RIM_PX:-_RIM_PX, _RIM_PX:-_RIM_PX] > 0
    if not inner.any():
        return NO_SHIFT
    reach_px = min(REACH_PX, min(valid.shape) // 8)
    axes = [_axes(image, valid, inner) for image in (moving, fixed)]
    if not all(channels.any() for channels in axes):
        return NO_SHIFT
    return _peak_of(_correlation(axes[0], axes[1], inner, _BACKGROUND_REACHES * reach_px), reach_px)


def _axes(image: NDArray[np.uint8], valid: Mask, inner: Mask) -> Floats:
    """The axes of an image's gradients, `3,H,W`: each channel of mean 0 over `inner`, and 0 outside it."""
    gray = image.mean(axis=2, dtype=np.float32)
    smooth = cv2.GaussianBlur(np.where(valid, gray, gray[valid].mean()), (0, 0), _SMOOTHING_PX)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order) * inner for order in ((1, 0), (0, 1)))
    strength = np.sqrt(dx * dx + dy * dy)
    square = (_NEARBY_PX, _NEARBY_PX)
    inner_fraction = np.maximum(cv2.blur(inner.astype(np.float32), square), 1.0 / _NEARBY_PX**2)
    nearby = np.asarray(cv2.blur(strength, square) / inner_fraction, np.float32)
    nearby += np.float32(_LEAST_NEARBY * strength[inner].mean())
    scale = np.maximum(strength * nearby, np.finfo(np.float32).tiny)
    axes = np.stack([strength * strength, dx * dx - dy * dy, 2.0 * dx * dy]) / scale
    return np.asarray((axes - axes[:, inner].mean(axis=1)[:, None, None]) * inner, np.float32)


# ---- correlation


def _correlation(moving: Floats, fixed: Floats, inner: Mask, reach_px: int) -> Floats:
    """Normalised cross-correlation of `3,H,W` channels at all displacements up to `reach_px` each way.

    Returns:
        A square of side `2 reach_px + 1` in [-1,1]: at row, column (reach_px + dy, reach_px + dx) how well
        `moving`, shifted by (dx, dy), matches `fixed`; NaN where too little of them overlaps.
    """
    padded = [scipy.fft.next_fast_len(side + reach_px, real=True) for side in inner.shape]
    forward = partial(scipy.fft.rfft2, s=padded)
    mask = forward(inner.astype(np.float32))
    n_overlapping = _near_zero(np.conj(mask) * mask, padded, reach_px)
    of_moving = _near_zero(np.conj(forward(np.square(moving).sum(axis=0))) * mask, padded, reach_px)
    of_fixed = _near_zero(np.conj(mask) * forward(np.square(fixed).sum(axis=0)), padded, reach_px)
    products = sum(np.conj(forward(a)) * forward(b) for a, b in zip(moving, fixed, strict=True))
    enough = n_overlapping >= _LEAST_OVERLAP * inner.sum()
    for energy, whole in ((of_moving, np.square(moving).sum()), (of_fixed, np.square(fixed).sum())):
        enough &= energy > _LEAST_OVERLAP**2 * whole
    scale = np.sqrt(np.where(enough, of_moving * of_fixed, np.nan))
    return np.asarray(_near_zero(products, padded, reach_px) / scale, np.float32)


def _near_zero(product: Any, padded: list[int], reach_px: int) -> Floats:
    """The inverse Fourier transform, of size `padded`, up to `reach_px` each way around (0, 0)."""
    whole = scipy.fft.irfft2(product, s=padded)
    side = 2 * reach_px + 1
    return np.asarray(np.roll(whole, (reach_px, reach_px), axis=(0, 1))[:side, :side], np.float32)


# ---- the peak


def _peak_of(surface: Floats, reach_px: int) -> Shift:
    """The best displacement of up to `reach_px` on a surface of `_correlation`, and how significant it is."""
    zero = surface.shape[0] // 2
    searched = slice(zero - reach_px, zero + reach_px + 1)
    inside = surface[searched, searched]
    if np.isnan(inside).all():
        return NO_SHIFT
    best = np.unravel_index(int(np.nanargmax(inside)), inside.shape)
    row, column = (int(index) + zero - reach_px for index in best)
    rows, columns = np.indices(surface.shape)
    distance_px = np.maximum(np.abs(rows - row), np.abs(columns - column))
    far = np.isfinite(surface) & (distance_px > _PEAK_RADIUS_PX)
    spread = float(surface[far].std()) if far.any() else 0.0
    if spread == 0.0:
        return NO_SHIFT
    heights = (surface - surface[far].mean()) / spread
    known = np.where(np.isfinite(heights), heights, -np.inf).astype(np.float32)
    is_local_maximum = far & (known >= cv2.dilate(known, np.ones((3, 3), np.uint8)))
    next_peak = float(known[is_local_maximum].max()) if is_local_maximum.any() else 0.0
    peak = float(heights[row, column])
    inside_border = max(abs(row - zero), abs(column - zero)) < reach_px
    trusted = inside_border and peak >= LEAST_PEAK and peak >= LEAST_LEAD * next_peak
    dx, dy = 0.0, 0.0
    if inside_border:
        dx, dy = _top_of_quadratic(surface[row - 1 : row + 2, column - 1 : column + 2])
    return Shift(column - zero + dx, row - zero + dy, peak, trusted)


def _top_of_quadratic(patch: Floats) -> tuple[float, float]:
    """(dx, dy) from the middle of `3,3` values to the maximum of the quadratic surface fitted to them.

    The least squares fit of all nine, clipped to a pixel each way; (0, 0) where the surface has no maximum.
    """
    if not np.isfinite(patch).all():
        return 0.0, 0.0
    p = patch.astype(np.float64)
    along_x, along_y = p.sum(axis=0), p.sum(axis=1)
    slope_x, slope_y = (along_x[2] - along_x[0]) / 6.0, (along_y[2] - along_y[0]) / 6.0
    bend_x, bend_y = ((a[2] - 2.0 * a[1] + a[0]) / 3.0 for a in (along_x, along_y))
    twist = (p[2, 2] - p[2, 0] - p[0, 2] + p[0, 0]) / 4.0
    determinant = bend_x * bend_y - twist * twist
    if bend_x >= 0.0 or determinant <= 0.0:
        return 0.0, 0.0
    dx = (twist * slope_y - bend_y * slope_x) / determinant
    dy = (twist * slope_x - bend_x * slope_y) / determinant
    return float(np.clip(dx, -1.0, 1.0)), float(np.clip(dy, -1.0, 1.0))
