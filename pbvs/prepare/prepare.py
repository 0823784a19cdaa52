"""`prepare`: every capture of a location onto one grid, once, as small files that training reads fast.

A prepared folder holds the captures as GeoTIFFs (`stack/CITY/LOCATION/MODALITY/`, `eo_sar/tiles/`) and

* `index.csv`, a row a capture; `prepared.json`, the rules, their numbers, counts and versions;
* `problems.csv`, everything that is wrong, by source path and kind: those of the scan, `unreadable`, `cover`
  (left out for covering too little), `overlap` (two captures that share too little);
* `overlaps.csv` and `registration.csv`, see `pbvs.prepare.overlaps` and `pbvs.prepare.registration`;
* `hashes.jsonl` and `histograms.json`, what spares work the next time.

Under `torchrun` or SLURM each rank calls it alike; the ranks share the work (see `pbvs.prepare.ranks`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio

import pbvs
from pbvs.archives.layouts import FAMILIES, PREPARED_MARK, Family, Modality
from pbvs.archives.scan import Problem, Progress, ScannedImage, look
from pbvs.core.errors import DataError
from pbvs.core.files import remove_partials, write_json
from pbvs.core.pixels import no_georeference_warnings
from pbvs.prepare.histograms import group_stretches
from pbvs.prepare.overlaps import overlaps_of, partial_pairs, too_small_overlaps
from pbvs.prepare.plan import (
    Item,
    Place,
    PrepareRules,
    Request,
    asked_of,
    is_wanted,
    nothing_wanted,
    plan_items,
    sixteen_bit_groups,
)
from pbvs.prepare.prepared_folder import SCHEMA, Overlap, data_fingerprint, read_about, read_overlaps
from pbvs.prepare.ranks import Ranks, rank_in, ranks_together, shares
from pbvs.prepare.records import (
    Contents,
    Record,
    load_records,
    save_records,
    take_in_journals,
    wrap_write_errors,
)
from pbvs.prepare.stretch import FULL, Stretch
from pbvs.prepare.tables import PROBLEMS_NAME, Finished, prune_orphans, too_little_cover, write_tables
from pbvs.prepare.work import Work, default_workers, in_threads


@dataclass(frozen=True)
class PreparedSummary:
    """What one call of `prepare` did, on all ranks together.

    `n_images` are in the index; of all source files `n_made` were done now and `n_kept` were up to date;
    `n_deleted` results have no source any more. `n_compared` SAR captures were compared with their optical
    image, `n_moved` of them lie shifted. `stretches` holds the numbers of the rule `percentile` by sensor,
    `stretches_before` the earlier ones of those that changed: their captures were made again. `problems`
    holds (path, kind, what) of scan and prepare. `fingerprint` is that of `data_fingerprint`. `first`: this
    process is rank 0, which reports.
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
    workers: int | None = None,
    progress: Progress | None = None,
    alone: bool = False,
) -> PreparedSummary:
    """Brings the archives under `root` into `out`, ready to train on; does only what is missing or changed.

    The grid of a stack location is the ground and CRS of its RGB mosaic, else of its first RGB, else of its
    IR, at `size_px`; every capture is warped onto it once (see `pbvs.prepare.capture`). EO/SAR tiles are kept
    as they are. A file that cannot be read costs that file, and a row in `problems.csv`.

    Args:
        root: the folder with the unpacked archives.
        out: the prepared folder; new, empty, or prepared before. What earlier calls asked for (modalities,
            families) is kept up beside what this call asks for, under this call's size and rules.
        modalities, families: what to prepare.
        size_px: height and width of every stack location's grid; None keeps the reference's own pixels.
        rules: defaults to `PrepareRules()`.
        workers: threads of this process, each opens its own files; None: one a CPU, up to 8.
        progress: called with (files done, files in all); of this rank's share.
        alone: this process does it all, though it is one of several ranks, and the others do not call this.

    Raises:
        UsageError: no such root, an unknown modality or family, `out` holds something else.
        DataError: nothing to prepare, the results cannot be written, or another rank failed.
    """
    rules = rules or PrepareRules()
    asked = asked_of(out, modalities, families, size_px)
    seen, problems = look(root)
    wanted = [one for one in seen if is_wanted(one, asked)]
    if not wanted:
        raise nothing_wanted(root, asked)
    about, environment = _about(root, rules, asked, size_px), {} if alone else os.environ
    before = _opened(out, about) if rank_in(environment)[0] == 0 else {}
    with ranks_together(out, environment) as ranks, no_georeference_warnings():
        call = _Call(root, out, rules, size_px, workers or default_workers(environment), progress, ranks)
        done = call.run(seen, wanted)
        told = _finished(call, done, problems, about, before) if ranks.first else None
        return _summary(out, ranks.broadcast("summary", told), ranks.first)


def _about(
    root: Path, rules: PrepareRules, asked: Request, size_px: tuple[int, int] | None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "complete": False,
        "source": root.resolve().name,
        "modalities": list(asked.modalities),
        "families": list(asked.families),
        "size_px": None if size_px is None else list(size_px),
        "rules": rules.described(),
        "versions": {
            "pbvs": pbvs.__version__,
            "rasterio": rasterio.__version__,
            "gdal": rasterio.__gdal_version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }


def _opened(out: Path, about: dict[str, Any]) -> dict[str, Stretch]:
    """Makes the folder ready, and clears away after a call that was killed; gives the stretches until now."""
    there = (out / PREPARED_MARK).exists()
    before: dict[str, Any] = read_about(out) if there else {"complete": True, "stretches": {}}
    if not before["complete"]:
        for family in FAMILIES:
            remove_partials(out / family)
        for part in out.glob(".*.part*"):
            part.unlink(missing_ok=True)
    take_in_journals(out)
    stretches = before["stretches"]
    with wrap_write_errors(out):  # "complete": False until the index fits the files again
        write_json(out / PREPARED_MARK, about | {"stretches": stretches})
    return {sensor: (low, high) for sensor, (low, high) in stretches.items()}


# ---- the work of this rank


@dataclass(frozen=True)
class _Done:
    """What was done: the items as planned at last, the work on them, and what goes with it."""

    items: list[Item]
    work: Work
    known: dict[str, Record]
    lost: list[Problem]
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

    def run(self, seen: list[ScannedImage], wanted: list[ScannedImage]) -> _Done:
        """Plans as every rank does, does this rank's share, and on rank 0 gathers what the others did."""
        known, remembered = load_records(self.out), read_overlaps(self.out)
        owners = _owners(wanted, self.ranks.n_ranks)
        stretches, hashed = self._stretches(wanted, known, owners)
        items, lost = plan_items(self.root, seen, wanted, self.size_px, self.rules, stretches)
        mine = [item for item in items if owners[item.place] == self.ranks.rank]
        work = Work(
            self.root, self.out, self.rules, known, hashed, self.ranks, self.workers, self._advance(len(mine))
        )
        done = work.do(mine)
        overlaps = self._overlaps(done, work, remembered)
        told = self.ranks.gather(
            "done", {"failures": work.failures, "n_made": work.n_made, "overlaps": overlaps}
        )
        if self.ranks.first and self.ranks.n_ranks > 1:
            done, overlaps = self._gathered(items, work, told)
        return _Done(done, work, known, lost, stretches, overlaps)

    def _gathered(
        self, items: list[Item], work: Work, told: list[dict[str, Any]]
    ) -> tuple[list[Item], list[Overlap]]:
        """Takes in what the others did, and does what they planned otherwise (files that come and go)."""
        records = load_records(self.out)
        for other in told[1:]:
            work.take_in(records, other["failures"], other["n_made"])
        counted: dict[str, list[Overlap]] = {}
        for a, b, fraction, provenance in (overlap for one in told for overlap in one["overlaps"]):
            counted.setdefault(provenance, []).append((a, b, fraction, provenance))
        done = work.do(items)
        return done, self._overlaps(done, work, counted)

    def _stretches(
        self, wanted: list[ScannedImage], known: dict[str, Record], owners: dict[Place, int]
    ) -> tuple[dict[str, Stretch], dict[str, Contents]]:
        groups = sixteen_bit_groups(wanted)
        if self.rules.uint16 != "percentile":
            return (dict.fromkeys(groups, FULL) if self.rules.uint16 == "full" else {}), {}
        place_of = {one.entry.path.as_posix(): _place(one) for one in wanted}
        return group_stretches(
            self.root,
            self.out,
            groups,
            self.rules.uint16_percent,
            known,
            mine=lambda key: owners[place_of[key]] == self.ranks.rank,
            ranks=self.ranks,
            workers=self.workers,
        )

    def _overlaps(self, items: list[Item], work: Work, remembered: dict[str, list[Overlap]]) -> list[Overlap]:
        made = ((item, record) for item in items if (record := work.record_of(item)))
        found = in_threads(
            partial_pairs(made),
            lambda partial: overlaps_of(self.out, partial, remembered),
            self.workers,
            self.ranks,
        )
        return sorted(overlap for _, overlaps in found for overlap in overlaps)

    def _advance(self, total: int) -> Callable[[int], None]:
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            if self.progress and n:
                self.progress(min(done, total), total)

        return advance


def _place(one: ScannedImage) -> Place:
    return one.entry.family, one.entry.city, one.entry.location


def _owners(wanted: list[ScannedImage], n_ranks: int) -> dict[Place, int]:
    """Which rank works on which location: all of it on one, since SAR is registered to its optical image."""
    n_bytes: dict[Place, int] = {}
    for one in wanted:
        n_bytes[_place(one)] = n_bytes.get(_place(one), 0) + one.n_bytes
    return shares(n_bytes, n_ranks)


# ---- the end, on rank 0


def _finished(
    call: _Call, done: _Done, found: list[Problem], about: dict[str, Any], before: dict[str, Stretch]
) -> dict[str, Any]:
    """Writes the tables and the mark, deletes what has no source any more; the summary, JSON-like."""
    work, least = done.work, call.rules.min_overlap
    settled = [(item, record) for item in done.items if (record := work.record_of(item))]
    n_images = sum(record.out_bytes > 0 for _, record in settled)
    if not n_images:
        raise DataError(
            "not one image could be prepared",
            where=call.root,
            next_step="`pbvs data scan` tells what is wrong",
        )
    problems = _problems(done, settled, found, least)
    n_deleted = prune_orphans(call.out, done.known, settled)
    records = {item.key: record for item, record in settled}
    if work.n_made or records != done.known:
        save_records(call.out, records)
    write_tables(call.out, settled, done.overlaps, problems)
    numbers = {sensor: list(stretch) for sensor, stretch in sorted(done.stretches.items())}
    counts = {"images": n_images, "problems": len(problems), **_registrations(settled)}
    with wrap_write_errors(call.out):
        write_json(
            call.out / PREPARED_MARK, about | {"complete": True, "stretches": numbers, "counts": counts}
        )
    changed = {s: list(old) for s, old in before.items() if s in numbers and list(old) != numbers[s]}
    return {
        "n_images": n_images,
        "n_made": work.n_made,
        "n_kept": len(done.items) - work.n_made - len(work.failures),
        "n_deleted": n_deleted,
        "problems": [[p.path, p.kind, p.what] for p in problems],
        "fingerprint": data_fingerprint(call.out),
        "n_compared": counts["compared"],
        "n_moved": counts["moved"],
        "stretches": numbers,
        "stretches_before": changed,
    }


def _registrations(settled: Finished) -> dict[str, int]:
    compared = [record for _, record in settled if record.registered]
    moved = [record for record in compared if record.out_bytes and record.shift_px != (0.0, 0.0)]
    return {"compared": len(compared), "moved": len(moved)}


def _problems(done: _Done, settled: Finished, found: list[Problem], least: float) -> list[Problem]:
    """All problems, sorted; a file that cannot be read is told of once, whoever met it."""
    unreadable = [Problem(key, "unreadable", what) for key, what in done.work.failures.items()]
    lost = [problem for problem in done.lost if problem.path not in done.work.failures]
    keys = {item.out: item.key for item, _ in settled}
    overlaps = too_small_overlaps(done.overlaps, least, keys)
    told = {*found, *lost, *unreadable, *too_little_cover(settled, least), *overlaps}
    return sorted(told, key=lambda problem: (problem.path, problem.kind, problem.what))


def _summary(out: Path, told: dict[str, Any], first: bool) -> PreparedSummary:
    problems = [Problem(*problem) for problem in told["problems"]]
    numbers = {
        name: {sensor: (low, high) for sensor, (low, high) in told[name].items()}
        for name in ("stretches", "stretches_before")
    }
    return PreparedSummary(out, **(told | numbers | {"problems": problems, "first": first}))


__all__ = ["PROBLEMS_NAME", "PrepareRules", "PreparedSummary", "data_fingerprint", "prepare"]
