"""The command `pbvs`: its groups, and how errors end it.

Exit 0 done, 1 the data or the run is at fault, 2 the command was misused, 130 (143) interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

import pbvs
from pbvs.cli import (
    ablate,
    board,
    calibrate,
    console,
    data,
    match,
    report,
    run,
    score,
    solutions,
    submit,
    tasks,
    train,
    translate,
    weights,
)
from pbvs.core.errors import PbvsError

app = typer.Typer(
    name="pbvs",
    help="From the archives of the PBVS aerial image translation challenge to a checked zip.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tasks.app, name="tasks")
app.command("solutions")(solutions.solutions)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("calibrate")(calibrate.calibrate)
app.command("translate")(translate.translate)
app.command("score")(score.score)
app.command("match")(match.match)
app.add_typer(submit.app, name="submit")
app.add_typer(board.app, name="board")
app.command("run")(run.run)
app.command("report")(report.report)
app.command("ablate")(ablate.ablate)
app.add_typer(weights.app, name="weights")


_INTERRUPTED = 130  # what Typer makes of Ctrl-C

# Typer's error of all misuse has no public name of its own: BadParameter < UsageError < this.
_MISUSE: Any = typer.BadParameter.__mro__[2]


def _version(asked: bool) -> None:
    if asked:
        console.OUT.print(f"pbvs {pbvs.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    console.SETTINGS.verbose = verbose


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    # OpenMP's threads spin while they wait, and on a machine that others use too they then wait for each
    # other: measured ten times slower on two busy cores. Must stand before torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except PbvsError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except _MISUSE as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        console.say("interrupted; the same command goes on where it was")
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: PbvsError) -> None:
    if console.SETTINGS.verbose:
        console.ERR.print_exception()
    console.ERR.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
