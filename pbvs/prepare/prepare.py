"""`prepare`: every capture of a location onto one grid, once, as small files that training reads fast.

A prepared folder holds the captures as GeoTIFFs (`stack/CITY/LOCATION/MODALITY/`, `eo_sar/tiles/`) and

* `index.csv`, one row per capture; `prepared.json`, the rules, stretches, counts and versions;
* `problems.csv`, every problem by source path and kind: those of the scan, `unreadable`, `cover` (left out
  for covering too little), `overlap` (two captures that share too little);
* `overlaps.csv` and `registration.csv`, see `pbvs.prepare.overlaps` and `pbvs.prepare.registration`;
* `hashes.jsonl` and `histograms.json`, caches that save work the next time.

Under `torchrun` or SLURM each rank makes the same call; the ranks share the work (see `pbvs.prepare.ranks`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio

import pbvs
from pbvs.archives.layouts import FAMILIES, PREPARED_MARK, Family, Modality
from pbvs.archives.scan import Problem, ScannedImage, scan_files
from pbvs.core import versions
from pbvs.core.errors import DataError
from pbvs.core.files import remove_partials, write_json
from pbvs.core.pixels import no_georeference_warnings
from pbvs.core.types import Progress
from pbvs.prepare.histograms import group_stretches
from pbvs.prepare.overlaps import overlaps_of, partial_pairs, too_small_overlaps
from pbvs.prepare.plan import (
    FamilyLocation,
    Item,
    LocationKey,
    PrepareRules,
    Request,
    family_location,
    plan_items,
    request_for,
    sixteen_bit_groups,
)
from pbvs.prepare.prepared_folder import SCHEMA, Overlap, data_fingerprint, read_about, read_overlaps
from pbvs.prepare.ranks import Ranks, rank_in, ranks_together, shares
from pbvs.prepare.records import Contents, load_records, merge_journals, save_records, wrap_write_errors
from pbvs.prepare.stretch import FULL, Stretch
from pbvs.prepare.tables import Finished, prune_orphans, too_little_cover, write_tables
from pbvs.prepare.work import Work, default_workers, in_threads


@dataclass(frozen=True)
class PreparedSummary:
    """What one call of `prepare` did, on all ranks together.

    Attributes:
        out: the prepared folder.
        n_images: captures in the index.
        n_made: source files whose result this call wrote.
        n_kept: source files whose result was up to date.
        n_deleted: results deleted since their source is gone or not requested any more.
        problems: those of the scan and of this call.
        fingerprint: see `data_fingerprint`.
        n_compared: SAR captures compared with their optical image.
        n_moved: those of them that were shifted.
        stretches: by sensor, of the rules `full` and `percentile`.
        stretches_before: the earlier stretches of sensors whose stretch changed; their captures were redone.
        first: whether this process is rank 0, which reports.
    """

    out: Path
    n_images: int
    n_made: int
    n_kept: int
    n_deleted: int
    problems: list[Problem]
    fingerprint: str
    n_compared: int = 0
    n_moved: int = 0
    stretches: dict[str, Stretch] = field(default_factory=dict)
    stretches_before: dict[str, Stretch] = field(default_factory=dict)
    first: bool = True


def prepare(
    root: Path,
    out: Path,
    *,
    modalities: Collection[Modality],
    families: Collection[Family],
    size_px: tuple[int, int] | None,
    rules: PrepareRules | None = None,
    keep_location: Callable[[LocationKey], bool] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    alone: bool = False,
) -> PreparedSummary:
    """Prepares the archives under `root` in `out` for training; does only what is missing or changed.

    The grid of a stack location is the extent and CRS of its RGB mosaic, else of its first RGB, else of its
    IR, at `size_px`; every capture is warped onto it once (see `pbvs.prepare.capture`). EO/SAR tiles are kept
    as they are. A file that cannot be read costs that file, and a row in `problems.csv`.

    Args:
        root: the folder with the unpacked archives.
        out: the prepared folder; new, empty, or prepared before. The modalities and families of earlier calls
            are kept up to date too, under this call's size, rules and locations.
        modalities, families: what to prepare.
        size_px: height and width of every stack location's grid; None keeps the reference's own pixels.
        rules: defaults to `PrepareRules()`.
        keep_location: called with (city, location), or ("", SPLIT-NAME) of a tile: whether to prepare that
            location; None: all. It applies to this call alone: results at other locations are deleted, like
            those of deleted sources, and the rule `percentile` ignores their pixels; a later call without it
            adds them. All ranks must keep the same locations.
        workers: threads of this process, each opens its own files; None: one per CPU, up to 8.
        progress: called with (files done, files in all) of this rank's share.
        alone: this process does all the work though it is one of several ranks, and the others do not call.

    Raises:
        UsageError: no such root, an unknown modality or family, `out` holds something else.
        DataError: nothing to prepare, the results cannot be written, or another rank failed.
    """
    rules = rules or PrepareRules()
    request = request_for(out, modalities, families, size_px, keep_location)
    images, problems = scan_files(root)
    wanted = [image for image in images if request.wants(image)]
    if not wanted:
        raise request.nothing_found(root)
    environment = {} if alone else os.environ
    if rank_in(environment)[0] == 0:
        _open_folder(root, out, rules, request, size_px)
    with ranks_together(out, environment) as ranks, no_georeference_warnings():
        call = _Call(root, out, rules, size_px, workers or default_workers(environment), progress, ranks)
        done = call.run(images, wanted)
        summary = _finish(call, done, problems) if ranks.first else None
        summary = ranks.broadcast("summary", summary)
    summary["problems"] = [Problem(*problem) for problem in summary["problems"]]
    for name in ("stretches", "stretches_before"):
        summary[name] = {sensor: (low, high) for sensor, (low, high) in summary[name].items()}
    return PreparedSummary(out, **summary, first=ranks.first)


def _open_folder(
    root: Path, out: Path, rules: PrepareRules, request: Request, size_px: tuple[int, int] | None
) -> None:
    """Cleans up a killed call, and writes `prepared.json`, incomplete until the index matches the files."""
    before: dict[str, Any] = {"complete": True, "stretches": {}}
    if (out / PREPARED_MARK).exists():
        before = read_about(out)
    if not before["complete"]:
        for family in FAMILIES:
            remove_partials(out / family)
        for part in out.glob(".*.part*"):
            part.unlink(missing_ok=True)
    merge_journals(out)
    about = {
        "schema": SCHEMA,
        "prepare": versions.PREPARE,
        "complete": False,
        "source": root.resolve().name,
        "modalities": list(request.modalities),
        "families": list(request.families),
        "size_px": None if size_px is None else list(size_px),
        "rules": rules.described(),
        "versions": {
            "pbvs": pbvs.__version__,
            "rasterio": rasterio.__version__,
            "gdal": rasterio.__gdal_version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
        "stretches": before["stretches"],
    }
    with wrap_write_errors(out):
        write_json(out / PREPARED_MARK, about)


# ---- the work of this rank


@dataclass(frozen=True)
class _Done:
    """The items as finally planned, the work on them, and the rest of what goes into the tables."""

    items: list[Item]
    work: Work
    problems: list[Problem]
    stretches: dict[str, Stretch]
    overlaps: list[Overlap]


@dataclass(frozen=True)
class _Call:
    """One call of `prepare` on one rank."""

    root: Path
    out: Path
    rules: PrepareRules
    size_px: tuple[int, int] | None
    workers: int
    progress: Progress | None
    ranks: Ranks

    def run(self, images: list[ScannedImage], wanted: list[ScannedImage]) -> _Done:
        """Plans as every rank does, does this rank's share, and on rank 0 gathers the others' results."""
        known, cached = load_records(self.out), read_overlaps(self.out)
        n_bytes: Counter[FamilyLocation] = Counter()
        for image in wanted:
            n_bytes[family_location(image)] += image.n_bytes
        # A location belongs to one rank, since SAR is registered to its optical image.
        owners = shares(n_bytes, self.ranks.n_ranks)
        own = [image for image in wanted if owners[family_location(image)] == self.ranks.rank]
        keys = {image.entry.path.as_posix() for image in own}
        groups = sixteen_bit_groups(wanted)
        stretches = dict.fromkeys(groups, FULL) if self.rules.uint16 == "full" else {}
        hashed: dict[str, Contents] = {}
        if self.rules.uint16 == "percentile":
            stretches, hashed = group_stretches(
                *(self.root, self.out, groups, self.rules.uint16_percent, known),
                mine=keys.__contains__,
                ranks=self.ranks,
                workers=self.workers,
            )
        items, problems = plan_items(self.root, images, wanted, self.size_px, self.rules, stretches)
        work = Work(
            *(self.root, self.out, self.rules, known, hashed),
            *(self.ranks, self.workers, self.progress),
            n_total=sum(item.key in keys for item in items),
        )
        done = work.do([item for item in items if item.key in keys])
        overlaps = self._overlaps(done, work, cached)
        parts = self.ranks.gather(
            "done", {"failures": work.failures, "n_written": work.n_written, "overlaps": overlaps}
        )
        if len(parts) > 1:  # on rank 0 of several
            records = load_records(self.out)
            for part in parts[1:]:
                work.merge(records, part["failures"], part["n_written"])
            cached = {}
            for a, b, fraction, provenance in (overlap for part in parts for overlap in part["overlaps"]):
                cached.setdefault(provenance, []).append((a, b, fraction, provenance))
            done = work.do(items)  # what other ranks planned differently (files added or removed meanwhile)
            overlaps = self._overlaps(done, work, cached)
        return _Done(done, work, problems, stretches, overlaps)

    def _overlaps(self, items: list[Item], work: Work, cached: dict[str, list[Overlap]]) -> list[Overlap]:
        finished = ((item, record) for item in items if (record := work.record_of(item)))
        found = in_threads(
            partial_pairs(finished),
            lambda partial: overlaps_of(self.out, partial, cached),
            self.workers,
            self.ranks,
        )
        return sorted(overlap for _, overlaps in found for overlap in overlaps)


# ---- the end, on rank 0


def _finish(call: _Call, done: _Done, scan_problems: list[Problem]) -> dict[str, Any]:
    """Writes the tables and `prepared.json` and deletes orphans; returns the summary, JSON-like."""
    work = done.work
    finished = [(item, record) for item in done.items if (record := work.record_of(item))]
    n_images = sum(record.out_bytes > 0 for _, record in finished)
    if not n_images:
        raise DataError(
            "not one image could be prepared",
            where=call.root,
            next_step="`pbvs data scan` lists the problems",
        )
    problems = _all_problems(done, finished, scan_problems, call.rules.min_overlap)
    n_deleted = prune_orphans(call.out, work.known, finished)
    records = {item.key: record for item, record in finished}
    if work.n_written or records != work.known:
        save_records(call.out, records)
    write_tables(call.out, finished, done.overlaps, problems)
    stretches = {sensor: list(stretch) for sensor, stretch in sorted(done.stretches.items())}
    compared = [record for record in records.values() if record.registration]
    n_moved = sum(record.out_bytes > 0 and record.shift_px != (0.0, 0.0) for record in compared)
    counts = {"images": n_images, "problems": len(problems), "compared": len(compared), "moved": n_moved}
    about = read_about(call.out)
    final = {"complete": True, "stretches": stretches, "counts": counts}
    with wrap_write_errors(call.out):
        write_json(call.out / PREPARED_MARK, about | final)
    return {
        "n_images": n_images,
        "n_made": work.n_written,
        "n_kept": len(done.items) - work.n_written - len(work.failures),
        "n_deleted": n_deleted,
        "problems": [[p.path, p.kind, p.what] for p in problems],
        "fingerprint": data_fingerprint(call.out),
        "n_compared": len(compared),
        "n_moved": n_moved,
        "stretches": stretches,
        "stretches_before": {s: old for s, old in about["stretches"].items() if old != stretches.get(s, old)},
    }


def _all_problems(
    done: _Done, finished: Finished, scan_problems: list[Problem], min_overlap: float
) -> list[Problem]:
    """All problems, sorted; each unreadable file once, whoever found it."""
    failures = done.work.failures
    sources = {item.out: item.key for item, _ in finished}
    problems = {
        *scan_problems,
        *(problem for problem in done.problems if problem.path not in failures),
        *(Problem(key, "unreadable", what) for key, what in failures.items()),
        *too_little_cover(finished, min_overlap),
        *too_small_overlaps(done.overlaps, min_overlap, sources),
    }
    return sorted(problems, key=lambda problem: (problem.path, problem.kind, problem.what))


__all__ = ["PrepareRules", "PreparedSummary", "prepare"]
