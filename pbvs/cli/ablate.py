"""`pbvs ablate`: the winning solution's ablation table on your own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    DataWorkersOption,
    Device,
    DeviceOption,
    DryRunFlag,
    JsonFlag,
    LayerOption,
    Precision,
    PrecisionOption,
    Rules,
    RulesOption,
    RunsOption,
    SetByTaskOption,
    TargetsOption,
    Weights,
    WeightsOption,
    default_targets,
)
from pbvs.cli.run import StepMonitor


def ablate(
    data: Annotated[Path, typer.Option("--data", help="Root of the archives, unpacked at any depth.")],
    test: Annotated[Path, typer.Option("--test", help="Root of the test inputs, one folder per task.")],
    targets: TargetsOption = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="TOML with the rows; default: the winning solution's.")
    ] = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[Path, typer.Option("--out", help="Folder for predictions, scores and the table.")] = Path(
        "submissions/ablation"
    ),
    set_: SetByTaskOption = None,
    tasks: Annotated[
        Path | None, typer.Option("--tasks", help="Folder of task files; default: tasks/ablation.")
    ] = None,
    weights: WeightsOption = Weights.official,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.fp32,
    data_workers: DataWorkersOption = 0,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Trains what the rows need, each part once, and shows their scores next to the published ones."""
    from pbvs.graph.task_files import split_overrides
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.ablate import ROWS, ablation, ablation_folder, read_rows, write_table
    from pbvs.pipeline.chain import ChainSettings
    from pbvs.pipeline.steps import run_steps
    from pbvs.score.rules import ScoreConfig

    folder = tasks or ablation_folder()
    task_set = TaskSet(folder, split_overrides(set_ or [], TaskSet(folder).names))
    table_rows = read_rows(rows or ablation_folder() / ROWS, task_set)
    monitor = StepMonitor(console.result if dry_run and not json else console.say, step_width=28)
    settings = ChainSettings(
        task_set=task_set,
        tasks=(),
        data=data,
        test=test,
        targets=targets or default_targets(test),
        runs=runs,
        out=out,
        metric_weights=weights.value,
        score_config=ScoreConfig(rules.value, fid_layer),
        accelerator=device.value,
        precision=precision.value,
        extra_data=False,
        data_workers=data_workers,
        progress=monitor.progress,
        warn=console.say,
    )
    plan = ablation(settings, table_rows)
    with monitor:
        run_steps(plan.steps, monitor.event, plan_only=dry_run)
    if dry_run:
        return
    table = write_table(plan, settings)
    if json:
        console.result_json(table)
        return
    _show(table)
    console.result(str(out))


def _show(table: dict[str, Any]) -> None:
    """The table: for each row our scores with their intervals, and the published ones below."""
    from pbvs.core.challenge import TASKS

    rows = []
    for row in table["rows"]:
        cells = []
        for task in TASKS:
            cell = row["scores"].get(task)
            text = f"{cell['score']:.4f}" if cell else "-"
            if cell and cell["interval95"]:
                low, high = cell["interval95"]
                text += f" ({low:.3f} to {high:.3f})"
            cells.append(text)
        rows.append((row["name"], row["combined"] or "-", *cells))
        rows.append(("  published 2024", *(row["published"].get(t, "-") for t in ("combined", *TASKS))))
    title = f"rules {table['rules']}, FID@{table['fid_layer']}, {table['weights']} weights, lower is better"
    console.table(title, ("", "combined", *TASKS), rows)
    if table["left_out"]:
        console.result(f"left out, without test images and targets: {', '.join(table['left_out'])}")
    if table["marked"]:
        console.result(f"{table['marked']}: not to be ranked among the published scores")
