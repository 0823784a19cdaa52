"""Task files as text: where they lie, what they say before it is validated, and what `--set` changes in them.

A solution is a folder of task files; `solution.toml` in it says what it is. Light to load: a zip is checked
by it without any network.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbvs.core.errors import TaskError, UsageError, did_you_mean

DEFAULT_SOLUTION = "winning2024"
ABOUT = "solution.toml"


@dataclass(frozen=True)
class Solution:
    """A solution that comes with pbvs: its folder's name, what it is, where it was published, its tasks."""

    name: str
    title: str
    source: str
    tasks: tuple[str, ...]
    folder: Path


def solutions_folder() -> Path:
    """The folder of the solutions that come with pbvs: beside the package, or inside an installed one."""
    package = Path(__file__).resolve().parents[1]
    next_to_package = package.parent / "tasks"
    return next_to_package if (next_to_package / DEFAULT_SOLUTION).is_dir() else package / "tasks"


def list_solutions() -> list[Solution]:
    """The solutions that come with pbvs, the default first."""
    found = []
    for about in solutions_folder().glob(f"*/{ABOUT}"):
        raw = tomllib.loads(about.read_text(encoding="utf-8"))
        found.append(
            Solution(
                about.parent.name, raw["title"], raw["source"], tuple(task_names(about.parent)), about.parent
            )
        )
    return sorted(found, key=lambda solution: (solution.name != DEFAULT_SOLUTION, solution.name))


def tasks_folder(solution: str | None = None, folder: Path | None = None) -> Path:
    """The folder of task files to use: `folder`, or that of a solution; the default solution without either.

    Raises:
        UsageError: both are given, or there is no such solution.
    """
    if folder is not None and solution is not None:
        raise UsageError("--tasks and --solution exclude each other", next_step="leave one of them out")
    if folder is not None:
        return folder
    found = solutions_folder() / (solution or DEFAULT_SOLUTION)
    if not (found / ABOUT).is_file():
        known = [one.name for one in list_solutions()]
        raise UsageError(
            f"unknown solution {solution!r}; {did_you_mean(str(solution), known)}",
            next_step="`pbvs solutions` lists them; a folder of your own is named with --tasks",
        )
    return found


def task_names(folder: Path) -> list[str]:
    """The names of the task files in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml") if path.name != ABOUT)


def read_toml(path: Path) -> dict[str, Any]:
    """A task file as written, merged over the one it extends; nothing is validated.

    Raises:
        TaskError: it cannot be read, or is not TOML.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"the task file cannot be read: {error}", where=path) from error
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"the task file is not TOML: {error}", where=path) from error
    if base := raw.pop("extends", None):
        return _merge(read_toml((path.parent / str(base)).resolve()), raw)
    return raw


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `base`, table by table; lists and values are replaced whole."""
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merge(base[key], value) if both else value
    return base


def apply_override(raw: dict[str, Any], key: str, value: Any, path: Path) -> None:
    """Sets the dotted `key` of `raw`, in place.

    Raises:
        TaskError: a part of the key is a value.
    """
    *tables, last = key.split(".")
    table = raw
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise TaskError(f"--set {key}: {name} is a value, not a table", where=path)
    table[last] = value


def parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` as (dotted key, value); the value is read as TOML, else as a plain string.

    Raises:
        UsageError: no `=`, or no key before it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"--set {text!r} is not KEY=VALUE", next_step="for example --set data.draws_per_location=2"
        )
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def split_overrides(texts: Iterable[str], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`TASK.KEY=VALUE` arguments of a command over several tasks, by task.

    Raises:
        UsageError: an argument is not KEY=VALUE, or its first part is no task.
    """
    known = list(names)
    by_task: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, value = parse_override(text)
        task, dot, rest = key.partition(".")
        if not dot or task not in known:
            raise UsageError(
                f"--set {text!r} does not begin with a task; {did_you_mean(task, known)}",
                next_step="for example --set sar2eo.data.draws_per_location=2",
            )
        by_task.setdefault(task, {})[rest] = value
    return by_task
