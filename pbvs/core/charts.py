"""Line charts and histograms as SVG, without a library; for light and dark screens and for print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 56, 52
# Okabe and Ito's colours, distinguishable for colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLE = """
svg { font: 13px sans-serif }
svg:root { color: #1a1a1a; background: #fff }
@media (prefers-color-scheme: dark) { svg:root { color: #e6e6e6; background: #16181c } }
"""


@dataclass(frozen=True)
class Line:
    """A curve: its name in the legend, and its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at `x`, or a band from `x` to `x_end`."""

    x: float
    label: str
    x_end: float | None = None


def line_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], marks: Sequence[Mark] = ()
) -> str:
    """Lines on common axes, as an SVG document.

    Args:
        title: also read out by screen readers.
        x_label, y_label: with their units.
        lines: one or more, each with at least one finite point; points that are not finite are left out.
        marks: vertical lines and bands.
    """
    points = [
        [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for line in lines
    ]
    x_axis = _Axis.over([x for line in points for x, _ in line], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.over([y for line in points for _, y in line], _HEIGHT - _BOTTOM, _TOP)
    curves, legend = [], []
    for i, (line, line_points) in enumerate(zip(lines, points, strict=True)):
        colour = _COLOURS[i % len(_COLOURS)]
        at = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in line_points)
        if len(line_points) == 1:
            x, y = at.split(",")
            curves.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        else:
            curves.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>')
        left, top = _LEFT + 220 * (i % 3), 36 + 14 * (i // 3)
        legend.append(
            f'<line x1="{left}" y1="{top}" x2="{left + 22}" y2="{top}" stroke="{colour}" stroke-width="3"/>'
            + _text(left + 28, top + 4, line.name, "start")
        )
    grid = _grid(x_axis, y_axis)
    return _document(title, x_label, y_label, grid, _marks(marks, x_axis), curves, legend)


def histogram(title: str, x_label: str, values: Sequence[float], n_bins: int = 20) -> str:
    """The distribution of `values` (one or more, finite) over `n_bins` equal bins, as an SVG document."""
    low, high = min(values), max(values)
    width = (high - low) / n_bins or 1.0
    counts = [0] * n_bins
    for value in values:
        counts[min(n_bins - 1, int((value - low) / width))] += 1
    x_axis = _Axis(low, low + n_bins * width, _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(0.0, max(counts) * 1.05, _HEIGHT - _BOTTOM, _TOP)
    bars = []
    for i, count in enumerate(counts):
        x, y = x_axis.at(low + i * width), y_axis.at(count)
        size = f'width="{x_axis.at(low + width) - x_axis.at(low) - 1:.1f}" height="{y_axis.start - y:.1f}"'
        bars.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{_COLOURS[0]}"/>')
    return _document(title, x_label, "images", _grid(x_axis, y_axis), bars)


def _document(title: str, x_label: str, y_label: str, *groups: Sequence[str]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        _text(_LEFT, 20, title, "start", weight="bold"),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_label),
        f'<g transform="translate(16 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)">'
        f"{_text(0, 0, y_label)}</g>",
        *(part for group in groups for part in group),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Axis:
    """Maps values from `low` to `high` linearly to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        spare = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(low - spare, high + spare, start, end)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About six round numbers."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "middle", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="currentColor">{escape(text)}</text>'
    )


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    parts = []
    for value in x_axis.ticks():
        x = x_axis.at(value)
        parts.append(_stroke(x, _TOP, x, _HEIGHT - _BOTTOM, 0.15))
        parts.append(_text(x, _HEIGHT - _BOTTOM + 18, f"{value:.6g}"))
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(_stroke(_LEFT, y, _WIDTH - _RIGHT, y, 0.15))
        parts.append(_text(_LEFT - 6, y + 4, f"{value:.6g}", "end"))
    return parts


def _stroke(x1: float, y1: float, x2: float, y2: float, opacity: float, dash: str = "none") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
        f'stroke-opacity="{opacity}" stroke-dasharray="{dash}"/>'
    )


def _marks(marks: Sequence[Mark], x_axis: _Axis) -> list[str]:
    """Each label goes to the side with more room, one line below the previous one."""
    parts = []
    for i, mark in enumerate(marks):
        x = x_axis.at(mark.x)
        if mark.x_end is None:
            parts.append(_stroke(x, _TOP, x, _HEIGHT - _BOTTOM, 0.8, "4 3"))
        else:
            width = x_axis.at(mark.x_end) - x
            size = f'x="{x:.1f}" y="{_TOP}" width="{width:.1f}" height="{_HEIGHT - _BOTTOM - _TOP}"'
            parts.append(f'<rect {size} fill="currentColor" fill-opacity="0.08"/>')
            x += width
        is_right = x > (_LEFT + _WIDTH) * 0.6
        y = _TOP + 14 + 16 * i
        parts.append(_text(x - 6 if is_right else x + 6, y, mark.label, "end" if is_right else "start"))
    return parts
