"""Size and bands of a submission's images, by the task files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbvs.archives.layouts import BANDS
from pbvs.core.challenge import TASKS
from pbvs.core.errors import TaskError
from pbvs.graph.task_files import apply_override, read_toml, tasks_folder
from pbvs.submission.rules import Expected

PREDICTIONS = "predictions"  # the folder of task folders, in that of a run


def expected_images(
    folder: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Expected]:
    """Size and bands that the images of each of the challenge's tasks must have in a submission.

    Args:
        folder: of task files; None is that of the default solution.
        overrides: task name to dotted keys and values.

    Raises:
        TaskError: a file cannot be read, or its size or target is invalid.
    """
    found = {}
    for task in TASKS:
        path = (folder or tasks_folder()) / f"{task}.toml"
        if not path.is_file():
            continue
        raw = read_toml(path)
        for key, value in (overrides or {}).get(task, {}).items():
            apply_override(raw, key, value, path)
        size, target = raw.get("size_px"), raw.get("target")
        size_px = (size, size) if isinstance(size, int) else tuple(size or ())
        if len(size_px) != 2 or not all(isinstance(side, int) for side in size_px) or target not in BANDS:
            raise TaskError(f"size_px {size!r} or target {target!r} is invalid", where=path)
        found[task] = Expected(size_px=(size_px[0], size_px[1]), bands=BANDS[target])
    return found
