"""What `prepare` remembers of each source file, so that only the missing and the changed is done again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pbvs.errors import DataError
from pbvs.files import sha256_of_file, write_text

RECORDS_NAME = "hashes.json"


@dataclass(frozen=True)
class Record:
    """One source file and what was made of it.

    `n_bytes` and `mtime_ns` only spare the hashing of a file that was not touched; what must be redone is
    decided by `sha256` (its contents) and `made_by` (the rules, the grid and the place of the result).
    `out` is the result's path relative to the prepared folder, "" for a capture that covers too little.
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

    def result_is_there(self, out: Path) -> bool:
        """Whether the result lies where it was written, in the size that it had (or none was to be)."""
        if not self.out:
            return True
        path = out / self.out
        return path.is_file() and path.stat().st_size == self.out_bytes


def content_hash(path: Path, known: Record | None) -> tuple[int, int, str]:
    """Size in bytes, time of change in ns and SHA-256 of a file; the hash is `known`'s if both agree."""
    stat = path.stat()
    if known and (known.n_bytes, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known.n_bytes, known.mtime_ns, known.sha256
    return stat.st_size, stat.st_mtime_ns, sha256_of_file(path)


def load_records(out: Path) -> dict[str, Record]:
    """The records of a prepared folder by source path; none when there are none yet.

    Raises:
        DataError: the file is not what `save_records` writes.
    """
    path = out / RECORDS_NAME
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {source: Record(**record) for source, record in told.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"the record of what was prepared cannot be read: {error}",
            where=path,
            next_step="delete this file; everything is then prepared again",
        ) from error


def save_records(out: Path, records: dict[str, Record]) -> None:
    """Writes the records, whole or not at all."""
    told = {source: asdict(record) for source, record in sorted(records.items())}
    write_text(out / RECORDS_NAME, json.dumps(told, separators=(",", ":")) + "\n")
