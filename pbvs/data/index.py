"""The prepared folder as training sees it: its tables, its fingerprint, its held-out locations."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pbvs.data.layouts import PREPARED_MARK
from pbvs.data.stretch import Stretch
from pbvs.errors import DataError, UsageError
from pbvs.files import fingerprint

SCHEMA = 2
INDEX_NAME = "index.csv"
# Of an 8-bit source `stretch_low` and `stretch_high` are empty; the shifts are 0 without registration.
INDEX_COLUMNS = (
    *("family", "city", "location", "modality", "capture", "mosaic", "taken", "split", "path"),
    *("height_px", "width_px", "valid_fraction", "source_path", "source_sha256"),
    *("stretch_low", "stretch_high", "shift_x_px", "shift_y_px"),
)
OVERLAPS_NAME = "overlaps.csv"
OVERLAP_COLUMNS = ("family", "city", "location", "path_a", "path_b", "joint_fraction", "made_of")
_PREPARE = "run `pbvs data prepare ROOT {}`"

LocationKey = tuple[str, str]  # city ("" for tiles), location

# Two paths in the prepared folder in order, their joint fraction, and what their location was made of.
Overlap = tuple[str, str, float, str]


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
            raise UsageError("there is no such data folder", where=path, next_step=_PREPARE.format(path))
        about = read_about(path)
        if not about.get("complete"):
            raise DataError("the folder was not prepared to its end", where=path, next_step=_same_again(path))
        table = _read_index(path)
        return cls(path, table, about, _fingerprint_of(table, about))

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
                next_step=_same_again(self.root),
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


def _same_again(path: Path) -> str:
    return f"{_PREPARE.format(path)} again: it goes on where it was"


def read_about(path: Path) -> dict[str, Any]:
    """`prepared.json` of a prepared folder, finished or not.

    Raises:
        DataError: it is missing, torn, or of another version.
    """
    mark = path / PREPARED_MARK
    if not mark.is_file():
        names = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
        raise DataError(
            f"the folder holds no prepared data but {names}", where=path, next_step=_PREPARE.format("OUT")
        )
    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"the file is torn: {error}", where=mark, next_step="prepare into a new folder"
        ) from error
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise DataError("prepared by another version", where=mark, next_step="prepare into a new folder")
    return about


def _read_index(path: Path) -> pd.DataFrame:
    index = path / INDEX_NAME
    numbers = ("valid_fraction", *INDEX_COLUMNS[-4:])
    types = dict.fromkeys(INDEX_COLUMNS, "str") | dict.fromkeys(numbers, "float64")
    types |= {"mosaic": "bool", "height_px": "int64", "width_px": "int64"}
    try:
        table = pd.read_csv(
            index, dtype=types, keep_default_na=False, na_values={name: [""] for name in numbers}
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"the index cannot be read: {error}", where=index, next_step=_same_again(path)
        ) from error
    if tuple(table.columns) != INDEX_COLUMNS:
        raise DataError(
            "the index has other columns than it should", where=index, next_step=_same_again(path)
        )
    if table.empty:
        raise DataError("the index lists no image", where=index, next_step=_same_again(path))
    return table


def read_overlaps(out: Path) -> dict[str, list[Overlap]]:
    """The rows of `overlaps.csv` by what their location was made of; none where there is no such file.

    Raises:
        DataError: the file is torn.
    """
    path = out / OVERLAPS_NAME
    found: dict[str, list[Overlap]] = {}
    if not path.exists():
        return found
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                overlap = (row["path_a"], row["path_b"], float(row["joint_fraction"]), row["made_of"])
                found.setdefault(row["made_of"], []).append(overlap)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the table of overlaps cannot be read: {error}",
            where=path,
            next_step="delete this file, and prepare again",
        ) from error
    return found


def data_fingerprint(out: Path) -> str:
    """SHA-256 of a prepared folder's source contents and rules; errors as `PreparedData.open`."""
    return PreparedData.open(out).fingerprint


def _fingerprint_of(table: pd.DataFrame, about: dict[str, Any]) -> str:
    made_of = table[["path", "source_sha256", *INDEX_COLUMNS[-4:]]]
    rows = made_of.to_csv(index=False, lineterminator="\n")
    return fingerprint([about["schema"], about["rules"], about["size_px"], about.get("stretches", {}), rows])


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
