"""The ledger among the published boards: one list per set of rules, the lowest score first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pbvs.core.challenge import TASKS
from pbvs.score.rules import PUBLISHED
from pbvs.submission.ledger import Entry

Source = Literal["published", "board", "local"]


@dataclass(frozen=True)
class Line:
    """One line of a board.

    Attributes:
        name: team, or zip.
        source: `published`; `board`, a real score that was entered; `local`, of `pbvs score`.
        combined: overall score; `scores`: of each task that has one.
        at: time of the entry, for those of the ledger.
        note: note of a real score; layer, weights and numbers of images of a local one.
    """

    name: str
    source: Source
    combined: float
    scores: Mapping[str, float]
    at: str = ""
    note: str = ""


@dataclass(frozen=True)
class Board:
    """One set of rules: its lines ranked, and the lines that are never ranked (stand-in weights)."""

    rules: str
    ranked: tuple[Line, ...]
    unranked: tuple[Line, ...]


def boards(entries: Sequence[Entry]) -> list[Board]:
    """The published boards with the ledger's rows among them.

    A score has its zip's name where one was built of the same images, else its own number.
    """
    names = _Names(entries)
    found = []
    for rules, published in PUBLISHED.items():
        lines = [Line(row.team, "published", row.combined, row.scores) for row in published]
        unranked: list[Line] = []
        for entry in entries:
            value = entry.value
            if entry.kind == "board" and value["rules"] == rules:
                name = names.of_sha256.get(value["sha256"], value["sha256"][:12])
                note = value.get("note") or ""
                lines.append(Line(name, "board", value["combined"], value["scores"], entry.at, note))
            elif entry.kind == "score" and value["report"]["rules"] == rules:
                is_official = value["report"]["weights"]["kind"] == "official"
                (lines if is_official else unranked).append(_local(entry, names))
        found.append(Board(rules, tuple(sorted(lines, key=lambda line: line.combined)), tuple(unranked)))
    return found


class _Names:
    """Names of zips, by their hash and by the images in them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.of_sha256: dict[str, str] = {}
        self.of_images: dict[str, str] = {}
        for entry in entries:
            if entry.kind == "build":
                name = f"{entry.value['zip']} (build {entry.id})"
                self.of_sha256[entry.value["sha256"]] = name
                for fingerprint in entry.value["predictions"].values():
                    self.of_images[fingerprint] = name


def _local(entry: Entry, names: _Names) -> Line:
    report = entry.value["report"]
    of_zips = {names.of_images.get(fingerprint) for fingerprint in entry.value["predictions"].values()}
    name = of_zips.pop() if len(of_zips) == 1 else None
    n_images = ", ".join(str(report["tasks"][task]["images"]) for task in TASKS if task in report["tasks"])
    basis = f"FID@{report['fid_layer']}, {report['weights']['kind']} weights, n = {n_images}"
    scores = {task: result["score"] for task, result in report["tasks"].items()}
    return Line(name or f"score {entry.id}", "local", report["overall"], scores, entry.at, basis)


def to_json(found: Sequence[Board]) -> list[dict[str, Any]]:
    """The boards as `pbvs board --json` prints them."""

    def row(line: Line) -> dict[str, Any]:
        values = {**vars(line), "scores": dict(line.scores), "words": line.note}
        return {key: value for key, value in values.items() if key != "note"}

    return [
        {
            "rules": board.rules,
            "ranked": [row(line) for line in board.ranked],
            "unranked": [row(line) for line in board.unranked],
        }
        for board in found
    ]
