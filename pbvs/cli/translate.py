"""`pbvs translate`: a task's graph over a folder of test inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    Device,
    DeviceOption,
    JsonFlag,
    OverwriteFlag,
    RunsOption,
    SetOption,
    TasksFolderOption,
)


def translate(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    inputs: Annotated[Path, typer.Option("--inputs", help="Folder of test inputs, PNG or TIFF of any size.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the images, <input's stem>.png.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Weights file or run folder; default: the run in --runs."),
    ] = None,
    runs: RunsOption = Path("runs"),
    start: Annotated[
        str | None, typer.Option("--from", help="First node to run; the inputs are then what it takes.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last node to run.")] = None,
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    device: DeviceOption = Device.auto,
    overwrite: OverwriteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Translates every image: as many out as in, at exactly the task's size, lossless."""
    from pbvs.tasks.book import book_with
    from pbvs.tasks.runs import runs_with
    from pbvs.tasks.translate import Translator, translate_folder
    from pbvs.training.device import device_of_process

    book = book_with(tasks, task, set_)
    graph = book.graph(task)
    found = runs_with(book, task, runs, checkpoint)
    translator = Translator(book, task, found, device_of_process(device.value), graph.part(start, end))
    with console.progress(f"{task}.translate") as advance:
        done = translate_folder(translator, inputs, out, overwrite=overwrite, progress=advance)
    if json:
        told = {"images": done.images, "made_now": done.made_now, "seconds_per_image": done.seconds_per_image}
        console.result_json({"task": task, "out": str(out), **told})
    else:
        there = "" if done.made_now == done.images else f" ({done.images - done.made_now} were there)"
        console.result(f"{done.images} images{there}, {done.seconds_per_image:.3f} s each: {out}")
