"""What `prepare` leaves besides the images: its tables, and no result whose source is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbvs.archives.scan import PROBLEM_COLUMNS, Problem
from pbvs.core.files import write_csv
from pbvs.prepare.overlaps import overlap_rows
from pbvs.prepare.plan import Item
from pbvs.prepare.prepared_folder import INDEX_COLUMNS, INDEX_NAME, OVERLAP_COLUMNS, OVERLAPS_NAME, Overlap
from pbvs.prepare.records import Record, wrap_write_errors
from pbvs.prepare.registration import REGISTRATION_COLUMNS, REGISTRATION_NAME, registration_row

PROBLEMS_NAME = "problems.csv"

Finished = Sequence[tuple[Item, Record]]  # every item that did not fail, in order of the results


def write_tables(
    out: Path, settled: Finished, overlaps: Iterable[Overlap], problems: Iterable[Problem]
) -> None:
    """Writes the index and the tables of problems, overlaps and registrations.

    Raises:
        DataError: the disk is full.
    """
    _write(out, PROBLEMS_NAME, PROBLEM_COLUMNS, [(p.path, p.kind, p.what) for p in problems])
    _write(
        out, OVERLAPS_NAME, OVERLAP_COLUMNS, overlap_rows(overlaps, {item.out: item for item, _ in settled})
    )
    compared = (registration_row(item, record) for item, record in settled)
    _write(out, REGISTRATION_NAME, REGISTRATION_COLUMNS, sorted(filter(None, compared)))
    rows = sorted(_index_row(item, record) for item, record in settled if record.out_bytes)
    _write(out, INDEX_NAME, INDEX_COLUMNS, rows)


def _write(out: Path, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with wrap_write_errors(out / name):
        write_csv(out / name, columns, rows)


def _index_row(item: Item, record: Record) -> tuple[Any, ...]:
    e = item.seen.entry
    named = (e.family, e.city, e.location, e.modality, e.capture, e.mosaic, e.taken, e.split, record.out)
    size = (record.height_px, record.width_px, f"{record.valid_fraction:.6f}")
    low, high = ("", "") if record.stretch is None else (f"{value:g}" for value in record.stretch)
    right, down = (f"{value:g}" for value in record.shift_px)
    return (*named, *size, item.key, record.sha256, low, high, right, down)


def too_little_cover(settled: Finished, least: float) -> list[Problem]:
    """A problem for each capture that was left out for covering less than `least` of its grid."""
    return [
        Problem(
            item.key,
            "cover",
            f"covers {100 * record.valid_fraction:.1f} % of its location, less than {100 * least:.0f} %",
        )
        for item, record in settled
        if not record.out_bytes
    ]


def prune_orphans(out: Path, known: Mapping[str, Record], settled: Finished) -> int:
    """Deletes results whose source is gone or no longer gives one; returns how many.

    Raises:
        DataError: one cannot be deleted.
    """
    kept = {record.out for _, record in settled if record.out_bytes}
    gone = sorted({record.out for record in known.values() if record.out_bytes} - kept)
    with wrap_write_errors(out):
        for name in gone:
            (out / name).unlink(missing_ok=True)
            _take_empty_folders(out, name)
    return len(gone)


def _take_empty_folders(out: Path, name: str) -> None:
    for parent in list((out / name).parents)[: name.count("/")]:
        if not parent.is_dir() or any(parent.iterdir()):
            return
        parent.rmdir()
