"""`pbvs solutions`: the solutions that come with pbvs, one per line."""

from __future__ import annotations

from dataclasses import asdict

from pbvs.cli import console
from pbvs.cli.options import JsonFlag


def solutions(json: JsonFlag = False) -> None:
    """Lists the solutions that come with pbvs; --solution NAME selects one, winning2024 is the default."""
    from pbvs.graph.task_files import list_solutions

    found = list_solutions()
    if json:
        console.result_json([{**asdict(one), "folder": str(one.folder)} for one in found])
        return
    rows = [(s.name, s.title, s.source, ", ".join(s.tasks)) for s in found]
    console.table(None, ("solution", "what it is", "from", "tasks"), rows)
