"""`prepare`: every capture of a location onto one grid, once, as small files that training reads fast."""

from __future__ import annotations

import csv
import io
import math
import time
import warnings
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from pbvs.data.index import INDEX_COLUMNS, INDEX_NAME, SCHEMA, data_fingerprint, read_about
from pbvs.data.layouts import FAMILIES, MODALITIES, PREPARED_MARK, Family, Modality
from pbvs.data.rasters import write_capture
from pbvs.data.records import RECORDS_NAME, Record, content_hash, load_records, save_records
from pbvs.data.scan import PROBLEM_COLUMNS, Problem, Progress, Seen, look
from pbvs.data.stretch import FULL, Stretch, Uint16Rule, percentile_stretch
from pbvs.data.warp import Grid, Valid, onto_grid, read_capture
from pbvs.errors import DataError, ImageError, UsageError, nearest
from pbvs.files import fingerprint, write_json, write_text
from pbvs.pixels import Stored, eight_bits, read_image

PROBLEMS_NAME = "problems.csv"
_SAVE_EVERY_SECONDS = 20.0
_BATCH = 2048  # files handed to the threads at once: keeps memory flat with 180,000 tiles


@dataclass(frozen=True)
class PrepareRules:
    """The choices that change pixels or what is kept; recorded with the data.

    Attributes:
        uint16: how 16-bit images become 8-bit, `full` or `percentile` (see `pbvs.data.stretch`).
        min_overlap: a capture that covers less than this part of its location's grid is left out, in [0,1].
    """

    uint16: Uint16Rule = "full"
    min_overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.uint16 not in get_args(Uint16Rule):
            known = nearest(str(self.uint16), list(get_args(Uint16Rule)))
            raise UsageError(f"no 16-bit rule is called {self.uint16!r}", next_step=known)
        if not 0.0 <= self.min_overlap <= 1.0:
            raise UsageError(f"min_overlap is a part of 1, not {self.min_overlap}")


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


@dataclass(frozen=True)
class _Item:
    """One source file with all that decides its result."""

    seen: Seen
    source: Path
    out: str
    grid: Grid | None  # None: the image stays as it is
    stretch: Stretch | None  # None: the image has 8 bits

    @property
    def key(self) -> str:
        return self.seen.entry.path.as_posix()

    def made_by(self) -> str:
        grid = self.grid.described() if self.grid else None
        return fingerprint([SCHEMA, self.out, grid, self.stretch])


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
    asked = _asked(out, modalities, families, size_px)
    seen, problems = look(root)
    wanted = [one for one in seen if _is_wanted(one, asked)]
    if not wanted:
        raise _nothing_wanted(root, asked)
    about = _about(root, rules, asked, size_px)
    write_json(out / PREPARED_MARK, about)  # "complete": False until the index fits the files again
    old = load_records(out)
    # Filters of warnings are one for all threads, so they are set once, around all work: tiles have no CRS.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        stretches = _stretches(root, seen, rules)
        items, lost = _items(root, seen, wanted, size_px, stretches)
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
        out, len(rows), done.n_made, len(items) - done.n_made - done.n_failed, n_deleted, problems, data_fingerprint(out)
    )


# ---- what is asked for


@dataclass(frozen=True)
class _Asked:
    modalities: tuple[str, ...]
    families: tuple[str, ...]


def _asked(
    out: Path, modalities: Collection[str], families: Collection[str], size_px: tuple[int, int] | None
) -> _Asked:
    for names, known in ((modalities, MODALITIES), (families, FAMILIES)):
        for name in names:
            if name not in known:
                raise UsageError(f"nothing is called {name!r}", next_step=nearest(name, list(known)))
    if size_px is not None and min(size_px) < 1:
        raise UsageError(f"size_px is height and width of at least 1 pixel, not {size_px}")
    if not (out / PREPARED_MARK).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                "the folder holds something else than prepared data", where=out, next_step="name a new or empty folder"
            )
        return _Asked(tuple(sorted(modalities)), tuple(sorted(families)))
    before = read_about(out)
    return _Asked(
        tuple(sorted({*modalities, *before["modalities"]})), tuple(sorted({*families, *before["families"]}))
    )


def _is_wanted(one: Seen, asked: _Asked) -> bool:
    return one.usable and one.entry.family in asked.families and one.entry.modality in asked.modalities


def _nothing_wanted(root: Path, asked: _Asked) -> DataError:
    return DataError(
        f"no usable image of {', '.join(asked.modalities)} in {', '.join(asked.families)} data",
        where=root,
        next_step="`pbvs data scan` tells what is there and what is wrong with it",
    )


def _about(root: Path, rules: PrepareRules, asked: _Asked, size_px: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "complete": False,
        "source": root.resolve().name,
        "modalities": list(asked.modalities),
        "families": list(asked.families),
        "size_px": None if size_px is None else list(size_px),
        "rules": {"uint16": rules.uint16, "min_overlap": rules.min_overlap},
    }


# ---- the plan: one item a file


def _stretches(root: Path, seen: list[Seen], rules: PrepareRules) -> dict[tuple[str, str], Stretch]:
    """The stretch of every (city, modality) that has 16-bit files; over all of them, asked for or not."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for one in seen:
        if one.usable and one.header.dtype == "uint16":
            groups.setdefault((one.entry.city, one.entry.modality), []).append(root / one.entry.path)
    if rules.uint16 == "full":
        return dict.fromkeys(groups, FULL)
    return {group: percentile_stretch(paths, _read_any) for group, paths in groups.items()}


def _items(
    root: Path,
    seen: list[Seen],
    wanted: list[Seen],
    size_px: tuple[int, int] | None,
    stretches: dict[tuple[str, str], Stretch],
) -> tuple[list[_Item], list[Problem]]:
    """One item a wanted file, in order of their results; a location without a grid is a problem."""
    references = _references(seen)
    places = {(one.entry.city, one.entry.location) for one in wanted if one.entry.family == "stack"}
    grids: dict[tuple[str, str], Grid] = {}
    problems: list[Problem] = []
    for place in sorted(places):
        try:
            grids[place] = Grid.of(root / references[place].entry.path).at_size(size_px)
        except ImageError as error:
            problems.append(Problem(references[place].entry.path.as_posix(), "unreadable", error.what))
    items: list[_Item] = []
    for one in wanted:
        e = one.entry
        grid = grids.get((e.city, e.location)) if e.family == "stack" else None
        if e.family == "stack" and grid is None:
            continue
        stretch = stretches[e.city, e.modality] if one.header.dtype == "uint16" else None
        items.append(_Item(one, root / e.path, _out_name(one), grid, stretch))
    return sorted(items, key=lambda item: item.out), problems


def _references(seen: list[Seen]) -> dict[tuple[str, str], Seen]:
    """Per stack location the image whose ground and CRS all others are brought to."""
    rank = {"rgb": 0, "ir": 1, "sar": 2}
    stack = [one for one in seen if one.usable and one.entry.family == "stack"]
    stack.sort(key=lambda one: (rank[one.entry.modality], not one.entry.mosaic, one.entry.path.as_posix()))
    references: dict[tuple[str, str], Seen] = {}
    for one in stack:
        references.setdefault((one.entry.city, one.entry.location), one)
    return references


def _out_name(one: Seen) -> str:
    e = one.entry
    if e.family == "eo_sar":  # flat: a folder for each of 90,000 tiles would cost more than the tiles
        return f"eo_sar/tiles/{e.split}/{e.modality}/{e.capture}.tif"
    return f"stack/{e.city}/{e.location}/{e.modality}/{e.capture}.tif"


# ---- the work on one file


def _read_any(path: Path) -> tuple[Stored, Valid]:
    """A source image with its validity; tiles (no CRS) are valid throughout."""
    try:
        stored, valid, _ = read_capture(path)
    except ImageError:
        stored = read_image(path)
        valid = np.ones(stored.shape[:2], bool)
    return stored, valid


def _prepare_one(item: _Item, known: Record | None, out: Path, rules: PrepareRules) -> tuple[Record, bool]:
    """The record of one file, and whether anything was made; raises `ImageError` or OSError for the source."""
    n_bytes, mtime_ns, sha256 = content_hash(item.source, known)
    made_by = item.made_by()
    if known and (known.sha256, known.made_by) == (sha256, made_by) and known.result_is_there(out):
        if known.out or known.valid_fraction < rules.min_overlap:
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


class _Work:
    """Runs the items in threads and gathers records and problems; what is done survives an interruption."""

    def __init__(self, out: Path, rules: PrepareRules, old: dict[str, Record]) -> None:
        self.records: dict[str, Record] = {}
        self.problems: list[Problem] = []
        self.n_made = 0
        self.n_failed = 0
        self._out, self._rules, self._old = out, rules, old
        self._saved_at = time.monotonic()

    def run(self, items: list[_Item], workers: int, progress: Progress | None) -> _Work:
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

    def _finished(self, pool: ThreadPoolExecutor, items: list[_Item]) -> Iterator[_Item]:
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

    def _note(self, item: _Item, record: Record, made: bool) -> None:
        self.records[item.key] = record
        self.n_made += made
        if not record.out:
            percent = 100 * record.valid_fraction
            what = f"covers {percent:.1f} % of its location, less than {100 * self._rules.min_overlap:.0f} %"
            self.problems.append(Problem(item.key, "cover", what))

    def _note_failure(self, item: _Item, what: str) -> None:
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


def _index_rows(items: list[_Item], records: dict[str, Record]) -> list[tuple[Any, ...]]:
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
    write_text(out / PROBLEMS_NAME, _csv(PROBLEM_COLUMNS, [(p.path, p.kind, p.what) for p in problems]))
    write_text(out / INDEX_NAME, _csv(INDEX_COLUMNS, rows))


def _csv(columns: Collection[str], rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


__all__ = ["PROBLEMS_NAME", "RECORDS_NAME", "PrepareRules", "PreparedSummary", "data_fingerprint", "prepare"]
