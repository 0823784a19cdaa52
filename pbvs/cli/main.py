"""The command `pbvs`: its commands, and how errors end it.

Exit 0 done, 1 the data or the run is at fault, 2 the command was misused, 130 (143) interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

import pbvs
from pbvs.cli import console
from pbvs.core.errors import PbvsError

COMMANDS = (
    *("tasks", "solutions", "data", "train", "calibrate", "translate", "score", "match"),
    *("submit", "board", "run", "report", "ablate", "weights"),
)
"""Every command is a module here, with a function of its name or, for a group, an `app`."""

# Commands without linear algebra: numpy's BLAS threads would only spin until such a short process ends.
_NO_BLAS = ("tasks", "solutions", "data", "submit", "board")
_INTERRUPTED = 130  # Typer's code for Ctrl-C

# Typer's error of all misuse has no public name of its own: BadParameter < UsageError < this.
_MISUSE: Any = typer.BadParameter.__mro__[2]


def _version(value: bool) -> None:
    if value:
        console.result(f"pbvs {pbvs.__version__}")
        raise typer.Exit


def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    console.SETTINGS.verbose = verbose


def command_line(first: str) -> typer.Typer:
    """The command line: of only one command where the arguments begin with it, else of all.

    Typer reads the signature of every command that it has, which takes longer than most of the light ones.
    """
    app = typer.Typer(
        name="pbvs",
        help="From the archives of the PBVS aerial image translation challenge to a checked zip.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    for name in (first,) if first in COMMANDS else COMMANDS:
        module = import_module(f"pbvs.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    # Threads that spin while they wait make each other wait on a machine with other work: measured ten times
    # slower on two busy cores. Must be set before torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    first = next((arg for arg in sys.argv[1:] if arg not in ("-v", "--verbose")), "")
    if first in _NO_BLAS:
        os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # 2^4 cycles, then they sleep
    try:
        code = command_line(first)(standalone_mode=False)
    except PbvsError as error:
        if console.SETTINGS.verbose:
            console.rich_console(stderr=True).print_exception()
        console.say(f"error: {error}", style="red")
        sys.exit(error.exit_code)
    except _MISUSE as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        console.say("interrupted; the same command continues where it stopped")
    sys.exit(code if isinstance(code, int) else 0)
