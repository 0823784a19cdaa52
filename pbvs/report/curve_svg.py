"""A task's graph as SVG: nodes in columns by how far they are from the source, edges between."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_BOX_W, _BOX_H, _GAP_X, _GAP_Y, _EDGE = 150, 44, 46, 16, 8


def graph_svg(described: Mapping[str, Any]) -> str:
    """Draws what `pbvs tasks show --json` gives; weights that come from other tasks are written below."""
    nodes = {node["name"]: node for node in described["nodes"]}
    columns = {"source": 0}
    for name in described["order"]:
        columns[name] = 1 + max(columns[i] for i in nodes[name]["inputs"])
    places: dict[str, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for name, column in columns.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        places[name] = (_EDGE + column * (_BOX_W + _GAP_X), _EDGE + row * (_BOX_H + _GAP_Y))
    width = 2 * _EDGE + (max(columns.values()) + 1) * (_BOX_W + _GAP_X) - _GAP_X
    height = 2 * _EDGE + max(rows.values()) * (_BOX_H + _GAP_Y) - _GAP_Y
    words = f"{described['task']}: {' to '.join(['source', *described['order']])}"
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="graph of {escape(words)}">'
    ]
    parts += [_edge(places[start], places[end]) for start, end in described["image_edges"]]
    parts.append(_box(places["source"], "source", described["source"]))
    for name in described["order"]:
        parts.append(_box(places[name], name, _words(nodes[name])))
    return "".join([*parts, "</svg>"])


def _words(node: Mapping[str, Any]) -> str:
    settings = node["settings"]
    if node["use"] == "intensity":
        return f"times {settings['factor']:g}"
    if node["use"] == "task":
        return f"the whole of {settings['task']}"
    return "trained" if node["trainable"] else str(node["use"])


def _box(at: tuple[int, int], name: str, words: str) -> str:
    x, y = at
    return (
        f'<rect x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}" rx="6" fill="none" stroke="currentColor"/>'
        f'<text x="{x + _BOX_W / 2}" y="{y + 19}" text-anchor="middle" font-weight="bold" '
        f'fill="currentColor">{escape(name)}</text>'
        f'<text x="{x + _BOX_W / 2}" y="{y + 35}" text-anchor="middle" font-size="12" '
        f'fill="currentColor">{escape(words)}</text>'
    )


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] + _BOX_W, start[1] + _BOX_H / 2
    x2, y2 = end[0], end[1] + _BOX_H / 2
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2 - 8}" y2="{y2}" stroke="currentColor" stroke-width="1.5"/>'
        f'<path d="M{x2 - 9} {y2 - 5} L{x2} {y2} L{x2 - 9} {y2 + 5} Z" fill="currentColor"/>'
    )
