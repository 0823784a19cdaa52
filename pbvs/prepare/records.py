"""What `prepare` remembers of each source file, so that only the missing and the changed is done again.

A line of JSON a file in `hashes.jsonl`. While files are made each new record is a line added to a journal, so
that a process killed at any time loses none; the next call takes the journals in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TextIO

from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write, sha256_of_file
from pbvs.prepare.stretch import Stretch

RECORDS_NAME = "hashes.jsonl"
_JOURNAL_NAME = "journal.{}.jsonl"


class CachedHeader(Protocol):
    """What tells a file's contents without reading it again."""

    @property
    def n_bytes(self) -> int:
        """Size."""

    @property
    def mtime_ns(self) -> int:
        """Time of the last change."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the contents, in hex."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A file's size, time of change and SHA-256."""

    n_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Registered:
    """How far a SAR capture lay from its location's optical image, and what was done about it.

    Attributes:
        reference: the prepared image that it was compared with, relative to the prepared folder.
        dx_px, dy_px: how far it must move to the right and down, in pixels of the grid.
        peak: how clear the estimate is, see `pbvs.prepare.register`.
        trusted: whether it is clear enough.
        applied: whether the prepared image was made with this shift.
    """

    reference: str
    dx_px: float
    dy_px: float
    peak: float
    trusted: bool
    applied: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One source file and what was made of it.

    `n_bytes` and `mtime_ns` only spare the hashing of a file that was not touched; what must be redone is
    decided by `sha256` (its contents), `made_by` (the rules, the grid and what it was registered to) and
    `out`. `out_bytes` is the size of the result at `out`, relative to the prepared folder; 0 for a capture
    that covers too little, which has none. `stretch` is None for an 8-bit source.
    """

    n_bytes: int
    mtime_ns: int
    sha256: str
    made_by: str
    out: str
    out_bytes: int
    height_px: int
    width_px: int
    valid_fraction: float
    stretch: Stretch | None = None
    registered: Registered | None = None

    @property
    def shift_px(self) -> tuple[float, float]:
        """By how much the result was moved, right and down."""
        moved = self.registered is not None and self.registered.applied
        return (self.registered.dx_px, self.registered.dy_px) if moved and self.registered else (0.0, 0.0)

    def result_is_there(self, out: Path) -> bool:
        """Whether the result lies where it was written, in the size that it had (or none was to be)."""
        if not self.out_bytes:
            return True
        try:
            return (out / self.out).stat().st_size == self.out_bytes
        except FileNotFoundError:
            return False


def content_hash(path: Path, known: CachedHeader | None) -> Contents:
    """Size, time of change and SHA-256 of a file; the hash is `known`'s if size and time agree.

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
    """Turns a failure to write at `where` into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the prepared folder cannot be written to: {error.strerror or error}",
            where=where,
            next_step="make room on the disk, and run again: it goes on where it was",
        ) from error


class Journal:
    """New records of one process, a line each, on disk as soon as they are known."""

    def __init__(self, out: Path, rank: int = 0) -> None:
        self._path = out / _JOURNAL_NAME.format(rank)
        self._stream: TextIO | None = None

    def note(self, told: Iterable[tuple[str, Record | None]]) -> None:
        """Adds records by source path; None says that what was known of a file no longer holds.

        Raises:
            DataError: the disk is full.
        """
        lines = "".join(_line(key, record) for key, record in told)
        if not lines:
            return
        with wrap_write_errors(self._path):
            if self._stream is None:
                self._stream = self._path.open("a", encoding="utf-8")
            self._stream.write(lines)
            self._stream.flush()

    def close(self) -> None:
        """Ends the writing; the file stays until `save_records`."""
        if self._stream is not None:
            with wrap_write_errors(self._path):
                self._stream.close()
            self._stream = None


def load_records(out: Path) -> dict[str, Record]:
    """The records of a prepared folder by source path, journals included; none when there are none yet.

    A line that a killed process or a full disk left torn costs that record only: its file is made again.
    """
    records: dict[str, Record] = {}
    shared: dict[str, str] = {}  # one text for the 180,000 tiles that were made by the same rules
    for path in (out / RECORDS_NAME, *_journals(out)):
        if path.exists():
            _take_in(records, path, shared)
    return records


def save_records(out: Path, records: Mapping[str, Record]) -> None:
    """Writes the records, whole or not at all, and takes the journals away.

    Raises:
        DataError: the disk is full.
    """
    path = out / RECORDS_NAME
    with wrap_write_errors(path):
        with atomic_write(path) as beside, beside.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(key, records[key]) for key in sorted(records))
        for journal in _journals(out):
            journal.unlink(missing_ok=True)


def take_in_journals(out: Path) -> None:
    """Brings what killed processes noted into the records; errors as `save_records`."""
    if _journals(out):
        save_records(out, load_records(out))


_COLUMNS = [field.name for field in fields(Record)]


def _row(record: Record) -> list[Any]:
    return [*astuple(record)] if record.registered else [getattr(record, name) for name in _COLUMNS]


def _record(row: list[Any], shared: dict[str, str]) -> Record:
    told = dict(zip(_COLUMNS, row, strict=True))
    told["made_by"] = shared.setdefault(told["made_by"], told["made_by"])
    if told["stretch"] is not None:
        told["stretch"] = tuple(told["stretch"])
    if told["registered"] is not None:
        told["registered"] = Registered(*told["registered"])
    return Record(**told)


def _line(key: str, record: Record | None) -> str:
    return json.dumps([key, record and _row(record)], separators=(",", ":")) + "\n"


def _journals(out: Path) -> list[Path]:
    """Rank 0's last: it is the one that does again what others did otherwise."""
    return sorted(out.glob(_JOURNAL_NAME.format("*")), reverse=True)


def _take_in(records: dict[str, Record], path: Path, shared: dict[str, str]) -> None:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for line in stream:
            try:
                key, row = json.loads(line)
                record = row and _record(row, shared)
            except (ValueError, TypeError, KeyError):
                continue
            if record is None:
                records.pop(key, None)
            else:
                records[key] = record
