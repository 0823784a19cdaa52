"""Compares the ids of a zip's images with those of the test inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pbvs.archives.layouts import inputs_folder
from pbvs.core.challenge import TASKS
from pbvs.core.pixels import list_images
from pbvs.submission.rules import Problem, not_attempted_notes, some_of

_MOST_NAMED = 10


def compare(ids: Mapping[str, set[str]], inputs: Path | None) -> tuple[list[Problem], list[str]]:
    """Problems and notes of the ids in a zip against those (file stems) of the test inputs.

    Args:
        ids: the ids in the zip, per task that has a folder in it.
        inputs: the root of the test inputs, see `pbvs.archives.layouts.inputs_folder`; None skips the
            comparison and leaves only the notes on tasks that are not attempted.
    """
    if inputs is None:
        return [], not_attempted_notes(ids)
    wanted = {}
    for task in TASKS:
        folder = inputs_folder(inputs, task)
        if images := list_images(folder) if folder else []:
            wanted[task] = {path.stem for path in images}
    if not wanted:
        what = "there are no test inputs, so missing and extra images cannot be found"
        hint = f"name a folder that holds test inputs in folders named {', '.join(TASKS)}"
        return [Problem(str(inputs), what, hint, "missing")], not_attempted_notes(ids)
    problems = []
    for task in [task for task in wanted if task in ids]:
        missing, extra = _in_order(wanted[task] - ids[task]), _in_order(ids[task] - wanted[task])
        if missing:
            what = f"{len(missing)} of {len(wanted[task])} images of {task} are missing"
            hint = "translate these inputs too: the evaluation expects one image per input"
            problems.append(Problem(f"{task}/", f"{what}: {some_of(missing, _MOST_NAMED)}", hint, "missing"))
        if extra:
            what = f"{len(extra)} images of {task} have no test input: {some_of(extra, _MOST_NAMED)}"
            hint = f"remove them, or name them by their input's id, such as {_in_order(wanted[task])[0]}.png"
            problems.append(Problem(f"{task}/", what, hint, "extra"))
    notes = not_attempted_notes(ids, tuple(wanted))
    notes += [
        f"{task}: no test inputs to compare its ids with" for task in sorted(ids.keys() - wanted.keys())
    ]
    return problems, notes


def _in_order(ids: set[str]) -> list[str]:
    """Sorted as people count: 2 before 10."""
    return sorted(ids, key=lambda name: (len(name), name))
