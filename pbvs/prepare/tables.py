"""What `prepare` writes besides the images: its tables; and it deletes results whose source is gone."""

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
    out: Path, finished: Finished, overlaps: Iterable[Overlap], problems: Iterable[Problem]
) -> None:
    """Writes the index and the tables of problems, overlaps and registrations.

    Raises:
        DataError: the disk is full.
    """
    items = {item.out: item for item, _ in finished}
    registrations = sorted(filter(None, (registration_row(item, record) for item, record in finished)))
    index: list[tuple[Any, ...]] = []
    for item, record in finished:
        if not record.out_bytes:
            continue
        e, stretch = item.image.entry, record.stretch
        named = (
            e.family,
            e.city,
            e.location,
            e.modality,
            e.capture,
            e.mosaic,
            e.acquired_at,
            e.split,
            record.out,
        )
        size = (record.height_px, record.width_px, f"{record.valid_fraction:.6f}")
        low, high = ("", "") if stretch is None else (f"{value:g}" for value in stretch)
        right, down = (f"{value:g}" for value in record.shift_px)
        index.append((*named, *size, item.key, record.sha256, low, high, right, down))
    tables: tuple[tuple[str, Sequence[str], Iterable[Sequence[Any]]], ...] = (
        (PROBLEMS_NAME, PROBLEM_COLUMNS, [(p.path, p.kind, p.what) for p in problems]),
        (OVERLAPS_NAME, OVERLAP_COLUMNS, overlap_rows(overlaps, items)),
        (REGISTRATION_NAME, REGISTRATION_COLUMNS, registrations),
        (INDEX_NAME, INDEX_COLUMNS, sorted(index)),
    )
    for name, columns, rows in tables:
        with wrap_write_errors(out / name):
            write_csv(out / name, columns, rows)


def too_little_cover(finished: Finished, min_fraction: float) -> list[Problem]:
    """A problem per capture that was left out for covering less than `min_fraction` of its grid."""
    covers = "covers {:.1f} % of its location, less than {:.0f} %"
    return [
        Problem(item.key, "cover", covers.format(100 * record.valid_fraction, 100 * min_fraction))
        for item, record in finished
        if not record.out_bytes
    ]


def prune_orphans(out: Path, known: Mapping[str, Record], finished: Finished) -> int:
    """Deletes results whose source is gone, not requested any more or without a result; returns how many.

    Raises:
        DataError: one cannot be deleted.
    """
    kept = {record.out for _, record in finished if record.out_bytes}
    orphans = sorted({record.out for record in known.values() if record.out_bytes} - kept)
    with wrap_write_errors(out):
        for name in orphans:
            (out / name).unlink(missing_ok=True)
            for parent in list((out / name).parents)[: name.count("/")]:
                if not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()
    return len(orphans)
