"""Which predictions go into a zip, found and named before any image is decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pbvs.core.errors import SubmissionError, UsageError, did_you_mean
from pbvs.core.pixels import list_images
from pbvs.submission.rules import TASKS, Expected, is_litter, some_of

_RECORD_SUFFIXES = (".json", ".csv")


@dataclass(frozen=True)
class Item:
    """One prediction: its file, its task, and its name in the zip."""

    source: Path
    task: str
    name: str


def plan(predictions: Path, out: Path, expected: Mapping[str, Expected]) -> list[Item]:
    """The predictions under `predictions`, in the zip's order: by task as listed in `TASKS`, then by name.

    Hidden files, operating systems' litter and records (`.json`, `.csv`) are passed over, and so is `out`.

    Raises:
        UsageError: no such folder, or a task whose images nobody described in `expected`.
        SubmissionError: no task folder, an empty one, something that does not belong there, or two files
            for one id.
    """
    if not predictions.is_dir():
        raise UsageError(
            "there is no such folder of predictions",
            where=predictions,
            next_step="name the folder that holds the translated images in one folder a task",
        )
    _refuse_strays(predictions, out)
    tasks = [task for task in TASKS if (predictions / task).is_dir()]
    if not tasks:
        raise SubmissionError(
            "no predictions: there is no task folder",
            where=predictions,
            next_step=f"put the images into folders named exactly {', '.join(TASKS)}",
        )
    for task in tasks:
        if task not in expected:
            raise UsageError(f"size and bands of {task} are not known", next_step="describe every task")
    return [item for task in tasks for item in _plan_task(predictions / task, task)]


def _is_passed_over(path: Path) -> bool:
    return is_litter(path.name) or path.suffix.lower() in _RECORD_SUFFIXES


def _refuse_strays(predictions: Path, out: Path) -> None:
    """Anything beside the task folders: passing over it in silence could mean a misspelt task."""
    for path in sorted(predictions.iterdir()):
        is_task = path.name in TASKS and path.is_dir()
        if is_task or _is_passed_over(path) or path.resolve() == out.resolve():
            continue
        kind = "folder" if path.is_dir() else "file"
        raise SubmissionError(
            f"a {kind} among the predictions that belongs to no task",
            where=path,
            next_step=f"rename it or move it out of the folder; "
            f"{did_you_mean(path.name.casefold(), list(TASKS))}",
        )


def _plan_task(folder: Path, task: str) -> list[Item]:
    images = list_images(folder)
    strays = [p for p in sorted(folder.iterdir()) if p not in set(images) and not _is_passed_over(p)]
    if strays:
        raise SubmissionError(
            f"not a PNG or TIFF among the predictions of {task}: {some_of([p.name for p in strays], 5)}",
            where=strays[0],
            next_step="move it out of the folder, or convert it without loss to PNG",
        )
    if not images:
        raise SubmissionError(
            f"the folder of {task} holds no images",
            where=folder,
            next_step="translate the task's test inputs, or take the empty folder away",
        )
    _refuse_doubles(images, task)
    return [Item(path, task, f"{task}/{path.stem}.png") for path in sorted(images, key=lambda p: p.stem)]


def _refuse_doubles(images: list[Path], task: str) -> None:
    """Two files for one id; ids that differ in case only are one on many disks."""
    by_id: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        by_id[path.stem.casefold()].append(path)
    for paths in by_id.values():
        if len(paths) > 1:
            raise SubmissionError(
                f"{len(paths)} files for one id of {task}: {some_of([p.name for p in paths], 5)}",
                where=paths[0],
                next_step="keep one file for each test input",
            )
