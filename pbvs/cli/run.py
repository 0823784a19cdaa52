"""`pbvs run`: the whole chain, without the steps that are up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
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
    LayerOption,
    Precision,
    PrecisionOption,
    Rules,
    RulesOption,
    RunsOption,
    SetByTaskOption,
    SolutionOption,
    TargetsOption,
    TasksFolderOption,
    Weights,
    WeightsOption,
    default_targets,
)

if TYPE_CHECKING:
    from pbvs.pipeline.steps import Event


def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Default: all four tasks.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Root of the archives, unpacked at any depth.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Root of the test inputs, one folder per task.")
    ] = None,
    targets: TargetsOption = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[Path, typer.Option("--out", help="Folder for predictions, score and zip.")] = Path(
        "submissions/latest"
    ),
    start: Annotated[str | None, typer.Option("--from", help="First step, named as in --dry-run.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last step.")] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="STEP", help="Accept the existing results of a step as up to date."),
    ] = None,
    set_: SetByTaskOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    weights: WeightsOption = Weights.official,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    extra_data: Annotated[bool, typer.Option("--extra-data/--no-extra-data", help="For the readme.")] = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.fp32,
    data_workers: DataWorkersOption = 0,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Runs from the archives to a checked zip; the same command again does only what has changed."""
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import split_overrides, tasks_folder
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.chain import ChainSettings, chain
    from pbvs.pipeline.steps import chosen_steps, run_steps
    from pbvs.score.results import read_score
    from pbvs.score.rules import ScoreConfig

    folder = tasks_folder(solution, tasks)
    # A plan is a result; while steps run, what they report is a log.
    monitor = StepMonitor(console.result if dry_run and not json else console.say, step_width=24)
    settings = ChainSettings(
        task_set=TaskSet(folder, split_overrides(set_ or [], TaskSet(folder).names)),
        tasks=tuple(names or TASKS),
        data=data,
        test=test,
        targets=targets or default_targets(test),
        runs=runs,
        out=out,
        metric_weights=weights.value,
        score_config=ScoreConfig(rules.value, fid_layer),
        accelerator=device.value,
        precision=precision.value,
        extra_data=extra_data,
        data_workers=data_workers,
        progress=monitor.progress,
        warn=console.say,
    )
    steps = chosen_steps(chain(settings), start, end)
    with monitor:
        run_steps(steps, monitor.event, plan_only=dry_run, accepted=accept or [])
    score = None
    if not dry_run and any(step.name == "score" for step in steps):
        score = read_score(settings.score_json)
    if json:
        events = [e for e in monitor.events if e.state != "doing"]
        done = [{"step": e.step, "state": e.state, "words": e.message} for e in events]
        console.result_json({"steps": done, "score": score})
        return
    if score:
        _show_above_board(score)
    for path in settings.results():
        if path.exists() and not dry_run:
            console.result(str(path))


class StepMonitor:
    """Shows what the steps of a run report: a line per event, and a progress bar of the current step."""

    def __init__(self, write: Callable[[str], None], step_width: int) -> None:
        self.events: list[Event] = []
        self._write, self._step_width = write, step_width
        self._stack = ExitStack()
        self._step = ""
        self._advance: console.Advance | None = None

    def __enter__(self) -> StepMonitor:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_bar()

    def event(self, event: Event) -> None:
        """Writes what happened to a step, and keeps it in `events`."""
        self._close_bar()
        self.events.append(event)
        self._write(f"{event.step:<{self._step_width}} {event.state}: {event.message}")

    def progress(self, step: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        """Moves the step's bar; see `pbvs.pipeline.chain.ChainProgress`."""
        if self._advance is None or step != self._step:
            self._close_bar()
            self._step, self._advance = step, self._stack.enter_context(console.progress(step))
        self._advance(done, total, console.format_losses(losses))

    def _close_bar(self) -> None:
        self._stack.close()
        self._advance = None


def _show_above_board(score: dict) -> None:
    """The scores of this run above the published leaderboard of the same rules."""
    from pbvs.core.challenge import TASKS
    from pbvs.score.rules import PUBLISHED

    disclaimer = score["marked"]
    ours = [score["tasks"][t]["score"] if t in score["tasks"] else "-" for t in TASKS]
    rows = [("this run" + (" *" if disclaimer else ""), score["overall"], *ours)]
    rows += [(row.team, row.combined, *(row.scores[t] for t in TASKS)) for row in PUBLISHED[score["rules"]]]
    title = f"rules {score['rules']}, FID@{score['fid_layer']}, lower is better"
    console.table(f"{title}; below this run the published board", ("", "combined", *TASKS), rows)
    if disclaimer:
        console.result(f"* {disclaimer}: not to be ranked among the rows below it")
    if score["missing"]:
        console.result(f"combined counts 1 for each task without a score: {', '.join(score['missing'])}")
