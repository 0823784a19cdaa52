"""Output of commands: results to stdout, progress and logs to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 140
_SECONDS_BETWEEN_LINES = 15.0


@dataclass
class Settings:
    """Options common to every command."""

    verbose: bool = False


SETTINGS = Settings()
OUT = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
ERR = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH_WITHOUT_TERMINAL)

Advance = Callable[..., None]
"""Reports progress: `advance(done, total, text="")`."""


def say(line: str, style: str | None = None) -> None:
    """Prints one log line to stderr."""
    ERR.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def result(line: str) -> None:
    """Prints one line of the result to stdout."""
    OUT.print(line, markup=False, highlight=False, soft_wrap=True)


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
    OUT.print(rich_table, markup=False, highlight=False)


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Yields `advance(done, total, text="")`: a bar on a terminal, elsewhere a line every 15 seconds."""
    if not ERR.is_terminal:
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
    with Progress(*columns, console=ERR, transient=True) as bars:
        bar = bars.add_task(label, total=None, text="")

        def move_bar(done: int, total: int, text: str = "") -> None:
            bars.update(bar, completed=done, total=total, text=text)

        yield move_bar


def format_losses(losses: Mapping[str, float]) -> str:
    """Losses as one short text: `G 1.234 D 0.567`."""
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())
