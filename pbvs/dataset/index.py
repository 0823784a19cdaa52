"""A prepared folder as training reads it: its tables, fingerprint and held-out locations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pbvs.core.errors import DataError, UsageError
from pbvs.prepare.plan import LocationKey
from pbvs.prepare.prepared_folder import (
    INDEX_COLUMNS,
    OVERLAPS_NAME,
    PREPARE_COMMAND,
    fingerprint_of,
    prepare_again,
    read_about,
    read_index,
    read_overlaps,
)
from pbvs.prepare.stretch import Stretch


@dataclass(frozen=True, slots=True)
class Capture:
    """One row of the index; `valid_fraction` is the fraction of valid pixels, in [0,1].

    `acquired_at` is an ISO date or date and time, or "". `file` is relative to the prepared folder `root`,
    one Path shared by all of up to 180,000 captures.
    """

    root: Path
    family: str
    city: str
    location: str
    modality: str
    capture: str
    mosaic: bool
    acquired_at: str
    split: str
    file: str
    height_px: int
    width_px: int
    valid_fraction: float

    @property
    def path(self) -> Path:
        """The prepared image's file."""
        return self.root / self.file


@dataclass(frozen=True)
class PreparedData:
    """A finished folder of `pbvs data prepare`.

    Attributes:
        root: the folder.
        table: one row per capture, with `INDEX_COLUMNS`, sorted.
        about: contents of `prepared.json`: rules, size_px, stretches, counts.
        fingerprint: SHA-256 of the contents of all sources and of the rules; it changes with the pixels.
    """

    root: Path
    table: pd.DataFrame
    about: dict[str, Any]
    fingerprint: str

    @classmethod
    def open(cls, path: Path) -> PreparedData:
        """Reads and checks a prepared folder.

        Raises:
            UsageError: the folder does not exist.
            DataError: it was not prepared, not completely, by another version, or it is empty.
        """
        if not path.is_dir():
            raise UsageError(
                "there is no such data folder", where=path, next_step=PREPARE_COMMAND.format(path)
            )
        about = read_about(path)
        if not about.get("complete"):
            raise DataError(
                "the folder was not prepared to its end", where=path, next_step=prepare_again(path)
            )
        table = read_index(path)
        return cls(path, table, about, fingerprint_of(table, about))

    def captures(self, family: str, modality: str) -> pd.DataFrame:
        """The rows of one modality in one family; may be empty."""
        return self.table[(self.table.family == family) & (self.table.modality == modality)]

    def listed(self, family: str, modality: str) -> list[Capture]:
        """`captures` as objects, in the table's order."""
        columns = list(INDEX_COLUMNS[:12])
        rows = self.captures(family, modality)[columns].itertuples(index=False, name=None)
        return [Capture(self.root, *row) for row in rows]

    def joint_fraction(self, a: Capture, b: Capture) -> float:
        """The fraction of the grid where two captures of one location are both valid, in [0,1].

        Either the modalities differ, or one capture is fully valid. Reads no mask: `prepare` counted them.

        Raises:
            UsageError: two locations, or two partial captures of one modality, which never form a pair.
            DataError: `overlaps.csv` is corrupt or lacks the pair.
        """
        smaller, larger = sorted((a.valid_fraction, b.valid_fraction))
        if (a.family, a.city, a.location) != (b.family, b.city, b.location):
            raise UsageError(f"{a.file} and {b.file} belong to two locations")
        if larger == 1.0 or a == b:
            return smaller
        if a.modality == b.modality:
            raise UsageError(f"{a.file} and {b.file} are of one modality and both partial")
        first, second = sorted((a.file, b.file))
        if (first, second) not in self._overlaps:
            raise DataError(
                f"the overlap of {first} and {second} is missing",
                where=self.root / OVERLAPS_NAME,
                next_step=prepare_again(self.root),
            )
        return self._overlaps[first, second]

    @cached_property
    def _overlaps(self) -> dict[tuple[str, str], float]:
        return {(a, b): part for rows in read_overlaps(self.root).values() for a, b, part, _ in rows}

    def sixteen_bits(self, family: str) -> dict[str, Any]:
        """How a family's 16-bit images became 8-bit, as JSON-like data for checkpoints trained on them.

        `uint16`: the rule; `uint16_percent`: its percentiles or None; `stretches`: see the method.
        """
        rules = self.about["rules"]
        return {
            "uint16": rules["uint16"],
            "uint16_percent": rules["uint16_percent"],
            "stretches": {modality: list(numbers) for modality, numbers in self.stretches(family).items()},
        }

    def stretches(self, family: str) -> dict[str, Stretch]:
        """(low, high) of a family's 16-bit images per modality under the rule `percentile`; else empty."""
        prefix, by_sensor = f"{family}/", self.about["stretches"].items()
        return {
            sensor.removeprefix(prefix): (low, high)
            for sensor, (low, high) in by_sensor
            if sensor.startswith(prefix)
        }

    def archive_holds_out(self, family: str) -> bool:
        """Whether the archive itself has validation locations in this family."""
        return bool(((self.table.family == family) & (self.table.split == "validation")).any())


def held_out_rank(location: LocationKey, seed: int = 0) -> float:
    """A location's fixed rank in [0,1): a hash of its city and name, independent of other data."""
    digest = hashlib.sha256("\n".join((str(seed), *location)).encode()).digest()
    return float(int.from_bytes(digest[:6], "big") / 2**48)


def is_held_out(location: LocationKey, fraction: float, seed: int = 0) -> bool:
    """Whether a location is held out at `fraction`, in [0,1]; adding data moves no location."""
    return held_out_rank(location, seed) < fraction


def held_out(locations: Iterable[LocationKey], fraction: float, seed: int = 0) -> set[LocationKey]:
    """The held-out locations by `is_held_out`; adding data moves none of them.

    A small set still needs both training and validation data. So with two or more locations and `fraction`
    strictly between 0 and 1:

    * if the hash selects none, the location of lowest rank is held out. It returns to training when a
      location of lower rank is added; no location moves the other way.
    * if the hash selects all, the location of highest rank stays in training. It is held out when a location
      of higher rank is added.

    With n locations the first case has probability (1 - fraction)^n (8 % for 50 locations at 0.05, 0.6 % for
    100), the second fraction^n.
    """
    ranked = sorted(set(locations), key=lambda location: (held_out_rank(location, seed), location))
    n_held_out = sum(is_held_out(location, fraction, seed) for location in ranked)
    if 0.0 < fraction < 1.0 and len(ranked) > 1:
        n_held_out = min(max(n_held_out, 1), len(ranked) - 1)
    return set(ranked[:n_held_out])
