"""`pbvs translate`: a task's graph over a folder of test inputs."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
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
    SolutionOption,
    TasksFolderOption,
)


class TranslatePrecision(StrEnum):
    """The numbers that networks compute with."""

    fp32 = "32-true"
    bf16 = "bf16-mixed"


class Format(StrEnum):
    """The files of the translated images."""

    png = "png"
    tiff = "tiff"


def translate(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    inputs: Annotated[Path, typer.Option("--inputs", help="Folder of test inputs: PNG or TIFF of any size.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the images, <stem of the input>.png.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Weights file or run folder; default: the run in --runs."),
    ] = None,
    runs: RunsOption = Path("runs"),
    start: Annotated[str | None, typer.Option("--from", help="First node; it reads the inputs.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last node.")] = None,
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    device: DeviceOption = Device.auto,
    precision: Annotated[
        TranslatePrecision,
        typer.Option("--precision", help="bf16-mixed: faster on devices with bfloat16, but less exact."),
    ] = TranslatePrecision.fp32,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per pass of the networks.")] = 1,
    strips: Annotated[
        bool,
        typer.Option("--strips", help="Compute in strips, on disk (TMPDIR); automatic when memory runs out."),
    ] = False,
    format: Annotated[
        Format,
        typer.Option("--format", help="tiff keeps the georeference of an input; png is for submissions."),
    ] = Format.png,
    overwrite: OverwriteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Translates every image of a folder to exactly the task's size, lossless.

    `torchrun -m pbvs translate ...` distributes the images over processes, one per device.
    """
    from pbvs.core.device import device_of_process
    from pbvs.core.process_group import default_process_group
    from pbvs.graph.node import InferenceOptions
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import task_set_with
    from pbvs.pipeline.runs import runs_with
    from pbvs.pipeline.translate import translate_folder
    from pbvs.pipeline.translator import Translator

    task_set = task_set_with(tasks_folder(solution, tasks), task, set_)
    run_folders = runs_with(task_set, task, runs, checkpoint)
    part = task_set.graph(task).part(start, end)
    options = InferenceOptions(precision.value, strips)
    translator = Translator(task_set, task, run_folders, device_of_process(device.value), part, options)
    group = default_process_group()
    with console.progress(f"{task}.translate") if group.rank == 0 else nullcontext() as advance:
        done = translate_folder(
            translator,
            inputs,
            out,
            overwrite=overwrite,
            batch=batch,
            format=format.value,
            progress=advance,
            group=group,
        )
    if group.rank:
        return  # only the first process reports
    if json:
        console.result_json(
            {
                "task": task,
                "out": str(out),
                "images": done.images,
                "made_now": done.new_images,
                "seconds_per_image": done.seconds_per_image,
                "weights_from_images": translator.images_seen,
            }
        )
        return
    kept = done.images - done.new_images
    existed = f" ({kept} existed already)" if kept else ""
    console.result(f"{done.images} images{existed}, {done.seconds_per_image:.3f} s each: {out}")
    if done.weights:
        console.result(done.weights)
