"""Atomic writes, hashes of files, and the cache folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pbvs.core.errors import UsageError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which replaces `path` when the block succeeds.

    The temporary path keeps the suffix, for writers that choose a format by it. Parent folders are created.
    A process killed within the block leaves `path` unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{threading.get_native_id()}"  # two may write one file; the last one wins
    tmp_path = path.with_name(f".{path.stem}.{writer}.part{path.suffix}")
    try:
        yield tmp_path
        tmp_path.replace(path)
    finally:
        tmp_path.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Deletes the unfinished files of killed processes below `folder`; nothing else may be writing there."""
    for part in folder.rglob(".*.part*"):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to `path`, atomically."""
    with atomic_write(path) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a header and rows as CSV to `path`, atomically; lines end with `\\n`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as sorted, indented JSON to `path`, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def cache_folder() -> Path:
    """The folder for everything that can be rebuilt: `PBVS_CACHE`, else `pbvs` in the user's cache folder.

    Raises:
        UsageError: no environment variable names it, and the user has no home folder.
    """
    if ours := os.environ.get("PBVS_CACHE"):
        return Path(ours)
    custom, usual = os.environ.get("XDG_CACHE_HOME"), ".cache"
    if os.name == "nt":
        custom, usual = os.environ.get("LOCALAPPDATA"), "AppData/Local"
    elif sys.platform == "darwin":
        custom, usual = None, "Library/Caches"
    try:
        return (Path(custom) if custom else Path.home() / usual) / "pbvs"
    except RuntimeError as error:
        raise UsageError("there is no cache folder", next_step="set PBVS_CACHE to a folder") from error


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's contents, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 in hex of the names and contents of files, in the given order."""
    return fingerprint([[path.name, sha256_of_file(path)] for path in paths])


def fingerprint(value: Any) -> str:
    """SHA-256 in hex of any JSON-like value, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
