"""What `prepare` remembers of each source file, so that only missing and changed results are redone.

One line of JSON per file in `hashes.jsonl`. During a call each new record is appended to a journal, so that a
process killed at any time loses none; the next call merges the journals.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TextIO

from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write, sha256_of_file
from pbvs.prepare.stretch import Stretch

RECORDS_NAME = "hashes.jsonl"
_JOURNAL_NAME = "journal.{}.jsonl"


@dataclass(frozen=True, slots=True)
class Contents:
    """A file's size in bytes, modification time and SHA-256 in hex."""

    n_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Registration:
    """The shift of a SAR capture against its location's optical image, and whether it was applied.

    Attributes:
        reference: the prepared image it was compared with, relative to the prepared folder.
        dx_px, dy_px: how far it must move right and down, in pixels of the grid.
        peak: how clear the estimate is, see `pbvs.prepare.register`.
        trusted: whether it is clear enough.
        applied: whether the prepared image has this shift.
    """

    reference: str
    dx_px: float
    dy_px: float
    peak: float
    trusted: bool
    applied: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One source file and its result.

    `n_bytes` and `mtime_ns` only save hashing a file that was not touched; whether a result is redone depends
    on `sha256` (the source's contents), `recipe` (fingerprint of rules, grid and registration reference) and
    `out`. `out_bytes` is the size of the result at `out`, relative to the prepared folder; 0 for a capture
    that covers too little, which has no result. `stretch` is None for an 8-bit source.
    """

    n_bytes: int
    mtime_ns: int
    sha256: str
    recipe: str
    out: str
    out_bytes: int
    height_px: int
    width_px: int
    valid_fraction: float
    stretch: Stretch | None = None
    registration: Registration | None = None

    @property
    def shift_px(self) -> tuple[float, float]:
        """The shift applied to the result, right and down."""
        if self.registration is None or not self.registration.applied:
            return 0.0, 0.0
        return self.registration.dx_px, self.registration.dy_px

    def result_exists(self, out: Path) -> bool:
        """Whether the result is there with the size it was written with; True if there should be none."""
        if not self.out_bytes:
            return True
        try:
            return (out / self.out).stat().st_size == self.out_bytes
        except FileNotFoundError:
            return False


_COLUMNS = [field.name for field in fields(Record)]


def content_hash(path: Path, known: Contents | Record | None) -> Contents:
    """Size, modification time and SHA-256 of a file; the hash is `known`'s if size and time agree.

    Raises:
        OSError: the file cannot be read.
    """
    stat = path.stat()
    if known and (known.n_bytes, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return Contents(known.n_bytes, known.mtime_ns, known.sha256)
    return Contents(stat.st_size, stat.st_mtime_ns, sha256_of_file(path))


# ---- on disk


@contextmanager
def wrap_write_errors(where: Path) -> Iterator[None]:
    """Turns an OSError of writing at `where` into a DataError with a next step."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the prepared folder cannot be written to: {error.strerror or error}",
            where=where,
            next_step="free disk space and run again: it resumes where it stopped",
        ) from error


class Journal:
    """New records of one process, one per line, on disk as soon as they are known."""

    def __init__(self, out: Path, rank: int = 0) -> None:
        self._path = out / _JOURNAL_NAME.format(rank)
        self._stream: TextIO | None = None

    def note(self, records: Iterable[tuple[str, Record | None]]) -> None:
        """Appends records by source path; None cancels the file's earlier record.

        Raises:
            DataError: the disk is full.
        """
        lines = "".join(_line(key, record) for key, record in records)
        if not lines:
            return
        with wrap_write_errors(self._path):
            if self._stream is None:
                self._stream = self._path.open("a", encoding="utf-8")
            self._stream.write(lines)
            self._stream.flush()

    def close(self) -> None:
        """Closes the file, which stays until `save_records`."""
        if self._stream is not None:
            with wrap_write_errors(self._path):
                self._stream.close()
            self._stream = None


def load_records(out: Path) -> dict[str, Record]:
    """The records of a prepared folder by source path, journals included; empty when there are none yet.

    A line truncated by a killed process or a full disk costs that record only: its file is redone.
    """
    records: dict[str, Record] = {}
    for path in filter(Path.exists, (out / RECORDS_NAME, *_journals(out))):
        with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
            for line in stream:
                try:
                    key, row = json.loads(line)
                    if row is None:
                        records.pop(key, None)
                        continue
                    values = dict(zip(_COLUMNS, row, strict=True))
                    values["recipe"] = sys.intern(values["recipe"])  # one text for 180,000 tiles
                    values["stretch"] = values["stretch"] and tuple(values["stretch"])
                    values["registration"] = values["registration"] and Registration(*values["registration"])
                    records[key] = Record(**values)
                except (ValueError, TypeError):
                    continue
    return records


def save_records(out: Path, records: Mapping[str, Record]) -> None:
    """Writes the records atomically, and deletes the journals.

    Raises:
        DataError: the disk is full.
    """
    path = out / RECORDS_NAME
    with wrap_write_errors(path):
        with atomic_write(path) as tmp_path, tmp_path.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(key, records[key]) for key in sorted(records))
        for journal in _journals(out):
            journal.unlink(missing_ok=True)


def merge_journals(out: Path) -> None:
    """Merges the journals of killed processes into the records; errors as `save_records`."""
    if _journals(out):
        save_records(out, load_records(out))


def _line(key: str, record: Record | None) -> str:
    row = record and [getattr(record, name) for name in _COLUMNS]
    return json.dumps([key, row], separators=(",", ":"), default=astuple) + "\n"  # default: `registration`


def _journals(out: Path) -> list[Path]:
    """Rank 0's last: it redoes what others did differently."""
    return sorted(out.glob(_JOURNAL_NAME.format("*")), reverse=True)
