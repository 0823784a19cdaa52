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
    data: Annotated[Path, typer.Option("--data", help="Folder that `pbvs data prepare` made.")],
    validation_data: Annotated[
        Path | None,
        typer.Option("--validation-data", help="Folder with the held-out locations at the task's size."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default: TASK in --runs.")] = None,
    runs: RunsOption = Path("runs"),
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh",
            help="Go on even with changed settings / start over (the old run is kept aside).",
        ),
    ] = None,
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="How many; default: one, or torchrun's.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines, as torchrun was told.")] = 1,
    precision: PrecisionOption = Precision.fp32,
    data_workers: DataWorkersOption = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan, do nothing.")] = False,
    json: JsonFlag = False,
) -> None:
    """Trains every network of TASK; the same command goes on with a run that was stopped."""
    from pbvs.core.fabric import make_fabric
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import task_set_with
    from pbvs.pipeline.node_training import NodeTraining, check_metric_weights
    from pbvs.pipeline.runs import Runs

    task_set = task_set_with(tasks_folder(solution, tasks), task, set_)
    graph = task_set.graph(task)
    if not graph.trained:
        raise UsageError(
            f"{task} has no node to train", next_step=f"`pbvs translate {task} ...` runs it as it is"
        )
    found = Runs(runs, elsewhere={task: out} if out else {})
    trainings = [
        NodeTraining(
            task_set, task, node, data, found, weights.value, precision.value, validation=validation_data
        )
        for node in graph.trained
    ]
    if dry_run:
        _plan(trainings, json)
        return
    for training in trainings:
        check_metric_weights(training.metric_weights_needed, weights.value)
    mode: Mode = "auto" if resume is None else ("resume" if resume else "fresh")
    fabric = make_fabric(device.value, devices, nodes, precision.value)
    for training in trainings:
        _train(training, mode, fabric, data_workers, json)


def _train(training: NodeTraining, mode: Mode, fabric: Fabric, data_workers: int, json: bool) -> None:
    from pbvs.pipeline.train import train_node

    first = fabric.is_global_zero  # of several processes; the others are silent
    shown = console.progress(f"{training.spec.task}.{training.node.name}") if first else nullcontext(None)
    with shown as advance:

        def report(done: int, total: int, terms: Mapping[str, float]) -> None:
            if advance is not None:
                advance(done, total, console.told(dict(terms)))

        result = train_node(
            training,
            fabric,
            report,
            mode=mode,
            data_workers=data_workers,
            warn=console.say if first else None,
        )
    if not first:
        return
    if json:
        console.result_json(
            {
                "folder": str(training.folder),
                "images": result.outcome.images_seen,
                "best_score": result.outcome.best_score,
                "ended_early": result.outcome.ended_early,
                "seconds": result.outcome.seconds,
            }
        )
    else:
        console.result(result.summary)


def _plan(trainings: list[NodeTraining], json: bool) -> None:
    plans = [
        {
            "folder": str(t.folder),
            "data": str(t.prepared),
            "size_px": list(t.size_px),
            "made_of": t.provenance(),
        }
        for t in trainings
    ]
    if json:
        console.result_json([{**p, "task": t.spec.resolved()} for p, t in zip(plans, trainings, strict=True)])
        return
    for plan in plans:
        for key, value in plan.items():
            console.result(f"{key}: {value}")
