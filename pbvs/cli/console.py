"""Output of commands: results to stdout, progress and logs to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 140
_SECONDS_BETWEEN_LINES = 15.0
_CONTROL = dict.fromkeys(map(ord, "\a\b\v\f\r"))  # characters that no line may contain


@dataclass
class Settings:
    """Options common to every command."""

    verbose: bool = False


SETTINGS = Settings()

Advance = Callable[..., None]
"""Reports progress: `advance(done, total, text="")`."""


def say(line: str, style: str | None = None) -> None:
    """Prints one log line to stderr; `style` is Rich's, for a terminal."""
    if sys.stderr.isatty():
        rich_console(stderr=True).print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    else:
        sys.stderr.write(line.translate(_CONTROL) + "\n")


def result(line: str) -> None:
    """Prints one line of the result to stdout."""
    sys.stdout.write(line.translate(_CONTROL) + "\n")
    sys.stdout.flush()


@cache
def rich_console(*, stderr: bool) -> Console:
    """Rich's console, which is imported only for tables, bars and colours."""
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if is_terminal else _WIDTH_WITHOUT_TERMINAL)


def result_json(value: Any) -> None:
    """Prints one JSON value to stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table to stdout, below a line with the title; columns of numbers are aligned right."""
    from rich.table import Table

    if title:
        result(title)
    rich_table = Table()
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) or row[i] in ("", "-") for row in rows)
        rich_table.add_column(name, justify="right" if rows and numeric else "left", overflow="fold")
    for row in rows:
        rich_table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    rich_console(stderr=False).print(rich_table, markup=False, highlight=False)


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Yields `advance(done, total, text="")`: a bar on a terminal, elsewhere a line every 15 seconds."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def print_line(done: int, total: int, text: str = "") -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                say(f"  {label}: {done}/{total} {text}".rstrip())

        yield print_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=rich_console(stderr=True), transient=True) as bars:
        bar = bars.add_task(label, total=None, text="")

        def move_bar(done: int, total: int, text: str = "") -> None:
            bars.update(bar, completed=done, total=total, text=text)

        yield move_bar


def format_losses(losses: Mapping[str, float]) -> str:
    """Losses as one short text: `G 1.234 D 0.567`."""
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())
