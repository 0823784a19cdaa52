"""What a prepared folder holds besides its images: the tables and `prepared.json`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd

from pbvs.archives.layouts import PREPARED_MARK
from pbvs.core import versions
from pbvs.core.errors import DataError
from pbvs.core.files import fingerprint

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
PREPARE_COMMAND = "run `pbvs data prepare ROOT {}`"

# Two paths in the prepared folder in order, their joint fraction, and the provenance of their location: the
# fingerprint of its partial captures (column `made_of`).
Overlap = tuple[str, str, float, str]


def prepare_again(path: Path) -> str:
    """The next step for a folder that was not prepared completely, or whose tables are corrupt."""
    return f"{PREPARE_COMMAND.format(path)} again: it resumes where it stopped"


def read_about(path: Path) -> dict[str, Any]:
    """`prepared.json` of a prepared folder, finished or not.

    Raises:
        DataError: it is missing, truncated or corrupt, or of another version.
    """
    mark = path / PREPARED_MARK
    if not mark.is_file():
        names = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
        raise DataError(
            f"the folder holds no prepared data but {names}",
            where=path,
            next_step=PREPARE_COMMAND.format("OUT"),
        )
    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"the file is truncated or corrupt: {error}", where=mark, next_step="prepare into a new folder"
        ) from error
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise DataError("prepared by another version", where=mark, next_step="prepare into a new folder")
    return about


def read_index(path: Path) -> pd.DataFrame:
    """`index.csv`: one row per capture, with `INDEX_COLUMNS`.

    Raises:
        DataError: it is truncated or corrupt, has other columns, or is empty.
    """
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
            f"the index cannot be read: {error}", where=index, next_step=prepare_again(path)
        ) from error
    if tuple(table.columns) != INDEX_COLUMNS:
        raise DataError("the index has unexpected columns", where=index, next_step=prepare_again(path))
    if table.empty:
        raise DataError("the index lists no image", where=index, next_step=prepare_again(path))
    return table


def read_overlaps(out: Path) -> dict[str, list[Overlap]]:
    """The rows of `overlaps.csv` by provenance; empty where there is no such file.

    Raises:
        DataError: the file is truncated or corrupt.
    """
    path = out / OVERLAPS_NAME
    overlaps: dict[str, list[Overlap]] = {}
    if not path.exists():
        return overlaps
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                overlap = (row["path_a"], row["path_b"], float(row["joint_fraction"]), row["made_of"])
                overlaps.setdefault(row["made_of"], []).append(overlap)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the table of overlaps cannot be read: {error}",
            where=path,
            next_step="delete this file and prepare again",
        ) from error
    return overlaps


def data_fingerprint(out: Path) -> str:
    """SHA-256 of a prepared folder's source contents and rules.

    Raises:
        DataError: the folder's tables are truncated or corrupt.
    """
    return fingerprint_of(read_index(out), read_about(out))


def fingerprint_of(table: pd.DataFrame, about: dict[str, Any]) -> str:
    """`data_fingerprint` of the index and `prepared.json` as read."""
    columns = ["path", "source_sha256", *INDEX_COLUMNS[-4:]]
    rows = table[columns].to_csv(index=False, lineterminator="\n")
    settings = [about["schema"], about["rules"], about["size_px"], about.get("stretches", {})]
    return fingerprint([*settings, rows, *versions.later(about.get("prepare", 1))])
