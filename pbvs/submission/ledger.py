"""What was built, scored and uploaded: rows in a small SQLite file, added and never changed.

Each row is a moment, a kind and JSON, so that an older file is still read by a newer version. Builds and
scores know each other by the fingerprints of the images, builds and board scores by the zip's SHA-256.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pbvs.core.errors import SubmissionError

Kind = Literal["build", "score", "board"]
DAILY_QUOTA = 10
"""Submissions a day that the board of 2026 takes from a user."""

_LOG = logging.getLogger(__name__)
_SCHEMA = 1
_WAIT_S = 60.0  # for another process that is writing
_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('build', 'score', 'board')),
    value TEXT NOT NULL
)
"""


def ledger_path() -> Path:
    """`PBVS_LEDGER`, else `submissions/ledger.sqlite` below the current folder."""
    return Path(os.environ.get("PBVS_LEDGER") or Path("submissions") / "ledger.sqlite")


@dataclass(frozen=True)
class Entry:
    """One row: its number, its moment (UTC, ISO 8601), its kind, and what it tells."""

    id: int
    at: str
    kind: Kind
    value: Mapping[str, Any]


class Ledger:
    """The ledger in a file, which is made with the first row.

    A file that is damaged is moved aside, to `<name>.damaged-<n>`, with a warning, and a new one begun:
    nothing of it is overwritten. Several processes may write at once; each waits for the other.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or ledger_path()

    def add(self, kind: Kind, value: Mapping[str, Any], at: datetime | None = None) -> int:
        """Adds a row and gives back its number; it is on the disk when this returns.

        Raises:
            SubmissionError: the file cannot be written, or stayed locked by another process for a minute.
        """
        moment = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_aside_if_damaged()
        with self._open() as connection, connection:  # the inner one commits, or takes everything back
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            row = (moment, kind, json.dumps(value, sort_keys=True))
            cursor = connection.execute("INSERT INTO entries (at, kind, value) VALUES (?, ?, ?)", row)
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """All rows, or those of a kind, in the order they were added; none where there is no file.

        Raises:
            SubmissionError: the file cannot be read.
        """
        if not self.path.is_file():
            return []
        self._keep_aside_if_damaged()
        if not self.path.is_file():
            return []
        with self._open() as connection:
            if not _tables(connection):
                return []  # made by another process, which has not written yet
            rows = connection.execute("SELECT id, at, kind, value FROM entries ORDER BY id").fetchall()
        found = [Entry(row[0], row[1], row[2], json.loads(row[3])) for row in rows]
        return [entry for entry in found if kind in (None, entry.kind)]

    def uploads_on(self, day: str) -> int:
        """How many board scores are of a day (`2026-03-01`, UTC)."""
        return sum(entry.at.startswith(day) for entry in self.entries("board"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # No transaction but those begun by hand, so that one begins with the lock for writing.
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise SubmissionError(
                f"the ledger cannot be used: {error}",
                where=self.path,
                next_step="see that the file and its folder can be written, and that no process holds it",
            ) from error

    def _keep_aside_if_damaged(self) -> None:
        if not self.path.is_file() or (reason := _damage(self.path)) is None:
            return
        names = (self.path.with_name(f"{self.path.name}.damaged-{n}") for n in count(1))
        aside = next(name for name in names if not name.exists())
        self.path.rename(aside)
        _LOG.warning("the ledger was damaged (%s): it is kept as %s, and a new one begun", reason, aside)


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def _damage(path: Path) -> str | None:
    """What is wrong with a ledger's file; None for a whole one. Being locked is not damage."""
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT_S)) as connection:
            (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if told != "ok":
                return str(told)
            for (value,) in connection.execute("SELECT value FROM entries") if _tables(connection) else ():
                json.loads(value)
    except sqlite3.OperationalError as error:
        # Locked, or not to be read, is the moment's fault; a table that is missing or other is the file's.
        return str(error) if "no such" in str(error) else None
    except (sqlite3.DatabaseError, ValueError) as error:
        return str(error)
    return None
