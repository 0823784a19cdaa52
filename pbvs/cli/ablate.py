"""`pbvs ablate`: the winning solution's ablation table on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    DataWorkersOption,
    Device,
    DeviceOption,
    JsonFlag,
    LayerOption,
    Precision,
    PrecisionOption,
    Rules,
    RulesOption,
    RunsOption,
    Weights,
    WeightsOption,
)
from pbvs.cli.run import StepProgress, beside


def ablate(
    data: Annotated[Path, typer.Option("--data", help="Root of the archives, unpacked at any depth.")],
    test: Annotated[Path, typer.Option("--test", help="Root of the test inputs, a folder a task.")],
    targets: Annotated[
        Path | None,
        typer.Option("--targets", help="Root of test targets; default: test_targets beside --test."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="TOML with the rows; default: the winning solution's.")
    ] = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[Path, typer.Option("--out", help="Folder for predictions, scores and table.")] = Path(
        "submissions/ablation"
    ),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TASK.KEY=VALUE", help="Lay a value over a task file (TOML value)."),
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option("--tasks", help="Folder of task files; default: tasks/ablation.")
    ] = None,
    weights: WeightsOption = Weights.official,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.fp32,
    data_workers: DataWorkersOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and why, do nothing.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Trains what the rows need, each part once, and shows their scores beside the published ones."""
    from pbvs.graph.task_files import split_overrides
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.ablate import ROWS, ablation, ablation_folder, read_rows, write_table
    from pbvs.pipeline.chain import ChainSettings
    from pbvs.pipeline.steps import Event, run_steps
    from pbvs.score.rules import ScoreConfig

    folder = tasks or ablation_folder()
    task_set = TaskSet(folder, split_overrides(set_ or [], TaskSet(folder).names))
    found_rows = read_rows(rows or ablation_folder() / ROWS, task_set)
    shower = StepProgress()
    settings = ChainSettings(
        task_set=task_set,
        tasks=(),
        data=data,
        test=test,
        targets=targets or beside(test),
        runs=runs,
        out=out,
        metric_weights=weights.value,
        score_config=ScoreConfig(rules.value, fid_layer),
        accelerator=device.value,
        precision=precision.value,
        extra_data=False,
        data_workers=data_workers,
        progress=shower.show,
        warn=console.say,
    )
    laid_out = ablation(settings, found_rows)

    def tell(event: Event) -> None:
        shower.close()
        write = console.result if dry_run and not json else console.say  # a plan is the result
        write(f"{event.step:<28} {event.state}: {event.message}")

    with shower:
        run_steps(laid_out.steps, tell, plan_only=dry_run)
    if dry_run:
        return
    table = write_table(laid_out, settings)
    if json:
        console.result_json(table)
    else:
        _show(table)
        console.result(str(out))


def _show(table: dict[str, Any]) -> None:
    from pbvs.core.challenge import TASKS

    rows = []
    for row in table["rows"]:
        published = row["published"]
        rows.append((row["name"], row["combined"] or "-", *(_cell(row["scores"].get(t)) for t in TASKS)))
        rows.append(("  published 2024", *(published.get(t, "-") for t in ("combined", *TASKS))))
    judged = f"rules {table['rules']}, FID@{table['fid_layer']}, {table['weights']} weights"
    console.table(f"{judged}, lower is better", ("", "combined", *TASKS), rows)
    if table["left_out"]:
        console.result(f"without test images and targets, so without cells: {', '.join(table['left_out'])}")
    if table["marked"]:
        console.result(f"{table['marked']}: not to be ranked beside the published scores")


def _cell(found: dict[str, Any] | None) -> str:
    """A score with its interval."""
    if found is None:
        return "-"
    low, high = found["interval95"] or (None, None)
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{found['score']:.4f}{interval}"
