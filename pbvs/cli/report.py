"""`pbvs report`: a scored submission as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    OverwriteFlag,
    RunsOption,
    SolutionOption,
    TargetsOption,
    TasksFolderOption,
    default_targets,
)
from pbvs.core.errors import UsageError


def report(
    submission: Annotated[
        Path, typer.Argument(help="Folder written by `pbvs run`: predictions/, score.json and score.csv.")
    ],
    test: Annotated[Path, typer.Option("--test", help="Root of the test inputs, one folder per task.")],
    page: Annotated[Path, typer.Option("--page", help="The HTML file to write.")],
    targets: TargetsOption = None,
    against: Annotated[Path | None, typer.Option("--against", help="Another one, to compare.")] = None,
    figure: Annotated[
        list[Path] | None, typer.Option("--figure", help="An SVG of `pbvs calibrate --plot`; repeatable.")
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=3, help="Most images per task: best, worst, and some between.")
    ] = 60,
    full: Annotated[
        bool, typer.Option("--full", help="Also write the images in full size, next to the page.")
    ] = False,
    runs: RunsOption = Path("runs"),
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Writes one page that needs no network: scores, charts, and every image next to its target."""
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import TaskSet
    from pbvs.report.page import Request, Submission, write_page

    if page.exists() and not overwrite:
        raise UsageError("the page exists already", where=page, next_step="give --overwrite")
    targets = targets or default_targets(test)
    if targets is None:
        raise UsageError("no targets next to the test inputs", where=test, next_step="name them: --targets")
    task_set = TaskSet(tasks_folder(solution, tasks))
    request = Request(
        Submission(submission),
        test,
        targets,
        other=Submission(against) if against else None,
        runs=runs,
        graphs={task: task_set.graph(task).described() for task in TASKS if task in task_set.names},
        figures=figure or (),
        max_images=images,
        full=full,
    )
    with console.progress("report") as advance:
        n_bytes = write_page(request, page, advance)
    console.result(f"{page}: {n_bytes / 1e6:.1f} MB")
