"""`pbvs train`: trains a task's networks on prepared data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    DataWorkersOption,
    Device,
    DeviceOption,
    DryRunFlag,
    JsonFlag,
    Precision,
    PrecisionOption,
    RunsOption,
    SetOption,
    SolutionOption,
    TasksFolderOption,
    Weights,
    WeightsOption,
)
from pbvs.core.errors import UsageError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from pbvs.pipeline.node_training import NodeTraining
    from pbvs.pipeline.train import Mode


def train(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    data: Annotated[Path, typer.Option("--data", help="Folder written by `pbvs data prepare`.")],
    validation_data: Annotated[
        Path | None,
        typer.Option("--validation-data", help="The held-out locations, prepared at the task's size."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default: TASK in --runs.")] = None,
    runs: RunsOption = Path("runs"),
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh",
            help="Resume even with changed settings / start over (the old run is kept under another name).",
        ),
    ] = None,
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="Default: one, or as torchrun sets.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Number of machines, as for torchrun.")] = 1,
    precision: PrecisionOption = Precision.fp32,
    data_workers: DataWorkersOption = 2,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Trains every network of TASK; the same command resumes an interrupted run."""
    from pbvs.core.device import make_fabric
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import task_set_with
    from pbvs.pipeline.node_training import NodeTraining, check_metric_weights
    from pbvs.pipeline.runs import Runs

    task_set = task_set_with(tasks_folder(solution, tasks), task, set_)
    graph = task_set.graph(task)
    if not graph.trained:
        next_step = f"`pbvs translate {task} ...` runs it without training"
        raise UsageError(f"{task} has no node to train", next_step=next_step)
    folders = Runs(runs, elsewhere={task: out} if out else {})
    trainings = [
        NodeTraining(
            task_set, task, node, data, folders, weights.value, precision.value, validation=validation_data
        )
        for node in graph.trained
    ]
    if dry_run:
        _print_plan(trainings, json)
        return
    for training in trainings:
        check_metric_weights(training.metric_weights_needed, weights.value)
    mode: Mode = "auto" if resume is None else ("resume" if resume else "fresh")
    fabric = make_fabric(device.value, devices, nodes, precision.value)
    for training in trainings:
        _train(training, mode, fabric, data_workers, json)


def _train(training: NodeTraining, mode: Mode, fabric: Fabric, data_workers: int, json: bool) -> None:
    """Trains one network and prints the result; of several processes, only the first one prints."""
    from pbvs.pipeline.train import train_node

    first = fabric.is_global_zero
    with console.progress(training.name) if first else nullcontext() as advance:

        def report(done: int, total: int, losses: Mapping[str, float]) -> None:
            if advance is not None:
                advance(done, total, console.format_losses(losses))

        warn = console.say if first else None
        result = train_node(training, fabric, report, mode=mode, data_workers=data_workers, warn=warn)
    if not first:
        return
    if not json:
        console.result(result.summary)
        return
    console.result_json(
        {
            "folder": str(training.folder),
            "images": result.outcome.images_seen,
            "best_score": result.outcome.best_score,
            "ended_early": result.outcome.ended_early,
            "seconds": result.outcome.seconds,
        }
    )


def _print_plan(trainings: list[NodeTraining], json: bool) -> None:
    """For each network: its folder, data and sizes, and what decides its weights."""
    plans = [
        {
            "folder": str(training.folder),
            "data": str(training.prepared),
            "size_px": list(training.size_px),
            "made_of": training.provenance(),
        }
        for training in trainings
    ]
    if json:
        console.result_json([{**p, "task": t.spec.resolved()} for p, t in zip(plans, trainings, strict=True)])
        return
    for plan in plans:
        for key, value in plan.items():
            console.result(f"{key}: {value}")
