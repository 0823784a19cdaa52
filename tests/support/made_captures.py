"""Stand-in for `PreparedData` without files: captures, and the overlap of each pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbvs.dataset.index import Capture

BINGHAM = ("stack", "Bingham", "1.0_1.0")


def capture(modality: str, name: str, location_key: tuple[str, str, str] = BINGHAM, **more: Any) -> Capture:
    """A fully valid capture without a date; `more` as in `Capture`."""
    family, city, location = location_key
    defaults = {"mosaic": False, "acquired_at": "", "split": "train", "file": f"{name}.tif"}
    size = {"height_px": 4, "width_px": 4, "valid_fraction": 1.0}
    where = {"root": Path(), "family": family, "city": city, "location": location}
    return Capture(**(where | {"modality": modality, "capture": name} | defaults | size | more))


class Captures:
    """Replaces `PreparedData`; pairs of captures that are not in `overlaps` overlap completely."""

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
