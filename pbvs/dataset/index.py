"""The prepared folder as training sees it: its tables, its fingerprint, its held-out locations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pbvs.core.errors import DataError, UsageError
from pbvs.prepare.prepared_folder import (
    INDEX_COLUMNS,
    OVERLAPS_NAME,
    PREPARE_COMMAND,
    fingerprint_of,
    read_about,
    read_index,
    read_overlaps,
    same_again,
)
from pbvs.prepare.stretch import Stretch

LocationKey = tuple[str, str]  # city ("" for tiles), location


@dataclass(frozen=True, slots=True)
class Capture:
    """One row of the index; `valid_fraction` is the part of its pixels that hold an image.

    `file` is relative to the prepared folder `root`: one Path for all, since there may be 180,000 of these.
    """

    root: Path
    family: str
    city: str
    location: str
    modality: str
    capture: str
    mosaic: bool
    taken: str
    split: str
    file: str
    height_px: int
    width_px: int
    valid_fraction: float

    @property
    def path(self) -> Path:
        """Where the prepared image lies."""
        return self.root / self.file


@dataclass(frozen=True)
class PreparedData:
    """A folder that `pbvs data prepare` finished.

    Attributes:
        root: the folder.
        table: one row a capture, with `INDEX_COLUMNS`, sorted.
        about: what `prepared.json` tells: rules, size_px, stretches, counts.
        fingerprint: SHA-256 of the contents of all sources and the rules; it changes with the pixels.
    """

    root: Path
    table: pd.DataFrame
    about: dict[str, Any]
    fingerprint: str

    @classmethod
    def open(cls, path: Path) -> PreparedData:
        """Reads and checks a prepared folder.

        Raises:
            UsageError: there is no such folder.
            DataError: it was not prepared, not to its end, by another version, or it is empty.
        """
        if not path.is_dir():
            raise UsageError(
                "there is no such data folder", where=path, next_step=PREPARE_COMMAND.format(path)
            )
        about = read_about(path)
        if not about.get("complete"):
            raise DataError("the folder was not prepared to its end", where=path, next_step=same_again(path))
        table = read_index(path)
        return cls(path, table, about, fingerprint_of(table, about))

    def captures(self, family: str, modality: str) -> pd.DataFrame:
        """The rows of one modality in one family of data; may be empty."""
        return self.table[(self.table.family == family) & (self.table.modality == modality)]

    def listed(self, family: str, modality: str) -> list[Capture]:
        """As `captures`, as objects, in the table's order."""
        columns = INDEX_COLUMNS[:12]
        rows = self.captures(family, modality)[list(columns)].itertuples(index=False, name=None)
        return [Capture(self.root, *row) for row in rows]

    def joint_fraction(self, a: Capture, b: Capture) -> float:
        """The part of their grid where two captures of one location are both valid, in [0,1].

        Of two modalities, or one of them valid throughout. No mask is read: `prepare` has counted them.

        Raises:
            UsageError: two locations, or two partial captures of one modality, which no pair is made of.
            DataError: `overlaps.csv` is torn or does not hold the pair.
        """
        smaller, larger = sorted((a.valid_fraction, b.valid_fraction))
        if (a.family, a.city, a.location) != (b.family, b.city, b.location):
            raise UsageError(f"{a.file} and {b.file} are of two locations")
        if larger == 1.0 or a == b:
            return smaller
        if a.modality == b.modality:
            raise UsageError(f"{a.file} and {b.file} are of one modality, and both partial")
        first, second = sorted((a.file, b.file))
        if (first, second) not in self._overlaps:
            raise DataError(
                f"the overlap of {first} and {second} is not there",
                where=self.root / OVERLAPS_NAME,
                next_step=same_again(self.root),
            )
        return self._overlaps[first, second]

    @cached_property
    def _overlaps(self) -> dict[tuple[str, str], float]:
        rows = (row for rows in read_overlaps(self.root).values() for row in rows)
        return {(a, b): fraction for a, b, fraction, _ in rows}

    def sixteen_bits(self, family: str) -> dict[str, Any]:
        """How a family's 16-bit images became 8-bit, JSON-like, to be kept with what is trained on them.

        `uint16`, the rule; `uint16_percent`, its percents or None; `stretches`, see the method.
        """
        rules = self.about["rules"]
        return {
            "uint16": rules["uint16"],
            "uint16_percent": rules["uint16_percent"],
            "stretches": {modality: list(numbers) for modality, numbers in self.stretches(family).items()},
        }

    def stretches(self, family: str) -> dict[str, Stretch]:
        """By modality the numbers of a family's 16-bit images under the rule `percentile`; else empty."""
        told = {sensor.partition("/"): numbers for sensor, numbers in self.about["stretches"].items()}
        return {sensor[2]: (low, high) for sensor, (low, high) in told.items() if sensor[0] == family}

    def archive_holds_out(self, family: str) -> bool:
        """Whether the archive itself names locations of this family for validation."""
        return bool(((self.table.family == family) & (self.table.split == "validation")).any())


def held_out_rank(location: LocationKey, seed: int = 0) -> float:
    """A location's fixed place in [0,1), by a hash of its city and name, whatever else there is."""
    digest = hashlib.sha256("\n".join((str(seed), *location)).encode()).digest()
    return float(int.from_bytes(digest[:6], "big") / 2**48)


def is_held_out(location: LocationKey, fraction: float, seed: int = 0) -> bool:
    """Whether a location is held out when `fraction` of all are; adding data moves no location."""
    return held_out_rank(location, seed) < fraction


def held_out(locations: Iterable[LocationKey], fraction: float, seed: int = 0) -> set[LocationKey]:
    """The held-out ones of `locations`: those of `is_held_out`, so adding data moves none of them.

    Few locations are to give something to train on and something to score on too. So, of two or more, if
    `fraction` lies strictly between 0 and 1:

    * where the hash names none, the one of lowest rank is held out. It goes back to training when data is
      added that holds a location of lower rank; nothing goes the other way.
    * where the hash names all, the one of highest rank stays in training. It is held out when data is added
      that holds a location of higher rank.

    With n locations the first happens by chance (1 - fraction)^n (8 % for 50 locations at 0.05, 0.6 % for
    100), the second fraction^n.
    """
    ranked = sorted(set(locations), key=lambda location: (held_out_rank(location, seed), location))
    n_held_out = sum(is_held_out(location, fraction, seed) for location in ranked)
    if 0.0 < fraction < 1.0 and len(ranked) > 1:
        n_held_out = min(max(n_held_out, 1), len(ranked) - 1)
    return set(ranked[:n_held_out])
