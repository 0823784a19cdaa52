"""An ablation as a table of tasks: each row solves the challenge's tasks in its own way, parts are shared.

The rows are data (`tasks/ablation/rows/*.toml`): for each of the challenge's tasks the task file that solves
it, and the published score. A task in several cells is trained and translated once.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pbvs.archives.layouts import inputs_folder
from pbvs.core import pixels
from pbvs.core.challenge import TASKS
from pbvs.core.config import Config
from pbvs.core.device import device_of_process
from pbvs.core.errors import DataError, TaskError, UsageError, did_you_mean
from pbvs.core.files import files_fingerprint, fingerprint, write_csv, write_json
from pbvs.core.versions import SCORE
from pbvs.graph.task_files import solutions_folder
from pbvs.graph.task_set import TaskSet
from pbvs.perceptual.metric_weights import disclaimer
from pbvs.pipeline.chain import ChainSettings, chain, translate_step
from pbvs.pipeline.expected import PREDICTIONS
from pbvs.pipeline.steps import Step
from pbvs.score.folders import score_folder
from pbvs.score.scorer import Scorer

ROWS = "rows/winning_2024.toml"
TABLE_JSON, TABLE_CSV = "ablation.json", "ablation.csv"


class Row(Config):
    """One row: by challenge task, the task that solves it, and the published scores."""

    name: str
    tasks: dict[str, str] = Field(min_length=1)
    published: dict[str, float] = Field(default_factory=dict)


class _Rows(Config):
    rows: tuple[Row, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """A challenge task as one task solves it."""

    challenge_task: str
    task: str


def ablation_folder() -> Path:
    """The task files of the ablation that come with pbvs."""
    return solutions_folder() / "ablation"


def read_rows(path: Path, task_set: TaskSet) -> tuple[Row, ...]:
    """The rows of a table.

    Raises:
        TaskError: the file is missing or invalid, or names an unknown task or one that solves another.
    """
    try:
        rows = _Rows.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).rows
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise TaskError(f"the rows cannot be read: {error}", where=path) from error
    for row in rows:
        for wanted, task in row.tasks.items():
            if wanted not in TASKS:
                raise TaskError(
                    f"{row.name}: {did_you_mean(wanted, list(TASKS))}, not {wanted!r}", where=path
                )
            if task not in task_set.names:
                raise TaskError(
                    f"{row.name}: no task {task!r}; {did_you_mean(task, task_set.names)}", where=path
                )
            spec = task_set.spec(task)
            if f"{spec.source}2{spec.target}" != wanted:
                does = f"{task} translates {spec.source} to {spec.target}"
                raise TaskError(f"{row.name}: {does}, it cannot solve {wanted}", where=path)
    return rows


@dataclass(frozen=True)
class Ablation:
    """The steps of an ablation, and where its table will be.

    Attributes:
        rows: of the table.
        steps: in an order that keeps every dependency.
        left_out: challenge tasks without test inputs or targets, which have no cells.
    """

    rows: tuple[Row, ...]
    steps: list[Step]
    left_out: tuple[str, ...]
    out: Path


def ablation(settings: ChainSettings, rows: Sequence[Row]) -> Ablation:
    """The steps of all cells: prepare, train, translate, score; each part once.

    Args:
        settings: of a chain with its test inputs and targets; `tasks` is ignored.
        rows: of `read_rows`.

    Raises:
        UsageError: no test inputs or no targets are named.
        DataError: none of the challenge tasks has both.
    """
    test, targets = settings.test, settings.targets
    if test is None or targets is None:
        raise UsageError("an ablation is scored", next_step="name --test, and --targets if not beside it")
    wanted = {t for row in rows for t in row.tasks}
    there = [t for t in TASKS if t in wanted and inputs_folder(test, t) and (targets / t).is_dir()]
    if not there:
        raise DataError(f"no inputs with targets for {', '.join(sorted(wanted))}", where=test)
    cells = sorted(
        {Cell(t, task) for row in rows for t, task in row.tasks.items() if t in there},
        key=lambda cell: (TASKS.index(cell.challenge_task), cell.task),
    )
    s = replace(settings, tasks=tuple(cell.task for cell in cells), test=None, targets=None)
    steps = chain(s)
    for cell in cells:
        inputs = inputs_folder(test, cell.challenge_task)
        assert inputs is not None
        steps.append(translate_step(s, cell.task, inputs))
    steps += [_score_step(s, cell, targets / cell.challenge_task) for cell in cells]
    left_out = tuple(t for t in TASKS if t in wanted and t not in there)
    return Ablation(tuple(rows), steps, left_out, s.out)


def _score_json(out: Path, cell: Cell) -> Path:
    return out / "scores" / f"{cell.task}.json"


def _score_step(s: ChainSettings, cell: Cell, targets: Path) -> Step:
    predictions, path = s.out / PREDICTIONS / cell.task, _score_json(s.out, cell)
    name = f"{cell.task}.score"

    def work() -> str:
        report = score_folder(
            Scorer.with_disk_cache(s.metric_weights, device=device_of_process(s.accelerator)),
            cell.challenge_task,
            predictions,
            targets,
            s.score_config,
            progress=lambda done, total: s.progress(name, done, total, {}),
        )
        summary = report.to_json()
        write_json(path, summary)
        return f"{summary['tasks'][cell.challenge_task]['score']:.4f}; {path}"

    def provenance() -> dict[str, str]:
        return {
            "predictions": files_fingerprint(pixels.list_images(predictions)),
            "targets": files_fingerprint(pixels.list_images(targets)),
            "rules": fingerprint([asdict(s.score_config), s.metric_weights]),
            "score": f"version {SCORE}",
        }

    return Step(name, s.record(name), provenance, lambda: [path], work, (f"{cell.task}.translate",))


def write_table(done: Ablation, settings: ChainSettings) -> dict[str, Any]:
    """The table of a finished ablation, also written as JSON and CSV.

    Returns:
        `{"schema": 1, "rules", "fid_layer", "weights", "marked", "left_out", "rows": [{"name", "scores":
        {task: {"score", "interval95", "images", "by"}}, "combined", "published"}]}`; `combined` is the mean
        of the four tasks, None where one has no score.
    """
    rows: list[dict[str, Any]] = []
    for row in done.rows:
        scores: dict[str, dict[str, Any]] = {}
        for wanted in TASKS:
            if wanted not in row.tasks or wanted in done.left_out:
                continue
            path = _score_json(done.out, Cell(wanted, row.tasks[wanted]))
            found = json.loads(path.read_text("utf-8"))["tasks"][wanted]
            scores[wanted] = {
                "score": found["score"],
                "interval95": found["interval95"],
                "images": found["images"],
                "by": row.tasks[wanted],
            }
        total = sum(s["score"] for s in scores.values())
        combined = total / len(TASKS) if len(scores) == len(TASKS) else None
        rows.append({"name": row.name, "scores": scores, "combined": combined, "published": row.published})
    table: dict[str, Any] = {
        "schema": 1,
        "rules": settings.score_config.rules,
        "fid_layer": settings.score_config.fid_layer,
        "arctan_weight": settings.score_config.arctan_weight,
        "weights": settings.metric_weights,
        "marked": disclaimer(settings.metric_weights),
        "left_out": list(done.left_out),
        "rows": rows,
    }
    write_json(done.out / TABLE_JSON, table)
    columns = ("row", "task", "made_by", "images", "score", "low95", "high95", "published", "weights")
    lines = [
        (
            *(row["name"], wanted, s["by"], s["images"], s["score"], *(s["interval95"] or ("", ""))),
            *(row["published"].get(wanted, ""), settings.metric_weights),
        )
        for row in rows
        for wanted, s in row["scores"].items()
    ]
    write_csv(done.out / TABLE_CSV, columns, lines)
    return table
