"""Finds and names the predictions that go into a zip, before any image is decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pbvs.core.challenge import TASKS
from pbvs.core.errors import SubmissionError, UsageError, did_you_mean
from pbvs.core.pixels import list_images
from pbvs.submission.rules import Expected, is_system_file, some_of

_RECORD_SUFFIXES = (".json", ".csv")


@dataclass(frozen=True)
class Prediction:
    """One predicted image: its file, its task, and its name in the zip."""

    source: Path
    task: str
    name: str


def plan(predictions: Path, out: Path, expected: Mapping[str, Expected]) -> list[Prediction]:
    """The predictions under `predictions`, in the zip's order: by task as listed in `TASKS`, then by name.

    Hidden files, metadata of operating systems, records (`.json`, `.csv`) and `out` are ignored.

    Raises:
        UsageError: no such folder, or a task that is not in `expected`.
        SubmissionError: no task folder, an empty one, an unknown file or folder (it could be a misspelt
            task), or two files for one id.
    """
    if not predictions.is_dir():
        next_step = "name the folder that holds one folder of translated images per task"
        raise UsageError("there is no such folder of predictions", where=predictions, next_step=next_step)
    for path in sorted(predictions.iterdir()):
        is_task = path.name in TASKS and path.is_dir()
        if is_task or _is_ignored(path) or path.resolve() == out.resolve():
            continue
        what = f"a {'folder' if path.is_dir() else 'file'} among the predictions that belongs to no task"
        hint = did_you_mean(path.name.casefold(), list(TASKS))
        raise SubmissionError(what, where=path, next_step=f"rename it or move it out of the folder; {hint}")
    tasks = [task for task in TASKS if (predictions / task).is_dir()]
    if not tasks:
        next_step = f"put the images into folders named exactly {', '.join(TASKS)}"
        raise SubmissionError("no predictions: no task folder", where=predictions, next_step=next_step)
    for task in tasks:
        if task not in expected:
            raise UsageError(f"size and bands of {task} are unknown", next_step="describe every task")
    planned = []
    for task in tasks:
        folder = predictions / task
        images = list_images(folder)
        strays = [p for p in sorted(folder.iterdir()) if p not in set(images) and not _is_ignored(p)]
        if strays:
            what = (
                f"not a PNG or TIFF among the predictions of {task}: {some_of([p.name for p in strays], 5)}"
            )
            next_step = "move it out of the folder, or convert it losslessly to PNG"
            raise SubmissionError(what, where=strays[0], next_step=next_step)
        if not images:
            next_step = "translate the task's test inputs, or delete the empty folder"
            raise SubmissionError(f"the folder of {task} has no images", where=folder, next_step=next_step)
        by_id = defaultdict(list)
        for path in images:
            by_id[path.stem.casefold()].append(path)  # A.png and a.png are one file on many disks
        for paths in by_id.values():
            if len(paths) > 1:
                what = f"{len(paths)} files for one id of {task}: {some_of([p.name for p in paths], 5)}"
                raise SubmissionError(what, where=paths[0], next_step="keep one file per test input")
        by_stem = sorted(images, key=lambda p: p.stem)
        planned += [Prediction(path, task, f"{task}/{path.stem}.png") for path in by_stem]
    return planned


def _is_ignored(path: Path) -> bool:
    return is_system_file(path.name) or path.suffix.lower() in _RECORD_SUFFIXES
