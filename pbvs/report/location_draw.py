"""Drawing for PNG pages: text, hatching, checkerboards and outlines, on `H,W,3` uint8 in RGB order."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.core.types import Image8, Mask

Colour = tuple[int, int, int]

PAPER: Colour = (250, 250, 250)
INK: Colour = (25, 25, 25)
FAINT: Colour = (110, 110, 110)
HATCH: Colour = (205, 60, 160)
OUTLINE: Colour = (255, 225, 0)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_HATCH_EVERY_PX = 10
_STRETCH_PERCENT = (1.0, 99.0)
_EDGE_SIGMA_PX = 2.0
_EDGE_REACH_PX = 9  # of the smoothing and the gradient together
_OUTLINE_QUANTILES = (0.80, 0.90)  # Canny's two thresholds, as quantiles of the gradient
_GRADIENT_SCALE = 8  # Canny takes integer gradients
_MIN_LINE_PX = 12


def paper(height_px: int, width_px: int) -> Image8:
    """An empty picture."""
    return np.full((height_px, width_px, 3), PAPER, np.uint8)


def write_line(
    picture: Image8, text: str, at: tuple[int, int], scale: float = 0.42, colour: Colour = INK
) -> None:
    """Writes one line of text in place, its baseline at `at` (x, y); non-ASCII characters become `?`."""
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(picture, ascii_text, at, _FONT, scale, colour, 1, cv2.LINE_AA)


def fitted(text: str, width_px: int, scale: float = 0.42) -> str:
    """The text, shortened in the middle by two dots to fit `width_px`."""
    n_kept = len(text)
    short = text
    while n_kept > 2 and cv2.getTextSize(short, _FONT, scale, 1)[0][0] > width_px:
        n_kept -= 1
        short = f"{text[: (n_kept + 1) // 2]}..{text[len(text) - n_kept // 2 :]}"
    return short


def as_rgb(stored: Image8) -> Image8:
    """`H,W,1` or `H,W,3` uint8 to `H,W,3`."""
    return np.ascontiguousarray(np.broadcast_to(stored, (*stored.shape[:2], 3)))


def hatched(picture: Image8, valid: Mask) -> Image8:
    """The picture with pale diagonal hatching where it is not valid."""
    rows, columns = np.indices(valid.shape)
    lines = np.asarray((rows + columns) % _HATCH_EVERY_PX < 2)
    pale = np.where(lines[:, :, None], HATCH, PAPER).astype(np.uint8)
    return np.where(valid[:, :, None], picture, pale)


def stretched(picture: Image8, valid: Mask) -> Image8:
    """Contrast stretch of all bands together: percentiles 1 and 99 of the valid pixels become 0 and 255."""
    if not valid.any():
        return picture
    low, high = np.percentile(picture[valid], _STRETCH_PERCENT)
    spread = (picture.astype(np.float32) - low) * (255.0 / max(1.0, float(high - low)))
    clipped: Image8 = np.rint(np.clip(spread, 0, 255)).astype(np.uint8)
    return clipped


def checkerboard(one: Image8, other: Image8, n_squares: int = 8) -> Image8:
    """Alternating squares of both, `n_squares` along each side, `one` in the upper left corner."""
    height, width = one.shape[:2]
    rows = np.arange(height) * n_squares // height
    columns = np.arange(width) * n_squares // width
    of_one = (rows[:, None] + columns) % 2 == 0
    return np.where(of_one[:, :, None], one, other)


def smoothed(picture: Image8, sigma_px: float = 1.0) -> Image8:
    """A Gaussian blur, against speckle."""
    return cv2.GaussianBlur(picture, (0, 0), sigma_px).astype(np.uint8).reshape(picture.shape)


def gradient(picture: Image8, valid: Mask) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`H,W float32` each: the smoothed brightness's slope to the right and down, 0 near invalid pixels."""
    gray = cv2.GaussianBlur(picture.mean(axis=2, dtype=np.float32), (0, 0), _EDGE_SIGMA_PX)
    reach = np.ones((2 * _EDGE_REACH_PX + 1,) * 2, np.uint8)
    inner = cv2.erode(valid.astype(np.uint8), reach, borderValue=1).astype(np.float32)
    right, down = (cv2.Sobel(gray, cv2.CV_32F, *axis) * inner for axis in ((1, 0), (0, 1)))
    return right, down


def outlines(picture: Image8, valid: Mask) -> Mask:
    """`H,W` bool: thin lines of 12 pixels or more along the strongest edges (Canny)."""
    right, down = gradient(picture, valid)
    low, high = np.quantile(np.hypot(right, down), _OUTLINE_QUANTILES)
    scaled_right, scaled_down = (np.rint(slope * _GRADIENT_SCALE).astype(np.int16) for slope in (right, down))
    low, high = max(1.0, float(low)) * _GRADIENT_SCALE, max(1.0, float(high)) * _GRADIENT_SCALE
    lines = cv2.Canny(scaled_right, scaled_down, low, high, L2gradient=True)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    long_enough = stats[:, cv2.CC_STAT_AREA] >= _MIN_LINE_PX
    long_enough[0] = False  # label 0 is the background
    return np.asarray(long_enough[labels])


def tinted(picture: Image8) -> Image8:
    """The picture in a warm tint, distinct from another gray one."""
    warm: Image8 = np.rint(picture * np.array([1.0, 0.9, 0.7])).astype(np.uint8)
    return warm


def with_lines(picture: Image8, lines: Mask) -> Image8:
    """The picture with the lines drawn on it."""
    return np.where(lines[:, :, None], np.array(OUTLINE, np.uint8), picture)


def enlarged(picture: NDArray, times: int) -> NDArray:
    """Each pixel as a square of `times` pixels."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def framed(picture: Image8, side_px: int, captions: Sequence[str], scale: float = 0.42) -> Image8:
    """The picture in the upper left of a square, with a thin frame and lines of text below."""
    line_px = round(scale * 44)
    cell = paper(side_px + 4 + line_px * len(captions), side_px)
    height, width = picture.shape[:2]
    cell[:height, :width] = picture
    cv2.rectangle(cell, (0, 0), (width - 1, height - 1), FAINT, 1)
    for n, caption in enumerate(captions):
        foot = side_px + line_px * (n + 1)
        write_line(cell, fitted(caption, side_px, scale), (0, foot), scale, FAINT if n else INK)
    return cell


def in_rows(cells: Sequence[Image8], n_columns: int, gap_px: int = 12) -> Image8:
    """A grid of equally sized cells, `n_columns` per row, with gaps between."""
    height, width = cells[0].shape[:2]
    n_rows = -(-len(cells) // n_columns)
    sheet = paper(n_rows * (height + gap_px) - gap_px, n_columns * (width + gap_px) - gap_px)
    for n, cell in enumerate(cells):
        top, left = n // n_columns * (height + gap_px), n % n_columns * (width + gap_px)
        sheet[top : top + height, left : left + width] = cell
    return sheet
