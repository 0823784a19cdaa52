"""Writing files that are whole or not there, and telling files by their contents."""

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

_CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it takes `path`'s place only when the block ends well.

    The stand-in keeps the suffix, for writers that choose a format by it. Parent folders are made.
    A process killed within the block leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{threading.get_native_id()}"  # two may write one file, and the last one stays
    beside = path.with_name(f".{path.stem}.{writer}.part{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Takes away what killed processes left unfinished below `folder`; nothing else may be writing there."""
    for part in folder.rglob(".*.part*"):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to `path`, whole or not at all."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a header and rows as CSV to `path`, whole or not at all; lines end with a newline only."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as sorted, indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def cache_folder() -> Path:
    """The folder for all that can be made again: `PBVS_CACHE`, else `pbvs` in the user's cache folder.

    Raises:
        UsageError: neither is told by the environment, and the user has no home folder.
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
        raise UsageError("there is no folder for caches", next_step="set PBVS_CACHE to a folder") from error


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's contents, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def files_fingerprint(paths: Iterable[Path]) -> str:
    """A fingerprint of files by name and contents, in their order."""
    return fingerprint([[path.name, sha256_of_file(path)] for path in paths])


def fingerprint(value: Any) -> str:
    """SHA-256 in hex of any JSON-like value; the same value has the same fingerprint everywhere."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
