"""`pbvs submit build | check`: the zip for the leaderboard."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, OverwriteFlag, SetOption, SolutionOption, TasksFolderOption

if TYPE_CHECKING:
    from pbvs.submission import Expected

AllowConstant = Annotated[
    bool,
    typer.Option("--allow-constant", help="Accept images of one constant value, as from empty inputs."),
]

AllowSize = Annotated[
    bool,
    typer.Option("--allow-size", help="Accept other sizes; the evaluation resamples, at a cost in score."),
]


class Bands(StrEnum):
    """Bands of the images of one-band tasks."""

    task = "task"
    rgb = "rgb"


app = typer.Typer(help="The zip for the leaderboard.", no_args_is_help=True)


@app.command()
def build(
    predictions: Annotated[Path, typer.Argument(help="Folder of a run, or one with a folder per task.")],
    out: Annotated[Path, typer.Option("--out", help="The zip to write.")],
    runtime: Annotated[
        float | None,
        typer.Option("--runtime", help="Seconds per image; default: as measured by `pbvs translate`."),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu/--cpu", help="The hardware of the readme.")] = False,
    extra_data: Annotated[bool, typer.Option("--extra-data/--no-extra-data")] = False,
    description: Annotated[str, typer.Option("--description", help="Free text of the readme.")] = "pbvs",
    compression: Annotated[
        int | None,
        typer.Option(
            "--compression",
            min=0,
            max=9,
            help="Re-encode every PNG: 1 fast, 6 usual, 9 smaller by 1 % in five times the time. "
            "Default: keep plain PNGs.",
        ),
    ] = None,
    bands: Annotated[
        Bands, typer.Option("--bands", help="rgb: one-band tasks as RGB too, which the platform accepts.")
    ] = Bands.task,
    force_large: Annotated[bool, typer.Option("--force-large", help="Allow a zip over 1 GB.")] = False,
    allow_constant: AllowConstant = False,
    allow_size: AllowSize = False,
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    overwrite: OverwriteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Builds the zip from translated images and checks it."""
    from pbvs import submission
    from pbvs.core.errors import UsageError
    from pbvs.pipeline.expected import PREDICTIONS
    from pbvs.pipeline.translation_record import mean_seconds_per_image, provenance
    from pbvs.submission.ledger_rows import note_build

    expected = _expected(tasks, solution, set_)
    if not predictions.is_dir():
        raise UsageError("there is no such folder of predictions", where=predictions)
    if (predictions / PREDICTIONS).is_dir():
        predictions = predictions / PREDICTIONS  # of a run
    folders = [predictions / task for task in expected if (predictions / task).is_dir()]
    seconds = mean_seconds_per_image(folders) if runtime is None and folders else runtime or 0.0
    readme = submission.ReadmeFields(seconds, cpu=not gpu, extra_data=extra_data, description=description)
    with console.progress("submit") as advance:
        built = submission.build(
            predictions,
            out,
            readme,
            expected,
            overwrite=overwrite,
            compression=compression,
            bands=bands.value,
            force_large=force_large,
            allow_constant=allow_constant,
            allow_size=allow_size,
            progress=advance,
        )
    note_build(built, predictions, {task: provenance(predictions / task) for task in built.images})
    for warning in built.warnings:
        console.say(f"warning: {warning}", style="yellow")
    if json:
        console.result_json(
            {"path": str(built.path), "bytes": built.n_bytes, "sha256": built.sha256, "images": built.images}
        )
        return
    counts = ", ".join(f"{task} {n}" for task, n in built.images.items())
    console.result(f"{built.path}: {built.n_bytes / 1e6:.2f} MB, {counts} images; sha256 {built.sha256}")


@app.command()
def check(
    zip_path: Annotated[Path, typer.Argument(metavar="ZIP", help="The zip to check.")],
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help="Root of the test inputs, to compare the names with.")
    ] = None,
    allow_constant: AllowConstant = False,
    allow_size: AllowSize = False,
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    json: JsonFlag = False,
) -> None:
    """Checks any zip against the platform's rules, without unpacking it; exit 1 if it breaks one."""
    from pbvs import submission

    expected = _expected(tasks, solution, set_)
    allow = [kind for kind, on in (("constant", allow_constant), ("size", allow_size)) if on]
    with console.progress("check") as advance:
        report = submission.check(zip_path, expected, inputs=inputs, allow=allow, progress=advance)
    if json:
        problems = [{"path": p.path, "kind": p.kind, "what": p.what, "cure": p.hint} for p in report.problems]
        console.result_json(
            {"ok": not problems, "problems": problems, "notes": report.notes, "images": report.images}
        )
    else:
        if report.problems:
            console.result(report.text())
        for note in report.notes:
            console.result(f"note: {note}")
        counts = ", ".join(f"{task} {n}" for task, n in report.images.items()) or "no images"
        outcome = f"{len(report.problems)} problems" if report.problems else "keeps the platform's rules"
        console.result(f"{zip_path}: {outcome}; {counts}; {report.n_bytes / 1e6:.2f} MB")
    if report.problems:
        raise typer.Exit(1)


def _expected(tasks: Path | None, solution: str | None, overrides: list[str] | None) -> dict[str, Expected]:
    """The size and bands of each task's images."""
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import split_overrides, tasks_folder
    from pbvs.pipeline.expected import expected_images

    return expected_images(tasks_folder(solution, tasks), split_overrides(overrides or [], TASKS))
