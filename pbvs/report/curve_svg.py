"""The SVGs of a page: a task's graph, the curves of its training runs, and figures of other commands."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pbvs.core.charts import Line, line_chart
from pbvs.core.errors import DataError

_BOX_W, _BOX_H, _GAP_X, _GAP_Y, _EDGE = 150, 44, 46, 16, 8
# Artifact indicators have a different scale; they are in the CSV and in TensorBoard.
_ARTIFACTS = ("saturated", "saturated_in_targets", "checkerboard", "checkerboard_in_targets")
_WITHOUT_CURVE = ("images", *_ARTIFACTS)


def graph_svg(described: Mapping[str, Any]) -> str:
    """Draws the output of `pbvs tasks show --json`: nodes in columns by their distance from the source."""
    nodes = {node["name"]: node for node in described["nodes"]}
    columns = {"source": 0}
    for name in described["order"]:
        columns[name] = 1 + max(columns[i] for i in nodes[name]["inputs"])
    corners: dict[str, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for name, column in columns.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        corners[name] = (_EDGE + column * (_BOX_W + _GAP_X), _EDGE + row * (_BOX_H + _GAP_Y))
    width = 2 * _EDGE + (max(columns.values()) + 1) * (_BOX_W + _GAP_X) - _GAP_X
    height = 2 * _EDGE + max(rows.values()) * (_BOX_H + _GAP_Y) - _GAP_Y
    label = f"{described['task']}: {' to '.join(['source', *described['order']])}"
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="graph of {escape(label)}">'
    ]
    for start, end in described["image_edges"]:
        x1, y1 = corners[start][0] + _BOX_W, corners[start][1] + _BOX_H / 2
        x2, y2 = corners[end][0], corners[end][1] + _BOX_H / 2
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2 - 8}" y2="{y2}" stroke="currentColor" stroke-width="1.5"/>'
            f'<path d="M{x2 - 9} {y2 - 5} L{x2} {y2} L{x2 - 9} {y2 + 5} Z" fill="currentColor"/>'
        )
    parts.append(_box(corners["source"], "source", described["source"]))
    for name in described["order"]:
        node = nodes[name]
        text = "trained" if node["trainable"] else str(node["use"])
        if node["use"] == "intensity":
            text = f"times {node['settings']['factor']:g}"
        elif node["use"] == "task":
            text = f"the whole of {node['settings']['task']}"
        parts.append(_box(corners[name], name, text))
    return "".join([*parts, "</svg>"])


def _box(corner: tuple[int, int], name: str, text: str) -> str:
    x, y = corner
    return (
        f'<rect x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}" rx="6" fill="none" stroke="currentColor"/>'
        f'<text x="{x + _BOX_W / 2}" y="{y + 19}" text-anchor="middle" font-weight="bold" '
        f'fill="currentColor">{escape(name)}</text>'
        f'<text x="{x + _BOX_W / 2}" y="{y + 35}" text-anchor="middle" font-size="12" '
        f'fill="currentColor">{escape(text)}</text>'
    )


def run_charts(folder: Path) -> list[str]:
    """Charts of `folder`, a training run in `TASK/NODE`: its losses, and its validation metrics."""
    charts = []
    for group, name in (("training", "curves.csv"), ("validation", "validation.csv")):
        path, lines = folder / name, []
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
        for column in rows[0] if rows else ():
            if column in _WITHOUT_CURVE or column.startswith("learning_rate"):
                continue
            points = [(float(row["images"]), float(row[column])) for row in rows if row[column]]
            if any(math.isfinite(y) for _, y in points):
                lines.append(Line(column, [x for x, _ in points], [y for _, y in points]))
        if lines:
            title = f"{folder.parent.name} {folder.name}: {group}"
            charts.append(line_chart(title, "images seen", "value", lines))
    return charts


def read_figure(path: Path) -> str:
    """The SVG of `pbvs calibrate --plot`.

    Raises:
        DataError: the file cannot be read, is no SVG, or contains a script.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the figure cannot be read: {error}", where=path) from error
    if not text.lstrip().startswith("<svg") or "<script" in text:
        raise DataError("not a figure of pbvs", where=path, next_step="`pbvs calibrate --plot` writes one")
    return text
