"""The test inputs that a zip's images are to answer, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pbvs.archives.layouts import inputs_folder
from pbvs.core.pixels import list_images
from pbvs.submission.rules import TASKS, Problem, not_attempted_notes, some_of

_MOST_NAMED = 10


def input_ids(inputs: Path, task: str) -> set[str] | None:
    """The ids (file stems) of a task's test inputs, or None when `inputs` holds none for it.

    Looked for where `pbvs.archives.layouts.inputs_folder` says.
    """
    folder = inputs_folder(inputs, task)
    ids = {path.stem for path in list_images(folder)} if folder else set()
    return ids or None


def compare(stems: Mapping[str, set[str]], inputs: Path) -> tuple[list[Problem], list[str]]:
    """Problems and notes of the ids that a zip holds against those of the test inputs.

    Args:
        stems: for each task that has a folder in the zip, the ids in it.
        inputs: the folder of test inputs, as `input_ids` takes it.
    """
    wanted = {task: ids for task in TASKS if (ids := input_ids(inputs, task)) is not None}
    if not wanted:
        what = "no test inputs are found there, so missing and extra images cannot be told"
        cure = f"name a folder that holds test inputs in folders named {', '.join(TASKS)}"
        return [Problem(str(inputs), what, cure, "missing")], not_attempted_notes(stems)
    problems = [
        problem
        for task, ids in wanted.items()
        if task in stems
        for problem in _differences(task, stems[task], ids)
    ]
    notes = not_attempted_notes(stems, tuple(wanted))
    notes += [f"{task}: no test inputs to compare its ids with" for task in sorted(set(stems) - set(wanted))]
    return problems, notes


def _differences(task: str, found: set[str], wanted: set[str]) -> list[Problem]:
    """Ids of one task that are on one side only."""
    problems = []
    missing, extra = _in_order(wanted - found), _in_order(found - wanted)
    if missing:
        what = (
            f"{len(missing)} of {len(wanted)} images of {task} are missing: {some_of(missing, _MOST_NAMED)}"
        )
        cure = "translate these inputs too: the evaluation wants one image for each"
        problems.append(Problem(f"{task}/", what, cure, "missing"))
    if extra:
        what = f"{len(extra)} images of {task} have no test input: {some_of(extra, _MOST_NAMED)}"
        cure = f"take them out, or name them by their input's id, such as {_in_order(wanted)[0]}.png"
        problems.append(Problem(f"{task}/", what, cure, "extra"))
    return problems


def _in_order(ids: set[str]) -> list[str]:
    """Sorted as people count: 2 before 10."""
    return sorted(ids, key=lambda name: (len(name), name))
