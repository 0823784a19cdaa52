"""The prepared folder as training sees it: its table of captures, its fingerprint, its held-out locations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pbvs.data.layouts import PREPARED_MARK
from pbvs.errors import DataError, UsageError
from pbvs.files import fingerprint

SCHEMA = 1
INDEX_NAME = "index.csv"
INDEX_COLUMNS = (
    *("family", "city", "location", "modality", "capture", "mosaic", "taken", "split", "path"),
    *("height_px", "width_px", "valid_fraction", "source_path", "source_sha256"),
)
_PREPARE = "run `pbvs data prepare ROOT {}`"

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
    types = dict.fromkeys(INDEX_COLUMNS, "str") | {
        "mosaic": "bool",
        "height_px": "int64",
        "width_px": "int64",
    }
    try:
        table = pd.read_csv(index, dtype=types | {"valid_fraction": "float64"}, keep_default_na=False)
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


def data_fingerprint(out: Path) -> str:
    """SHA-256 of a prepared folder's source contents and rules; errors as `PreparedData.open`."""
    return PreparedData.open(out).fingerprint


def _fingerprint_of(table: pd.DataFrame, about: dict[str, Any]) -> str:
    rows = table[["path", "source_sha256"]].to_numpy().tolist()
    return fingerprint([about["schema"], about["rules"], about["size_px"], about.get("stretches", {}), rows])


def held_out_rank(location: LocationKey, seed: int = 0) -> float:
    """A location's fixed place in [0,1), by a hash of its city and name, whatever else there is."""
    digest = hashlib.sha256("\n".join((str(seed), *location)).encode()).digest()
    return float(int.from_bytes(digest[:6], "big") / 2**48)


def is_held_out(location: LocationKey, fraction: float, seed: int = 0) -> bool:
    """Whether a location is held out when `fraction` of all are; adding data moves no location."""
    return held_out_rank(location, seed) < fraction


def held_out(locations: Iterable[LocationKey], fraction: float, seed: int = 0) -> set[LocationKey]:
    """The held-out ones of `locations`.

    Those of `is_held_out`; if `fraction` is over 0, the location with the lowest rank is held out where the
    hash names none, and the one with the highest stays where it names all (two locations or more), so few
    locations still give something to train on and something to score on.
    """
    ranked = sorted(set(locations), key=lambda location: (held_out_rank(location, seed), location))
    n_held_out = sum(is_held_out(location, fraction, seed) for location in ranked)
    if 0.0 < fraction < 1.0 and len(ranked) > 1:
        n_held_out = min(max(n_held_out, 1), len(ranked) - 1)
    return set(ranked[:n_held_out])
