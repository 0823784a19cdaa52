"""`pbvs data scan | prepare | show | synth`: the archives looked at, made ready to train on, or made up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, OverwriteFlag, SolutionOption, TasksFolderOption

if TYPE_CHECKING:
    from pbvs.graph.spec import TaskSpec
    from pbvs.prepare.prepare import PreparedSummary

app = typer.Typer(help="The archives: look, prepare, or make some.", no_args_is_help=True)

_SHOWN_OF_A_KIND = 3
_LISTED_OF_A_FAMILY = 100


class Infrared(StrEnum):
    """What made infrared is a function of."""

    vegetation = "vegetation"
    gray = "gray"


class Uint16(StrEnum):
    """The 16-bit rules."""

    full = "full"
    percentile = "percentile"
    percentile_image = "percentile_image"


@app.command()
def scan(
    root: Annotated[Path, typer.Argument(help="Root of the archives, unpacked at any depth.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the table there, one row an image (CSV).")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Open every file, also those known from an earlier scan.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """What is there: one row an image, a summary, and the problems found."""
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
        typer.Option("--task", help="Prepare for this task (repeat); default: all that train."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=32, help="Side in pixels of a location's grid; default: the task's."),
    ] = None,
    native: Annotated[bool, typer.Option("--native", help="Keep the reference image's own pixels.")] = False,
    uint16: Annotated[
        Uint16 | None,
        typer.Option("--uint16", help="How 16 bits become 8; percentile: one stretch a sensor."),
    ] = None,
    register: Annotated[
        bool | None,
        typer.Option("--register/--no-register", help="Move SAR onto its optical image where that is clear."),
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option("--min-overlap", min=0, max=1, help="Part of its location that a capture must cover."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads; default: one a CPU, up to 8.")
    ] = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    json: JsonFlag = False,
) -> None:
    """Every capture of a location onto one grid, once; does only what is missing or changed.

    What is not given comes from the task files. Under torchrun or srun the processes share the work.
    """
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.node_training import grid_size_px, prepare_rules
    from pbvs.prepare.prepare import prepare as prepare_root

    task_set = TaskSet(tasks_folder(solution, tasks))
    graphs = [task_set.graph(name) for name in task or [name for name in TASKS if name in task_set.names]]
    specs = [graph.spec for graph in graphs]
    size_px = None if native else ((size, size) if size else max(grid_size_px(graph) for graph in graphs))
    rules = prepare_rules(
        specs, uint16=uint16.value if uint16 else None, min_overlap=min_overlap, register=register
    )
    with _progress_of_the_first("prepare") as advance:
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
        _tell_prepared(done, specs, json)


@contextmanager
def _progress_of_the_first(label: str) -> Iterator[console.Advance | None]:
    """The progress of rank 0, or of one process; the other ranks are silent."""
    from pbvs.prepare.ranks import rank_in

    if rank_in(os.environ)[0] > 0:
        yield None
        return
    with console.progress(label) as advance:
        yield advance


def _tell_prepared(done: PreparedSummary, specs: list[TaskSpec], json: bool) -> None:
    from pbvs.dataset.index import PreparedData
    from pbvs.dataset.splits import split_report

    prepared = PreparedData.open(done.out)
    splits = []
    for family, fraction in sorted({(spec.family, spec.data.heldout_fraction) for spec in specs}):
        by = "the archive's own" if prepared.archive_holds_out(family) else f"hash, {fraction:g} of all"
        report = split_report(prepared, fraction)
        splits += [{**row, "by": by} for row in report[report.family == family].to_dict("records")]
    told = {"out": str(done.out), "images": done.n_images, "made": done.n_made, "kept": done.n_kept}
    if json:
        problems = [{"path": p.path, "kind": p.kind, "what": p.what} for p in done.problems]
        more = {"deleted": done.n_deleted, "compared": done.n_compared, "moved": done.n_moved}
        numbers = {"stretches": done.stretches, "fingerprint": done.fingerprint}
        console.result_json({**told, **more, **numbers, "splits": splits, "problems": problems})
        return
    console.result(
        f"{done.out}: {done.n_images} captures, {done.n_made} made now, {done.n_kept} were up to date"
    )
    for sensor, before in done.stretches_before.items():
        numbers_now = " to ".join(f"{value:g}" for value in done.stretches[sensor])
        was = " to ".join(f"{value:g}" for value in before)
        console.result(
            f"16-bit {sensor}: {numbers_now} become black and white (before: {was}), all made again"
        )
    if done.n_compared:
        console.result(
            f"registration: {done.n_moved} of {done.n_compared} SAR captures moved (registration.csv)"
        )
    columns = list(splits[0]) if splits else []
    console.table("locations to train on and held out", columns, [list(row.values()) for row in splits])
    _show_grouped((p.kind, p.path, p.what) for p in done.problems)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the made archives.")],
    locations: Annotated[
        int, typer.Option("--locations", min=4, help="Locations over the four cities.")
    ] = 12,
    tiles: Annotated[int, typer.Option("--tiles", min=2, help="EO/SAR tiles.")] = 48,
    test_images: Annotated[int, typer.Option("--test-images", min=1, help="Test inputs a task.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")] = 0,
    chip: Annotated[
        int, typer.Option("--chip", min=64, help="Side of a location's chip, about, in pixels.")
    ] = 320,
    infrared: Annotated[Infrared, typer.Option("--infrared", help="gray: exactly 1.3 x the mean of RGB.")] = (
        Infrared.vegetation
    ),
    overwrite: OverwriteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Made scenes in the challenge's own folder layout, with its nuisances."""
    from pbvs.scenes.synth import make_archives

    with console.progress("synth") as advance:
        made = make_archives(
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
        nuisances = [{"path": str(path), "nuisance": words} for path, words in made.nuisances]
        console.result_json({"out": str(out), "files": made.files, "nuisances": nuisances})
        return
    console.result(f"{out}: {made.files} files; made difficult on purpose:")
    _show_grouped((words, str(path.relative_to(out)), "") for path, words in made.nuisances)


@app.command()
def show(
    data: Annotated[Path, typer.Argument(help="A folder that `pbvs data prepare` wrote.")],
    location: Annotated[
        str | None,
        typer.Option("--location", help="LOCATION, or CITY/LOCATION; without it all are listed."),
    ] = None,
    city: Annotated[str | None, typer.Option("--city", help="Only this city's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page (.png).")] = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """A page to look at: a location's captures with their masks, and SAR over RGB."""
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
    listed = locations_table(prepared, city)
    shown = listed.groupby("family").head(_LISTED_OF_A_FAMILY)
    console.table(f"{len(listed)} locations in {data}", list(shown.columns), shown.values.tolist())
    if len(shown) < len(listed):
        console.result(f"... and {len(listed) - len(shown)} more; a wrong --location names the nearest")


def _show_grouped(told: Iterable[tuple[str, str, str]]) -> None:
    """(kind, path, what) by kind, the first few of each; --json has all of them."""
    by_kind: dict[str, list[str]] = {}
    for kind, path, what in told:
        by_kind.setdefault(kind, []).append(f"{path}: {what}" if what else path)
    for kind, found in sorted(by_kind.items()):
        console.result(f"{len(found)} x {kind}")
        for line in found[:_SHOWN_OF_A_KIND]:
            console.result(f"  {line}")
        if len(found) > _SHOWN_OF_A_KIND:
            console.result(f"  ... and {len(found) - _SHOWN_OF_A_KIND} more")
