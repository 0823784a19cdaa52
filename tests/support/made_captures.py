"""Prepared data without files: captures and how much of each two overlaps, as a table of pairs sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbvs.dataset.index import Capture

BINGHAM = ("stack", "Bingham", "1.0_1.0")


def capture(modality: str, name: str, place: tuple[str, str, str] = BINGHAM, **more: Any) -> Capture:
    """A capture all of whose pixels are valid, without a date; `more` as in `Capture`."""
    family, city, location = place
    unwrap = {"mosaic": False, "taken": "", "split": "train", "file": f"{name}.tif"}
    size = {"height_px": 4, "width_px": 4, "valid_fraction": 1.0}
    where = {"root": Path(), "family": family, "city": city, "location": location}
    return Capture(**(where | {"modality": modality, "capture": name} | unwrap | size | more))


class Captures:
    """Takes the place of `PreparedData`; pairs of captures that `overlaps` does not name overlap wholly."""

    root = Path("prepared")

    def __init__(self, captures: Iterable[Capture], overlaps: Mapping[tuple[str, str], float] | None = None):
        self._overlaps = overlaps or {}
        self._listed: dict[tuple[str, str], list[Capture]] = {}
        for one in captures:
            self._listed.setdefault((one.family, one.modality), []).append(one)

    def listed(self, family: str, modality: str) -> list[Capture]:
        return list(self._listed.get((family, modality), []))

    def joint_fraction(self, a: Capture, b: Capture) -> float:
        return self._overlaps.get((a.capture, b.capture), 1.0)
