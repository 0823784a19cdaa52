"""`pbvs run`: the whole chain, skipping what is up to date."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

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
    SolutionOption,
    TasksFolderOption,
    Weights,
    WeightsOption,
)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Default: all four tasks.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Root of the archives, unpacked at any depth.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Root of the test inputs, a folder a task.")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option("--targets", help="Root of test targets; default: test_targets beside --test."),
    ] = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[Path, typer.Option("--out", help="Folder for predictions, score and zip.")] = Path(
        "submissions/latest"
    ),
    start: Annotated[str | None, typer.Option("--from", help="First step, as --dry-run names them.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last step.")] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="STEP", help="Take what this step made as up to date."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TASK.KEY=VALUE", help="Lay a value over a task file (TOML value)."),
    ] = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    weights: WeightsOption = Weights.official,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    extra_data: Annotated[bool, typer.Option("--extra-data/--no-extra-data", help="For the readme.")] = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.fp32,
    data_workers: DataWorkersOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and why, do nothing.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """From the archives to a checked zip; the same command again does only what has changed."""
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import split_overrides, tasks_folder
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.chain import ChainSettings, chain
    from pbvs.pipeline.steps import Event, chosen_steps, run_steps
    from pbvs.score.results import read_score
    from pbvs.score.rules import ScoreConfig

    folder = tasks_folder(solution, tasks)
    task_set = TaskSet(folder, split_overrides(set_ or [], TaskSet(folder).names))
    shower = StepProgress()
    settings = ChainSettings(
        task_set=task_set,
        tasks=tuple(names or TASKS),
        data=data,
        test=test,
        targets=targets or beside(test),
        runs=runs,
        out=out,
        metric_weights=weights.value,
        score_config=ScoreConfig(rules.value, fid_layer),
        accelerator=device.value,
        precision=precision.value,
        extra_data=extra_data,
        data_workers=data_workers,
        progress=shower.show,
        warn=console.say,
    )
    events: list[Event] = []

    def tell(event: Event) -> None:
        shower.close()
        events.append(event)
        write = console.result if dry_run and not json else console.say  # a plan is the result
        write(f"{event.step:<24} {event.state}: {event.message}")

    steps = chosen_steps(chain(settings), start, end)
    with shower:
        run_steps(steps, tell, plan_only=dry_run, accepted=accept or [])
    scored = any(step.name == "score" for step in steps) and not dry_run
    if json:
        told = [{"step": e.step, "state": e.state, "words": e.message} for e in events if e.state != "doing"]
        console.result_json({"steps": told, "score": read_score(settings.score_json) if scored else None})
        return
    if scored:
        _show_beside_board(read_score(settings.score_json))
    for path in settings.results():
        if path.exists() and not dry_run:
            console.result(str(path))


def beside(test: Path | None) -> Path | None:
    """The targets that lie beside the test inputs, where there are any."""
    if test is None:
        return None
    beside = test.parent / "test_targets"
    return beside if beside.is_dir() else None


class StepProgress:
    """One bar for the step that is being done."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._label = ""
        self._advance: console.Advance | None = None

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def show(self, step: str, done: int, total: int, terms: Mapping[str, float]) -> None:
        """How far a step is; see `pbvs.pipeline.chain.ChainProgress`."""
        if self._advance is None or step != self._label:
            self.close()
            self._label, self._advance = step, self._stack.enter_context(console.progress(step))
        self._advance(done, total, console.told(dict(terms)))

    def close(self) -> None:
        """Ends the bar."""
        self._stack.close()
        self._advance = None


def _show_beside_board(score: dict) -> None:
    """The scores of this run above the published leaderboard of the same rules."""
    from pbvs.core.challenge import TASKS
    from pbvs.score.rules import PUBLISHED

    disclaimer = score["marked"]
    ours = [score["tasks"][t]["score"] if t in score["tasks"] else "-" for t in TASKS]
    rows = [("this run" + (" *" if disclaimer else ""), score["overall"], *ours)]
    rows += [(row.team, row.combined, *(row.scores[t] for t in TASKS)) for row in PUBLISHED[score["rules"]]]
    judged = f"rules {score['rules']}, FID@{score['fid_layer']}"
    title = f"{judged}, lower is better; below this run the published board"
    console.table(title, ("", "combined", *TASKS), rows)
    if disclaimer:
        console.result(f"* {disclaimer}: not to be ranked among the rows below it")
    if score["missing"]:
        console.result(f"combined counts 1 for each task without a score: {', '.join(score['missing'])}")
