"""`prepare`: every capture of a location onto one grid, once, as small files that training reads fast."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pbvs.data.index import INDEX_COLUMNS, INDEX_NAME, SCHEMA, data_fingerprint, read_about
from pbvs.data.layouts import PREPARED_MARK, Family, Modality
from pbvs.data.plan import (
    Asked,
    Item,
    PrepareRules,
    asked_of,
    is_wanted,
    nothing_wanted,
    plan_items,
    stretches_of,
)
from pbvs.data.rasters import write_capture
from pbvs.data.records import Record, content_hash, load_records, save_records
from pbvs.data.scan import PROBLEM_COLUMNS, Problem, Progress, look
from pbvs.data.stretch import FULL
from pbvs.data.warp import Valid, onto_grid, read_capture, without_place_warnings
from pbvs.errors import DataError, ImageError
from pbvs.files import sweep_unfinished, write_csv, write_json
from pbvs.pixels import eight_bits, read_image

PROBLEMS_NAME = "problems.csv"
_SAVE_EVERY_SECONDS = 20.0
_BATCH = 2048  # files handed to the threads at once: keeps memory flat with 180,000 tiles


@dataclass(frozen=True)
class PreparedSummary:
    """What one call of `prepare` did.

    `n_images` are in the index; of all source files `n_made` were done now and `n_kept` were up to date;
    `n_deleted` results have no source any more. `problems` holds (path, kind, what) of scan and prepare.
    `fingerprint` is that of `data_fingerprint`.
    """

    out: Path
    n_images: int
    n_made: int
    n_kept: int
    n_deleted: int
    problems: list[Problem]
    fingerprint: str


def prepare(
    root: Path,
    out: Path,
    *,
    modalities: Collection[Modality],
    families: Collection[Family],
    size_px: tuple[int, int] | None,
    rules: PrepareRules | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> PreparedSummary:
    """Brings the archives under `root` into `out`, ready to train on; does only what is missing or changed.

    The grid of a stack location is the ground and CRS of its RGB mosaic, else of its first RGB, else of its
    IR, at `size_px`; every capture is warped onto it once (see `pbvs.data.warp`). EO/SAR tiles are kept as
    they are. A file that cannot be read costs that file, and a row in `problems.csv`.

    Args:
        root: the folder with the unpacked archives.
        out: the prepared folder; new, empty, or prepared before. What earlier calls asked for (modalities,
            families) is kept up beside what this call asks for, under this call's size and rules.
        modalities, families: what to prepare.
        size_px: height and width of every stack location's grid; None keeps the reference's own pixels.
        rules: defaults to `PrepareRules()`.
        workers: threads; each opens its own files.
        progress: called with (files done, files in all).

    Raises:
        UsageError: no such root, an unknown modality or family, `out` holds something else.
        DataError: nothing to prepare, or the results cannot be written.
    """
    rules = rules or PrepareRules()
    asked = asked_of(out, modalities, families, size_px)
    seen, problems = look(root)
    wanted = [one for one in seen if is_wanted(one, asked)]
    if not wanted:
        raise nothing_wanted(root, asked)
    about = _about(root, rules, asked, size_px)
    _sweep_unfinished(out)
    write_json(out / PREPARED_MARK, about)  # "complete": False until the index fits the files again
    old = load_records(out)
    with without_place_warnings():
        stretches = stretches_of(root, seen, rules)
        items, lost = plan_items(root, seen, wanted, size_px, stretches)
        done = _Work(out, rules, old).run(items, workers, progress)
    n_deleted = _delete_vanished(out, old, done.records)
    problems = sorted({*problems, *lost, *done.problems}, key=lambda p: (p.path, p.kind, p.what))
    rows = _index_rows(items, done.records)
    if not rows:
        raise DataError(
            "not one image could be prepared", where=root, next_step="see problems.csv in the prepared folder"
        )
    _write_tables(out, rows, problems)
    numbers = {"/".join(filter(None, group)): list(stretch) for group, stretch in sorted(stretches.items())}
    counts = {"images": len(rows), "problems": len(problems)}
    write_json(out / PREPARED_MARK, about | {"complete": True, "stretches": numbers, "counts": counts})
    return PreparedSummary(
        out,
        len(rows),
        done.n_made,
        len(items) - done.n_made - done.n_failed,
        n_deleted,
        problems,
        data_fingerprint(out),
    )


def _about(root: Path, rules: PrepareRules, asked: Asked, size_px: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "complete": False,
        "source": root.resolve().name,
        "modalities": list(asked.modalities),
        "families": list(asked.families),
        "size_px": None if size_px is None else list(size_px),
        "rules": {"uint16": rules.uint16, "min_overlap": rules.min_overlap},
    }


def _sweep_unfinished(out: Path) -> None:
    """Takes away half-written files of an earlier call that was killed."""
    if (out / PREPARED_MARK).exists() and not read_about(out)["complete"]:
        sweep_unfinished(out)


# ---- the work on one file


def _prepare_one(item: Item, known: Record | None, out: Path, rules: PrepareRules) -> tuple[Record, bool]:
    """The record of one file, and whether anything was made; raises ImageError or OSError for the source."""
    n_bytes, mtime_ns, sha256 = content_hash(item.source, known)
    made_by = item.made_by()
    if known and (known.sha256, known.made_by) == (sha256, made_by) and _still_holds(known, out, rules):
        return replace(known, n_bytes=n_bytes, mtime_ns=mtime_ns), False
    if item.grid is None:
        stored = read_image(item.source)
        valid: Valid = np.ones(stored.shape[:2], bool)
    else:
        stored, valid, own = read_capture(item.source)
        stored, valid = onto_grid(stored, valid, own, item.grid)
    fraction = math.floor(float(valid.mean()) * 1e6) / 1e6  # rounded down: 1 means each and every pixel
    height, width = valid.shape
    result = Record(n_bytes, mtime_ns, sha256, made_by, "", 0, height, width, fraction)
    if fraction < rules.min_overlap:
        return result, True
    eight = eight_bits(stored, *(item.stretch or FULL)) * valid[:, :, None]
    write_capture(out / item.out, eight, valid, item.grid)
    return replace(result, out=item.out, out_bytes=(out / item.out).stat().st_size), True


def _still_holds(known: Record, out: Path, rules: PrepareRules) -> bool:
    """Whether what was made before is there, or is not to be there, as the rules have it now."""
    covers_enough = known.valid_fraction >= rules.min_overlap
    return covers_enough == bool(known.out) and known.result_is_there(out)


class _Work:
    """Runs the items in threads and gathers records and problems; what is done survives an interruption."""

    def __init__(self, out: Path, rules: PrepareRules, old: dict[str, Record]) -> None:
        self.records: dict[str, Record] = {}
        self.problems: list[Problem] = []
        self.n_made = 0
        self.n_failed = 0
        self._out, self._rules, self._old = out, rules, old
        self._saved_at = time.monotonic()

    def run(self, items: list[Item], workers: int, progress: Progress | None) -> _Work:
        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for done, item in enumerate(self._finished(pool, items), start=1):
                del item
                if progress:
                    progress(done, len(items))
                if time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
                    self._save()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._save()
        return self

    def _finished(self, pool: ThreadPoolExecutor, items: list[Item]) -> Iterator[Item]:
        for start in range(0, len(items), _BATCH):
            futures = {
                pool.submit(_prepare_one, item, self._old.get(item.key), self._out, self._rules): item
                for item in items[start : start + _BATCH]
            }
            for future in as_completed(futures):
                item = futures[future]
                try:
                    self._note(item, *future.result())
                except ImageError as error:
                    self._note_failure(item, error.what)
                except OSError as error:  # of the source: what is written raises DataError
                    self._note_failure(item, f"the file cannot be read: {error.strerror or error}")
                yield item

    def _note(self, item: Item, record: Record, made: bool) -> None:
        self.records[item.key] = record
        self.n_made += made
        if not record.out:
            percent = 100 * record.valid_fraction
            what = f"covers {percent:.1f} % of its location, less than {100 * self._rules.min_overlap:.0f} %"
            self.problems.append(Problem(item.key, "cover", what))

    def _note_failure(self, item: Item, what: str) -> None:
        self.n_failed += 1
        self.problems.append(Problem(item.key, "unreadable", what))

    def _save(self) -> None:
        # Records not come to yet are kept: an interrupted run must know them the next time.
        save_records(self._out, self._old | self.records)
        self._saved_at = time.monotonic()


# ---- the end: what is no more, and the tables


def _delete_vanished(out: Path, old: dict[str, Record], new: dict[str, Record]) -> int:
    """Deletes results whose source is gone or no longer gives one; returns how many."""
    kept = {record.out for record in new.values()}
    gone = sorted({record.out for record in old.values()} - kept - {""})
    for name in gone:
        (out / name).unlink(missing_ok=True)
        for parent in list((out / name).parents)[: name.count("/")]:
            if not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()
    save_records(out, new)
    return len(gone)


def _index_rows(items: list[Item], records: dict[str, Record]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for item in items:
        record = records.get(item.key)
        if record is None or not record.out:
            continue
        e = item.seen.entry
        size = (record.height_px, record.width_px, f"{record.valid_fraction:.6f}")
        named = (e.family, e.city, e.location, e.modality, e.capture, e.mosaic, e.taken, e.split, record.out)
        rows.append((*named, *size, item.key, record.sha256))
    return sorted(rows)


def _write_tables(out: Path, rows: list[tuple[Any, ...]], problems: list[Problem]) -> None:
    write_csv(out / PROBLEMS_NAME, PROBLEM_COLUMNS, [(p.path, p.kind, p.what) for p in problems])
    write_csv(out / INDEX_NAME, INDEX_COLUMNS, rows)


__all__ = ["PROBLEMS_NAME", "PrepareRules", "PreparedSummary", "data_fingerprint", "prepare"]
