"""`pbvs board`: the ledger next to the published boards; `pbvs board add`: a real score."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, Rules, RulesOption
from pbvs.core.errors import UsageError

if TYPE_CHECKING:
    from pbvs.pipeline.board import Line

app = typer.Typer(help="The local ledger next to the published boards.", invoke_without_command=True)


@app.callback()
def board(context: typer.Context, json: JsonFlag = False) -> None:
    """Shows one list per year's rules, the lowest score first; stand-in scores are not ranked."""
    if context.invoked_subcommand is not None:
        return
    from pbvs.core.challenge import TASKS
    from pbvs.pipeline.board import boards, to_json
    from pbvs.submission.ledger import DAILY_QUOTA, Ledger

    ledger = Ledger()
    entries = ledger.entries()
    today = datetime.now(UTC).date().isoformat()
    found, used = boards(entries), ledger.uploads_on(today)
    if json:
        console.result_json(
            {"ledger": str(ledger.path), "today": today, "uploads_today": used, "boards": to_json(found)}
        )
        return
    for one in found:
        rows = [(str(n), *_cells(line)) for n, line in enumerate(one.ranked, start=1)]
        rows += [("-", *_cells(line)) for line in one.unranked]
        title = f"rules {one.rules} (P = {'L2' if one.rules == '2024' else 'L1'}), lower is better"
        console.table(title, ("rank", "", "combined", *TASKS, ""), rows)
        if one.unranked:
            console.result("-: stand-in weights, not comparable, so not ranked")
    console.result("the site itself sorts the other way and shows the worst first")
    console.result(f"{ledger.path}: {len(entries)} rows; board scores entered today: {used} of {DAILY_QUOTA}")


def _cells(line: Line) -> tuple[str, ...]:
    from pbvs.core.challenge import TASKS

    scores = (f"{line.scores[task]:.4g}" if task in line.scores else "-" for task in TASKS)
    source = "published" if line.source == "published" else f"{line.source}, {line.at[:16]}"
    return (line.name, f"{line.combined:.4g}", *scores, ", ".join(filter(None, (source, line.note))))


@app.command()
def add(
    zip_path: Annotated[Path, typer.Argument(metavar="ZIP", help="The uploaded zip.")],
    combined: Annotated[float, typer.Option("--combined", help="The board's combined score.")],
    sar2eo: Annotated[float | None, typer.Option("--sar2eo")] = None,
    sar2rgb: Annotated[float | None, typer.Option("--sar2rgb")] = None,
    rgb2ir: Annotated[float | None, typer.Option("--rgb2ir")] = None,
    sar2ir: Annotated[float | None, typer.Option("--sar2ir")] = None,
    rules: RulesOption = Rules.y2026,
    at: Annotated[
        datetime | None, typer.Option("--at", help="Time of the upload (UTC); default: now.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="A note for yourself.")] = "",
) -> None:
    """Enters the real board's score of a zip, and counts it among that day's uploads."""
    from pbvs.core.files import sha256_of_file
    from pbvs.submission.ledger import DAILY_QUOTA, Ledger

    if not zip_path.is_file():
        raise UsageError("there is no such zip", where=zip_path)
    by_task = {"sar2eo": sar2eo, "sar2rgb": sar2rgb, "rgb2ir": rgb2ir, "sar2ir": sar2ir}
    scores = {task: score for task, score in by_task.items() if score is not None}
    for name, score in {"combined": combined, **scores}.items():
        if not 0.0 <= score <= 4.0:
            raise UsageError(f"{name} cannot be {score:g}", next_step="scores of the board lie in 0 to 4")
    moment = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    ledger, sha256 = Ledger(), sha256_of_file(zip_path)
    is_ours = any(entry.value["sha256"] == sha256 for entry in ledger.entries("build"))
    row = {"sha256": sha256, "rules": rules.value, "combined": combined, "scores": scores, "note": note}
    number = ledger.add("board", row, moment)
    if not is_ours:
        console.say("warning: no build of this zip is in the ledger", style="yellow")
    used = ledger.uploads_on(moment.date().isoformat())
    console.result(f"row {number}: {combined:g} for {zip_path}; {used} of {DAILY_QUOTA} uploads of that day")
    if used >= DAILY_QUOTA:
        console.say("warning: the uploads of that day are used up", style="yellow")
    elif used == DAILY_QUOTA - 1:
        console.say("warning: one upload is left for that day", style="yellow")
