"""`pbvs data scan | prepare | show | synth`: scans, prepares, shows and synthesises archives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, OverwriteFlag, SolutionOption, TasksFolderOption

if TYPE_CHECKING:
    from pbvs.graph.spec import TaskSpec
    from pbvs.prepare.prepare import PreparedSummary

app = typer.Typer(help="The archives: scan, prepare, show, or synthesise some.", no_args_is_help=True)

_MOST_PER_KIND = 3
_MOST_PER_FAMILY = 100


class Infrared(StrEnum):
    """What synthetic infrared depends on."""

    vegetation = "vegetation"
    gray = "gray"


class Uint16(StrEnum):
    """The rules by which 16 bits become 8."""

    full = "full"
    percentile = "percentile"
    percentile_image = "percentile_image"


@app.command()
def scan(
    root: Annotated[Path, typer.Argument(help="Root of the archives, unpacked at any depth.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write a CSV with one row per image.")] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Open every file, also those that an earlier scan has read.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Lists what the archives contain: a summary, what each task can draw from, and the problems found."""
    from pbvs.archives.scan import scan as scan_root
    from pbvs.core.files import write_text

    with console.progress("scan") as advance:
        found = scan_root(root, progress=advance, cache=not no_cache)
    if out is not None:
        write_text(out, found.images.to_csv(index=False, lineterminator="\n"))
    if json:
        console.result_json(found.described())
        return
    summary = found.summary()
    console.table(f"{len(found.images)} images in {root}", list(summary.columns), summary.values.tolist())
    pairs = found.pairable()
    console.table("what each task can draw from", list(pairs.columns), pairs.values.tolist())
    problems = found.problems[["kind", "path", "what"]]
    _show_grouped(problems.itertuples(index=False, name=None))


@app.command()
def prepare(
    root: Annotated[Path, typer.Argument(help="Root of the archives, unpacked at any depth.")],
    out: Annotated[Path, typer.Argument(help="Folder for the aligned captures and their index.")],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Prepare for this task; repeatable; default: all tasks."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=32, help="Side in pixels of a location's grid; default: the task's."),
    ] = None,
    native: Annotated[bool, typer.Option("--native", help="Keep the reference's pixel grid.")] = False,
    uint16: Annotated[
        Uint16 | None,
        typer.Option("--uint16", help="How 16 bits become 8; percentile: one stretch per sensor."),
    ] = None,
    register: Annotated[
        bool | None,
        typer.Option("--register/--no-register", help="Shift SAR onto its optical image where clear."),
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option("--min-overlap", min=0, max=1, help="Fraction of the location a capture must cover."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads; default: one per CPU, up to 8.")
    ] = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    json: JsonFlag = False,
) -> None:
    """Resamples every capture onto its location's grid; does only what is missing or changed.

    Options that are not given come from the task files. Under torchrun or srun the processes share the work.
    """
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.node_training import grid_size_px, prepare_rules
    from pbvs.prepare.prepare import prepare as prepare_root
    from pbvs.prepare.ranks import rank_in

    task_set = TaskSet(tasks_folder(solution, tasks))
    graphs = [task_set.graph(name) for name in task or [name for name in TASKS if name in task_set.names]]
    specs = [graph.spec for graph in graphs]
    size_px = None if native else ((size, size) if size else max(grid_size_px(graph) for graph in graphs))
    rules = prepare_rules(
        specs, uint16=uint16.value if uint16 else None, min_overlap=min_overlap, register=register
    )
    is_first = rank_in(os.environ)[0] == 0  # the other processes are silent
    with console.progress("prepare") if is_first else nullcontext() as advance:
        done = prepare_root(
            root,
            out,
            modalities=sorted({m for s in specs for m in (s.source, s.target)}),
            families=sorted({s.family for s in specs}),
            size_px=size_px,
            rules=rules,
            workers=workers,
            progress=advance,
        )
    if done.first:
        _show_prepared(done, specs, json)


def _show_prepared(done: PreparedSummary, specs: list[TaskSpec], json: bool) -> None:
    """What was written, the split of the locations, and the problems."""
    from pbvs.dataset.index import PreparedData
    from pbvs.dataset.splits import split_report

    prepared = PreparedData.open(done.out)
    splits = []
    for family, fraction in sorted({(spec.family, spec.data.heldout_fraction) for spec in specs}):
        by = "the archive's own" if prepared.archive_holds_out(family) else f"hash, {fraction:g} of all"
        report = split_report(prepared, fraction)
        splits += [{**row, "by": by} for row in report[report.family == family].to_dict("records")]
    if json:
        console.result_json(
            {
                "out": str(done.out),
                "images": done.n_images,
                "made": done.n_made,
                "kept": done.n_kept,
                "deleted": done.n_deleted,
                "compared": done.n_compared,
                "moved": done.n_moved,
                "stretches": done.stretches,
                "fingerprint": done.fingerprint,
                "splits": splits,
                "problems": [{"path": p.path, "kind": p.kind, "what": p.what} for p in done.problems],
            }
        )
        return
    console.result(f"{done.out}: {done.n_images} captures, {done.n_made} written, {done.n_kept} up to date")
    for sensor, stretch_before in done.stretches_before.items():
        now, before = (f"{low:g} to {high:g}" for low, high in (done.stretches[sensor], stretch_before))
        console.result(f"16-bit {sensor}: {now} become black and white (before: {before}), all written again")
    if done.n_compared:
        console.result(
            f"registration: {done.n_moved} of {done.n_compared} SAR captures moved (registration.csv)"
        )
    columns = list(splits[0]) if splits else []
    console.table("training and held-out locations", columns, [list(row.values()) for row in splits])
    _show_grouped((p.kind, p.path, p.what) for p in done.problems)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the synthetic archives.")],
    locations: Annotated[
        int, typer.Option("--locations", min=4, help="Locations over the four cities.")
    ] = 12,
    tiles: Annotated[int, typer.Option("--tiles", min=2, help="EO/SAR tiles.")] = 48,
    test_images: Annotated[int, typer.Option("--test-images", min=1, help="Test inputs per task.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same bytes.")] = 0,
    chip: Annotated[
        int, typer.Option("--chip", min=64, help="Approximate side of a location's chip in pixels.")
    ] = 320,
    infrared: Annotated[Infrared, typer.Option("--infrared", help="gray: exactly 1.3 x the mean of RGB.")] = (
        Infrared.vegetation
    ),
    overwrite: OverwriteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Writes synthetic scenes in the challenge's folder layout, with its nuisances."""
    from pbvs.scenes.synth import make_archives

    with console.progress("synth") as advance:
        written = make_archives(
            out,
            locations=locations,
            tiles=tiles,
            test_images=test_images,
            seed=seed,
            chip_px=chip,
            ir=infrared.value,
            overwrite=overwrite,
            progress=advance,
        )
    if json:
        nuisances = [{"path": str(path), "nuisance": nuisance} for path, nuisance in written.nuisances]
        console.result_json({"out": str(out), "files": written.files, "nuisances": nuisances})
        return
    console.result(f"{out}: {written.files} files, with nuisances on purpose:")
    _show_grouped((nuisance, str(path.relative_to(out)), "") for path, nuisance in written.nuisances)


@app.command()
def show(
    data: Annotated[Path, typer.Argument(help="Folder written by `pbvs data prepare`.")],
    location: Annotated[
        str | None,
        typer.Option("--location", help="LOCATION, or CITY/LOCATION; default: list all locations."),
    ] = None,
    city: Annotated[str | None, typer.Option("--city", help="Only locations of this city.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page to write (.png).")] = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Draws a page of one location: its captures with their masks, and SAR over RGB."""
    from pbvs.core.errors import UsageError
    from pbvs.dataset.index import PreparedData
    from pbvs.report.location import find_location, locations_table, write_page

    prepared = PreparedData.open(data)
    if location is not None:
        found = find_location(prepared, location, city)
        n_captures = write_page(prepared, found, out, overwrite=overwrite)
        console.result(f"{out}: {n_captures} captures of {'/'.join(filter(None, found[1:]))}")
        return
    if out is not None:
        raise UsageError("a page shows one location", next_step="give --location, or leave out --out")
    locations = locations_table(prepared, city)
    head = locations.groupby("family").head(_MOST_PER_FAMILY)
    console.table(f"{len(locations)} locations in {data}", list(head.columns), head.values.tolist())
    if len(head) < len(locations):
        more = len(locations) - len(head)
        console.result(f"... and {more} more; the error for an unknown --location names the nearest")


def _show_grouped(rows: Iterable[tuple[str, str, str]]) -> None:
    """Shows rows of (kind, path, message) by kind, the first few of each; --json has all of them."""
    by_kind: dict[str, list[str]] = {}
    for kind, path, message in rows:
        by_kind.setdefault(kind, []).append(f"{path}: {message}" if message else path)
    for kind, lines in sorted(by_kind.items()):
        console.result(f"{len(lines)} x {kind}")
        for line in lines[:_MOST_PER_KIND]:
            console.result(f"  {line}")
        if len(lines) > _MOST_PER_KIND:
            console.result(f"  ... and {len(lines) - _MOST_PER_KIND} more")
