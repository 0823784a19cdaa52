"""Drawing for pages to look at: text, hatching, checkerboards and outlines, on `H,W,3` uint8 in RGB order."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.prepare.grid import Valid

Picture = NDArray[np.uint8]
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
_EDGE_REACH_PX = 9  # of the smoothing and the slope together
_OUTLINE_QUANTILES = (0.80, 0.90)  # Canny's two thresholds, as shares of the pixels that are flatter
_FINE = 8  # parts of a level that slopes are rounded to: Canny takes integers
_SHORTEST_LINE_PX = 12


def paper(height_px: int, width_px: int) -> Picture:
    """An empty picture."""
    return np.full((height_px, width_px, 3), PAPER, np.uint8)


def write_line(
    picture: Picture, text: str, at: tuple[int, int], scale: float = 0.42, colour: Colour = INK
) -> None:
    """One line of text in place, its foot at `at` (x, y); the font has ASCII only, others become `?`."""
    unwrap = text.encode("ascii", "replace").decode()
    cv2.putText(picture, unwrap, at, _FONT, scale, colour, 1, cv2.LINE_AA)


def fitted(text: str, width_px: int, scale: float = 0.42) -> str:
    """The text, or its two ends with dots between, as much as `width_px` holds."""
    n_kept = len(text)
    short = text
    while n_kept > 2 and cv2.getTextSize(short, _FONT, scale, 1)[0][0] > width_px:
        n_kept -= 1
        short = f"{text[: (n_kept + 1) // 2]}..{text[len(text) - n_kept // 2 :]}"
    return short


def as_rgb(stored: Picture) -> Picture:
    """`H,W,1` or `H,W,3` to `H,W,3`."""
    return np.ascontiguousarray(np.broadcast_to(stored, (*stored.shape[:2], 3)))


def hatched(picture: Picture, valid: Valid) -> Picture:
    """Where there is no image: pale, with slanting lines."""
    rows, columns = np.indices(valid.shape)
    lines = np.asarray((rows + columns) % _HATCH_EVERY_PX < 2)
    pale = np.where(lines[:, :, None], HATCH, PAPER).astype(np.uint8)
    shown: Picture = np.where(valid[:, :, None], picture, pale)
    return shown


def stretched(picture: Picture, valid: Valid) -> Picture:
    """All bands by one line, so that almost all valid pixels span the whole range."""
    if not valid.any():
        return picture
    low, high = np.percentile(picture[valid], _STRETCH_PERCENT)
    spread = (picture.astype(np.float32) - low) * (255.0 / max(1.0, float(high - low)))
    clipped: Picture = np.rint(np.clip(spread, 0, 255)).astype(np.uint8)
    return clipped


def checkerboard(one: Picture, other: Picture, n_squares: int = 8) -> Picture:
    """Squares of either in turn, `n_squares` along each side, `one` in the upper left corner."""
    height, width = one.shape[:2]
    rows = np.arange(height) * n_squares // height
    columns = np.arange(width) * n_squares // width
    of_one: Valid = (rows[:, None] + columns) % 2 == 0
    return np.where(of_one[:, :, None], one, other)


def smoothed(picture: Picture, sigma_px: float = 1.0) -> Picture:
    """Without the finest grain, as of speckle."""
    return cv2.GaussianBlur(picture, (0, 0), sigma_px).astype(np.uint8).reshape(picture.shape)


def gradient(picture: Picture, valid: Valid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`H,W` each: the slope of the smoothed brightness to the right and down, 0 near what is not valid."""
    gray = cv2.GaussianBlur(picture.mean(axis=2, dtype=np.float32), (0, 0), _EDGE_SIGMA_PX)
    reach = np.ones((2 * _EDGE_REACH_PX + 1,) * 2, np.uint8)
    inner = cv2.erode(valid.astype(np.uint8), reach, borderValue=1).astype(np.float32)
    right, down = (cv2.Sobel(gray, cv2.CV_32F, *axis) * inner for axis in ((1, 0), (0, 1)))
    return right, down


def outlines(picture: Picture, valid: Valid) -> NDArray[np.bool_]:
    """`H,W` bool: thin lines of some length where the brightness changes most (Canny)."""
    right, down = gradient(picture, valid)
    low, high = np.quantile(np.hypot(right, down), _OUTLINE_QUANTILES)
    fine_right, fine_down = (np.rint(slope * _FINE).astype(np.int16) for slope in (right, down))
    low, high = max(1.0, float(low)) * _FINE, max(1.0, float(high)) * _FINE
    lines = cv2.Canny(fine_right, fine_down, low, high, L2gradient=True)
    _, labels, facts, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    long_enough: NDArray[np.bool_] = facts[:, cv2.CC_STAT_AREA] >= _SHORTEST_LINE_PX
    long_enough[0] = False  # label 0 is what is no line
    kept: NDArray[np.bool_] = long_enough[labels]
    return kept


def tinted(picture: Picture) -> Picture:
    """Warmer, to tell it from another gray one."""
    warm: Picture = np.rint(picture * np.array([1.0, 0.9, 0.7])).astype(np.uint8)
    return warm


def with_lines(picture: Picture, lines: NDArray[np.bool_]) -> Picture:
    """The lines laid over the picture."""
    over: Picture = np.where(lines[:, :, None], np.array(OUTLINE, np.uint8), picture)
    return over


def enlarged(picture: NDArray, times: int) -> NDArray:
    """Each pixel as a square of `times` pixels."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def framed(picture: Picture, side_px: int, captions: Sequence[str], scale: float = 0.42) -> Picture:
    """The picture in the upper left of a square, with a thin frame, and lines of text below it."""
    line_px = round(scale * 44)
    cell = paper(side_px + 4 + line_px * len(captions), side_px)
    height, width = picture.shape[:2]
    cell[:height, :width] = picture
    cv2.rectangle(cell, (0, 0), (width - 1, height - 1), FAINT, 1)
    for n, caption in enumerate(captions):
        foot = side_px + line_px * (n + 1)
        write_line(cell, fitted(caption, side_px, scale), (0, foot), scale, FAINT if n else INK)
    return cell


def in_rows(cells: Sequence[Picture], n_columns: int, gap_px: int = 12) -> Picture:
    """Cells of one size side by side, `n_columns` a row, gaps between."""
    height, width = cells[0].shape[:2]
    n_rows = -(-len(cells) // n_columns)
    sheet = paper(n_rows * (height + gap_px) - gap_px, n_columns * (width + gap_px) - gap_px)
    for n, cell in enumerate(cells):
        top, left = n // n_columns * (height + gap_px), n % n_columns * (width + gap_px)
        sheet[top : top + height, left : left + width] = cell
    return sheet
