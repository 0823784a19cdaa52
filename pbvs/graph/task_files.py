"""Task files as text: where they lie, what they say before it is validated, and what `--set` lays over them.

Light to load: a zip is checked by it without any network.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbvs.core.errors import TaskError, UsageError, did_you_mean


def tasks_folder() -> Path:
    """The folder of the task files that come with pbvs: beside the package, or inside an installed one."""
    package = Path(__file__).resolve().parent
    beside = package.parents[1] / "tasks"
    return beside if (beside / "sar2eo.toml").is_file() else package / "files"


def read_toml(path: Path) -> dict[str, Any]:
    """A task file as it stands, laid over the one it extends; nothing is validated.

    Raises:
        TaskError: it cannot be read, or is no TOML.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"the task file cannot be read: {error}", where=path) from error
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"the task file is not TOML: {error}", where=path) from error
    if base := raw.pop("extends", None):
        return _merged(read_toml((path.parent / str(base)).resolve()), raw)
    return raw


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table; lists and values are replaced whole."""
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merged(base[key], value) if both else value
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
    """`TASK.KEY=VALUE` words of a command over several tasks, by task.

    Raises:
        UsageError: a word is no KEY=VALUE, or its first part is no task.
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
