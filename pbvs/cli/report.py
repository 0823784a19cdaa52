"""`pbvs report`: one HTML page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import OverwriteFlag, RunsOption, SolutionOption, TasksFolderOption
from pbvs.cli.run import beside
from pbvs.core.errors import UsageError


def report(
    submission: Annotated[
        Path,
        typer.Argument(help="Folder with predictions/, score.json and score.csv, of `pbvs run`."),
    ],
    test: Annotated[Path, typer.Option("--test", help="Root of the test inputs, a folder a task.")],
    page: Annotated[Path, typer.Option("--page", help="The HTML file to write.")],
    targets: Annotated[
        Path | None,
        typer.Option("--targets", help="Root of test targets; default: test_targets beside --test."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another such folder, to show beside it.")
    ] = None,
    figure: Annotated[
        list[Path] | None,
        typer.Option("--figure", help="An SVG of `pbvs calibrate --plot`; repeatable."),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=3, help="Most images of a task: best, worst, and some between.")
    ] = 60,
    full: Annotated[
        bool, typer.Option("--full", help="Also write the images in full size beside the page.")
    ] = False,
    runs: RunsOption = Path("runs"),
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    overwrite: OverwriteFlag = False,
) -> None:
    """Makes one page that needs no network: scores, charts, and every image beside its target."""
    from pbvs.core.challenge import TASKS
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import TaskSet
    from pbvs.report.page import Request, Submission, write_page

    if page.exists() and not overwrite:
        raise UsageError("the page is there already", where=page, next_step="give --overwrite")
    where = targets or beside(test)
    if where is None:
        raise UsageError("no targets beside the inputs", where=test, next_step="name them with --targets")
    task_set = TaskSet(tasks_folder(solution, tasks))
    asked = Request(
        Submission(submission),
        test,
        where,
        other=Submission(against) if against else None,
        runs=runs,
        graphs={task: task_set.graph(task).described() for task in TASKS if task in task_set.names},
        figures=figure or (),
        most_images=images,
        full=full,
    )
    with console.progress("report") as advance:
        n_bytes = write_page(asked, page, advance)
    console.result(f"{page}: {n_bytes / 1e6:.1f} MB")
