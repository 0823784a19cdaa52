"""The residual shift between two images of one grid that see the same ground differently: SAR and colour.

What they share is where things end, not how bright they are: contrast turns over from place to place, and
speckle grows with brightness. So the axes of gradients are compared, after smoothing, each divided by the
mean gradient nearby. With g a gradient, t its angle and k that mean, an image is the three channels
|g|/k (1, cos 2t, sin 2t); the product of two images' channels is 2 |g||g'|/(k k') cos^2(t - t'), the same for
g and -g: the measure of normalised gradient fields (Haber & Modersitzki, Intensity gradient based
registration and fusion of multi-modal images, MICCAI 2006). Its normalised cross-correlation over the pixels
that overlap at each displacement comes from Fourier transforms of images and masks (Padfield, Masked object
registration in the Fourier domain, IEEE TIP 21(5), 2012), so that no window is needed, which would draw the
peak to zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from pbvs.prepare.grid import Valid

REACH_PX = 32  # the largest displacement that is looked for, each way
LEAST_PEAK = 6.0  # standard deviations: pairs that do not belong together stay under 5
LEAST_LEAD = 1.25  # of the peak over the next: a grid of streets also fits itself one block further

_LEAST_SIDE_PX = 64
_SMOOTHING_PX = 1.0  # standard deviation: speckle is averaged over some 12 pixels
_NEARBY_PX = 37  # side of the square over which gradients are brought to one strength
_LEAST_NEARBY = 0.25  # of the whole image's mean gradient, so that even ground does not become structure
_RIM_PX = 1 + math.ceil(4 * _SMOOTHING_PX)  # how far smoothing and slopes carry what is invalid
_PEAK_RADIUS_PX = 8  # what is nearer than this belongs to the peak
_BACKGROUND_REACHES = 3  # displacements are looked at up to this many times the reach, to know chance
_LEAST_OVERLAP = 0.25  # of the pixels compared; displacements with less are passed over

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """By how much the moving image must be moved to lie on the fixed one.

    Attributes:
        dx_px, dy_px: columns to the right and rows down, within `REACH_PX` each.
        peak: how far the agreement there stands above that at other displacements, in their standard
            deviations; 0 where nothing could be compared.
        trusted: whether the peak tells of a shift and not of chance.
    """

    dx_px: float
    dy_px: float
    peak: float
    trusted: bool


NO_SHIFT = Shift(0.0, 0.0, 0.0, False)


def estimate_shift(moving: NDArray[np.uint8], fixed: NDArray[np.uint8], valid: Valid) -> Shift:
    """The displacement at which the gradients of two images agree best, if they show the same ground.

    Looked for up to `REACH_PX` each way, or an eighth of the shorter side where that is less; the place
    between pixels is the top of a quadratic surface through the best displacement and its 8 neighbours.
    It is trusted when `peak` is at least `LEAST_PEAK` and `LEAST_LEAD` times that of any other local maximum,
    and does not lie on the border of the search.

    What stands up leans towards the sensor in SAR, and draws the shift by the lean of what most of the
    gradients belong to; on level ground the shift is that of the ground.

    Args:
        moving, fixed: `H,W,C` uint8 of one grid; the means of the bands are compared, C may differ.
        valid: `H,W` bool, True where both hold an image.

    Returns:
        The shift, trusted or not; `NO_SHIFT` where nothing can be compared: a side under 64 pixels, no pixel
        far enough from invalid ones, or an image without a gradient.
    """
    if min(valid.shape) < _LEAST_SIDE_PX:
        return NO_SHIFT
    inner = _away_from_invalid(valid)
    if not inner.any():
        return NO_SHIFT
    reach_px = min(REACH_PX, min(valid.shape) // 8)
    axes = [_axes(image, valid, inner) for image in (moving, fixed)]
    if not all(channels.any() for channels in axes):
        return NO_SHIFT
    return _peak_of(_correlation(axes[0], axes[1], inner, _BACKGROUND_REACHES * reach_px), reach_px)


# ---- what is compared


def _away_from_invalid(valid: Valid) -> Valid:
    """Where neither an invalid pixel nor the image's border is near."""
    side = 2 * _RIM_PX + 1
    framed = np.pad(valid.astype(np.uint8), _RIM_PX)
    eroded = cv2.erode(framed, np.ones((side, side), np.uint8))
    inner: Valid = eroded[_RIM_PX:-_RIM_PX, _RIM_PX:-_RIM_PX] > 0
    return inner


def _axes(image: NDArray[np.uint8], valid: Valid, inner: Valid) -> Floats:
    """The axes of an image's gradients, `3,H,W`: each channel of mean 0 over `inner`, and 0 outside it."""
    gray = image.mean(axis=2, dtype=np.float32)
    smooth = cv2.GaussianBlur(np.where(valid, gray, gray[valid].mean()), (0, 0), _SMOOTHING_PX)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order) * inner for order in ((1, 0), (0, 1)))
    strength = np.sqrt(dx * dx + dy * dy)
    nearby = _mean_nearby(strength, inner) + np.float32(_LEAST_NEARBY * strength[inner].mean())
    scale = np.maximum(strength * nearby, np.finfo(np.float32).tiny)
    axes = np.stack([strength * strength, dx * dx - dy * dy, 2.0 * dx * dy]) / scale
    return np.asarray((axes - axes[:, inner].mean(axis=1)[:, None, None]) * inner, np.float32)


def _mean_nearby(strength: Floats, inner: Valid) -> Floats:
    """The mean of `strength` over the pixels of `inner` in a square about each pixel."""
    square = (_NEARBY_PX, _NEARBY_PX)
    share = cv2.blur(inner.astype(np.float32), square)
    return np.asarray(cv2.blur(strength, square) / np.maximum(share, 1.0 / _NEARBY_PX**2), np.float32)


# ---- how it agrees


def _correlation(moving: Floats, fixed: Floats, inner: Valid, reach_px: int) -> Floats:
    """Normalised cross-correlation of `3,H,W` channels at all displacements up to `reach_px` each way.

    Returns:
        A square of side `2 reach_px + 1` in [-1,1]: at row, column (reach_px + dy, reach_px + dx) how well
        `moving`, moved by (dx, dy), agrees with `fixed`; NaN where too little of them overlaps.
    """
    forward, back = _transforms(inner.shape, reach_px)
    where = forward(inner.astype(np.float32))
    n_overlapping = back(np.conj(where) * where)
    of_moving = back(np.conj(forward(np.square(moving).sum(axis=0))) * where)
    of_fixed = back(np.conj(where) * forward(np.square(fixed).sum(axis=0)))
    agreement = back(sum(np.conj(forward(a)) * forward(b) for a, b in zip(moving, fixed, strict=True)))
    enough = n_overlapping >= _LEAST_OVERLAP * inner.sum()
    for energy, whole in ((of_moving, np.square(moving).sum()), (of_fixed, np.square(fixed).sum())):
        enough &= energy > _LEAST_OVERLAP**2 * whole
    scale = np.sqrt(np.where(enough, of_moving * of_fixed, np.nan))
    return np.asarray(agreement / scale, np.float32)


def _transforms(shape: tuple[int, ...], reach_px: int) -> tuple[Callable[..., Any], Callable[..., Floats]]:
    """The Fourier transform of an `H,W` layer, and of a product the part up to `reach_px` about 0."""
    padded = [scipy.fft.next_fast_len(side + reach_px, real=True) for side in shape]
    side = 2 * reach_px + 1

    def forward(layer: Floats) -> Any:
        return scipy.fft.rfft2(layer, s=padded)

    def back(product: Any) -> Floats:
        whole = scipy.fft.irfft2(product, s=padded)
        return np.asarray(np.roll(whole, (reach_px, reach_px), axis=(0, 1))[:side, :side], np.float32)

    return forward, back


# ---- where it agrees best


def _peak_of(surface: Floats, reach_px: int) -> Shift:
    """The best displacement of up to `reach_px` on a surface of `_correlation`, and what it is worth."""
    zero = surface.shape[0] // 2
    searched = slice(zero - reach_px, zero + reach_px + 1)
    inside = surface[searched, searched]
    if np.isnan(inside).all():
        return NO_SHIFT
    row, column = np.unravel_index(int(np.nanargmax(inside)), inside.shape)
    at = int(row) + zero - reach_px, int(column) + zero - reach_px
    far = np.isfinite(surface) & _further_than(_PEAK_RADIUS_PX, at, surface.shape)
    spread = float(surface[far].std()) if far.any() else 0.0
    if spread == 0.0:
        return NO_SHIFT
    heights = (surface - surface[far].mean()) / spread
    peak, next_peak = float(heights[at]), _highest_local_maximum(heights, far)
    inside_border = max(abs(at[0] - zero), abs(at[1] - zero)) < reach_px
    trusted = inside_border and peak >= LEAST_PEAK and peak >= LEAST_LEAD * next_peak
    about = surface[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2]
    dx, dy = _top_of_quadratic(about) if inside_border else (0.0, 0.0)
    return Shift(at[1] - zero + dx, at[0] - zero + dy, peak, trusted)


def _further_than(radius_px: int, at: tuple[int, int], shape: tuple[int, ...]) -> Valid:
    rows, columns = np.indices(shape)
    further: Valid = np.maximum(np.abs(rows - at[0]), np.abs(columns - at[1])) > radius_px
    return further


def _highest_local_maximum(heights: Floats, among: Valid) -> float:
    """The highest value in `among` that none of its 8 neighbours exceeds; 0, the mean, if there is none."""
    known = np.where(np.isfinite(heights), heights, -np.inf).astype(np.float32)
    tops = among & (known >= cv2.dilate(known, np.ones((3, 3), np.uint8)))
    return float(known[tops].max()) if tops.any() else 0.0


def _top_of_quadratic(patch: Floats) -> tuple[float, float]:
    """(dx, dy) from the middle of `3,3` values to the top of the quadratic surface nearest to them.

    The least squares fit of all nine; within a pixel each way, (0, 0) where the surface has no top.
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
