"""A record of builds, scores and uploads: an append-only SQLite file.

Each row is a time, a kind and JSON, so a newer version reads older files. Builds and scores are matched by
the fingerprints of the images, builds and board scores by the zip's SHA-256.
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
"""Submissions per user and day that the board of 2026 accepts."""

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
    """One row: its number, its time (UTC, ISO 8601), its kind and its JSON value."""

    id: int
    at: str
    kind: Kind
    value: Mapping[str, Any]


class Ledger:
    """The ledger in a file, which is created with the first row.

    A damaged file is renamed to `<name>.damaged-<n>`, with a warning, and a new one started: nothing is
    overwritten. Several processes may write at once; each waits for the other.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or ledger_path()

    def add(self, kind: Kind, value: Mapping[str, Any], at: datetime | None = None) -> int:
        """Adds a row and returns its number; the row is on disk when this returns.

        Raises:
            SubmissionError: the file cannot be written, or another process keeps it locked for a minute.
        """
        time = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._set_aside_if_damaged()
        with self._open() as connection, connection:  # the inner one commits or rolls back
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            row = (time, kind, json.dumps(value, sort_keys=True))
            cursor = connection.execute("INSERT INTO entries (at, kind, value) VALUES (?, ?, ?)", row)
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """All rows, or those of a kind, in the order they were added; empty without a file.

        Raises:
            SubmissionError: the file cannot be read.
        """
        if not self.path.is_file():
            return []
        self._set_aside_if_damaged()
        if not self.path.is_file():
            return []
        with self._open() as connection:
            if not _tables(connection):
                return []  # created by another process, which has not written yet
            rows = connection.execute("SELECT id, at, kind, value FROM entries ORDER BY id").fetchall()
        found = [Entry(row[0], row[1], row[2], json.loads(row[3])) for row in rows]
        return [entry for entry in found if kind in (None, entry.kind)]

    def uploads_on(self, day: str) -> int:
        """The number of board scores of a day (`2026-03-01`, UTC)."""
        return sum(entry.at.startswith(day) for entry in self.entries("board"))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # Autocommit: `add` begins its transaction itself, with the write lock.
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise SubmissionError(
                f"the ledger cannot be used: {error}",
                where=self.path,
                next_step="check that the file and its folder are writable, and that no process locks it",
            ) from error

    def _set_aside_if_damaged(self) -> None:
        if not self.path.is_file():
            return
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as connection:
                (reason,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if reason == "ok":
                    query = "SELECT value FROM entries"
                    for (value,) in connection.execute(query) if _tables(connection) else ():
                        json.loads(value)
                    return
        except sqlite3.OperationalError as error:
            if "no such" not in str(error):
                return  # locked or unreadable for now; a missing or different table is damage
            reason = str(error)
        except (sqlite3.DatabaseError, ValueError) as error:
            reason = str(error)
        names = (self.path.with_name(f"{self.path.name}.damaged-{n}") for n in count(1))
        aside = next(name for name in names if not name.exists())
        self.path.rename(aside)
        _LOG.warning("the ledger is damaged (%s): moved it to %s, starting a new one", reason, aside)


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
