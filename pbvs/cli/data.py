"""`pbvs data scan | prepare | synth`: what is in the archives, made ready to train on, or made up."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, OverwriteFlag, TasksFolderOption

app = typer.Typer(help="The archives: look, prepare, or make some.", no_args_is_help=True)

_SHOWN_OF_A_KIND = 3


class Infrared(StrEnum):
    """What made infrared is a function of."""

    vegetation = "vegetation"
    gray = "gray"


@app.command()
def scan(
    root: Annotated[Path, typer.Argument(help="Root of the archives, unpacked at any depth.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the table there, one row an image (CSV).")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """What is there: one row an image, a summary, and the problems found."""
    from pbvs.data.scan import scan as scan_root
    from pbvs.files import write_text

    with console.progress("scan") as advance:
        found = scan_root(root, progress=advance)
    if out is not None:
        write_text(out, found.images.to_csv(index=False, lineterminator="\n"))
    if json:
        console.result_json(
            {"images": found.images.to_dict("records"), "problems": found.problems.to_dict("records")}
        )
        return
    summary = found.summary()
    console.table(f"{len(found.images)} images in {root}", list(summary.columns), summary.values.tolist())
    pairs = found.pairable()
    console.table("locations that give pairs", list(pairs.columns), pairs.values.tolist())
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
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
    tasks: TasksFolderOption = None,
    json: JsonFlag = False,
) -> None:
    """Every capture of a location onto one grid, once; does only what is missing or changed."""
    from pbvs.data.prepare import PrepareRules
    from pbvs.data.prepare import prepare as prepare_root
    from pbvs.tasks.book import CHALLENGE_TASKS, TaskBook
    from pbvs.tasks.train import grid_size_px

    book = TaskBook(tasks)
    graphs = [book.graph(name) for name in task or CHALLENGE_TASKS]
    specs = [graph.spec for graph in graphs]
    size_px = None if native else ((size, size) if size else max(grid_size_px(graph) for graph in graphs))
    rules = PrepareRules(uint16=specs[0].data.uint16, min_overlap=min(s.data.min_overlap for s in specs))
    with console.progress("prepare") as advance:
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
    told = {"out": str(out), "images": done.n_images, "made": done.n_made, "kept": done.n_kept}
    if json:
        problems = [{"path": p.path, "kind": p.kind, "what": p.what} for p in done.problems]
        console.result_json({**told, "fingerprint": done.fingerprint, "problems": problems})
        return
    console.result(f"{out}: {done.n_images} captures, {done.n_made} made now, {done.n_kept} were up to date")
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
    from pbvs.data.synth import make_archives

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
