"""What commands write with: results to stdout, progress and logs to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_WIDTH_WITHOUT_TERMINAL = 140
_SECONDS_BETWEEN_LINES = 15.0


@dataclass
class Settings:
    """What the user asked of every command."""

    verbose: bool = False


SETTINGS = Settings()
OUT = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
ERR = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH_WITHOUT_TERMINAL)

Advance = Callable[..., None]


def say(line: str, style: str | None = None) -> None:
    """One line of log to stderr."""
    ERR.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def result(line: str) -> None:
    """One line of result to stdout."""
    OUT.print(line, markup=False, highlight=False, soft_wrap=True)


def result_json(value: Any) -> None:
    """One JSON value to stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table to stdout, `title` in a line before it; numbers stand to the right."""
    if title:
        result(title)
    made = Table()
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) or row[i] in ("", "-") for row in rows)
        made.add_column(name, justify="right" if rows and numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    OUT.print(made, markup=False, highlight=False)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Yields `advance(done, total, words="")`: a bar on a terminal, a line now and then elsewhere."""
    if not ERR.is_terminal:
        yield _lines(label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=ERR, transient=True) as bars:
        bar = bars.add_task(label, total=None, words="")

        def advance(done: int, total: int, words: str = "") -> None:
            bars.update(bar, completed=done, total=total, words=words)

        yield advance


def _lines(label: str) -> Advance:
    last = time.monotonic()

    def advance(done: int, total: int, words: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"  {label}: {done}/{total} {words}".rstrip())

    return advance


def told(terms: dict[str, float]) -> str:
    """Training terms in few words."""
    return " ".join(f"{name} {value:.3f}" for name, value in terms.items())
