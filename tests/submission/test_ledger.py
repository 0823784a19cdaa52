"""The ledger: rows stay, writers wait for each other, damaged files are set aside."""

import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest

from pbvs.core.errors import SubmissionError
from pbvs.submission.ledger import Ledger

WRITER = """
import sys
from pathlib import Path
from pbvs.submission.ledger import Ledger
for n in range(int(sys.argv[3])):
    Ledger(Path(sys.argv[1])).add("score", {"by": sys.argv[2], "n": n})
"""


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "submissions" / "ledger.sqlite")


def test_rows_come_back_in_order(ledger):
    assert ledger.entries() == [] and not ledger.path.exists()
    assert ledger.add("build", {"sha256": "a", "bytes": 7}) == 1
    assert ledger.add("score", {"overall": 0.5}, datetime(2026, 3, 1, 23, 59, tzinfo=UTC)) == 2
    first, second = ledger.entries()
    assert (first.id, first.kind, first.value) == (1, "build", {"sha256": "a", "bytes": 7})
    assert second.at == "2026-03-01T23:59:00+00:00"
    assert [entry.id for entry in ledger.entries("score")] == [2]


def test_uploads_are_counted_by_the_day(ledger):
    for day, hour in ((1, 0), (1, 23), (2, 0)):
        ledger.add("board", {}, datetime(2026, 3, day, hour, tzinfo=UTC))
    ledger.add("score", {}, datetime(2026, 3, 1, tzinfo=UTC))
    assert [ledger.uploads_on(f"2026-03-0{day}") for day in (1, 2, 3)] == [2, 1, 0]


def test_processes_that_write_at_once_lose_nothing(ledger):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(ledger.path), name, "25"]) for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    rows = [(entry.value["by"], entry.value["n"]) for entry in ledger.entries()]
    assert sorted(rows) == [(name, n) for name in "abc" for n in range(25)]
    assert len({entry.id for entry in ledger.entries()}) == 75


def _no_table(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE entries")
        connection.execute("CREATE TABLE other (x)")


def _no_json(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entries SET value = '{'")


def _truncated(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _scribbled(path):
    whole = bytearray(path.read_bytes())
    whole[4100:4600] = b"\xff" * 500
    path.write_bytes(bytes(whole))


@pytest.mark.parametrize(
    "damage",
    [_no_table, _no_json, _truncated, _scribbled, lambda p: p.write_bytes(b"not a database at all" * 50)],
)
@pytest.mark.parametrize("first", ["add", "read"])
def test_a_damaged_file_is_set_aside_with_a_warning(ledger, caplog, damage, first):
    for n in range(200):
        ledger.add("score", {"n": n, "long": "x" * 50})
    damage(ledger.path)
    spoilt = ledger.path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert ledger.add("score", {"new": 1}) == 1 if first == "add" else ledger.entries() == []
    aside = ledger.path.with_name("ledger.sqlite.damaged-1")
    assert aside.read_bytes() == spoilt
    assert str(aside) in caplog.text and "damaged" in caplog.text
    # The next one gets a name of its own.
    ledger.path.write_bytes(b"again" * 300)
    ledger.add("score", {"new": 2})
    assert ledger.path.with_name("ledger.sqlite.damaged-2").is_file()
    assert [entry.value for entry in ledger.entries()] == [{"new": 2}]


def test_a_writer_that_is_killed_leaves_a_whole_ledger(ledger):
    ledger.add("build", {"n": 0})
    command = [sys.executable, "-c", WRITER, str(ledger.path), "a", "100000"]
    for _ in range(3):
        writer = subprocess.Popen(command)
        before = len(ledger.entries())
        while len(ledger.entries()) < before + 5:
            assert writer.poll() is None
        writer.kill()
        writer.wait()
    entries = ledger.entries()
    assert [entry.id for entry in entries] == list(range(1, len(entries) + 1))
    assert not list(ledger.path.parent.glob("*.damaged-*"))
    assert json.dumps([entry.value for entry in entries])


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((SubmissionError, OSError)):
        Ledger(tmp_path / "file" / "ledger.sqlite").add("score", {})


def test_a_lock_is_not_damage(ledger, monkeypatch):
    ledger.add("score", {"n": 1})
    monkeypatch.setattr("pbvs.submission.ledger._WAIT_S", 0.1)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SubmissionError, match="locked"):
            ledger.add("score", {"n": 2})
        other.execute("ROLLBACK")
    assert [entry.value["n"] for entry in ledger.entries()] == [1]
