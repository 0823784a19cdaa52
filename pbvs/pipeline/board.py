"""The ledger beside the published boards: every list by its own rules, the lowest score first."""

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
        at: when, for those of the ledger.
        words: by what rule, weights and how many images a local score was taken.
    """

    name: str
    source: Source
    combined: float
    scores: Mapping[str, float]
    at: str = ""
    words: str = ""


@dataclass(frozen=True)
class Board:
    """One set of rules: its lines ranked, and the lines that are never ranked (stand-in weights)."""

    rules: str
    ranked: tuple[Line, ...]
    unranked: tuple[Line, ...]


def boards(entries: Sequence[Entry]) -> list[Board]:
    """The published boards with the ledger's rows among them.

    A score is shown under its zip's name where one was built of the same images, else under its own number.
    """
    names = _Names(entries)
    found = []
    for rules, published in PUBLISHED.items():
        lines = [Line(row.team, "published", row.combined, row.scores) for row in published]
        unranked: list[Line] = []
        for entry in entries:
            if entry.kind == "board" and entry.value["rules"] == rules:
                lines.append(_entered(entry, names))
            elif entry.kind == "score" and entry.value["report"]["rules"] == rules:
                line = _local(entry, names)
                is_official = entry.value["report"]["weights"]["kind"] == "official"
                (lines if is_official else unranked).append(line)
        found.append(Board(rules, tuple(sorted(lines, key=lambda line: line.combined)), tuple(unranked)))
    return found


class _Names:
    """What zips are called, by their hash and by the images in them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.of_sha256: dict[str, str] = {}
        self.of_images: dict[str, str] = {}
        for entry in entries:
            if entry.kind == "build":
                name = f"{entry.value['zip']} (build {entry.id})"
                self.of_sha256[entry.value["sha256"]] = name
                for fingerprint in entry.value["predictions"].values():
                    self.of_images[fingerprint] = name


def _entered(entry: Entry, names: _Names) -> Line:
    value = entry.value
    name = names.of_sha256.get(value["sha256"], value["sha256"][:12])
    return Line(name, "board", value["combined"], value["scores"], entry.at, value.get("note") or "")


def _local(entry: Entry, names: _Names) -> Line:
    report = entry.value["report"]
    known = {names.of_images.get(fingerprint) for fingerprint in entry.value["predictions"].values()}
    name = known.pop() if len(known) == 1 else None
    n_images = ", ".join(str(report["tasks"][task]["images"]) for task in TASKS if task in report["tasks"])
    words = f"FID@{report['fid_layer']}, {report['weights']['kind']} weights, n = {n_images}"
    scores = {task: told["score"] for task, told in report["tasks"].items()}
    return Line(name or f"score {entry.id}", "local", report["overall"], scores, entry.at, words)


def to_json(found: Sequence[Board]) -> list[dict[str, Any]]:
    """The boards as `pbvs board --json` gives them."""
    return [
        {
            "rules": board.rules,
            "ranked": [vars(line) | {"scores": dict(line.scores)} for line in board.ranked],
            "unranked": [vars(line) | {"scores": dict(line.scores)} for line in board.unranked],
        }
        for board in found
    ]
