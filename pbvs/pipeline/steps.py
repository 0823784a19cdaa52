"""Steps of a run: each knows what decides its result, what it makes, and so whether it is up to date.

The decision rests on fingerprints of task, data and weights, and on version numbers (`pbvs.core.versions`),
never on time stamps or source text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbvs.core.errors import UsageError, did_you_mean
from pbvs.core.files import remove_partials, sha256_of_file, write_json

_MOST_REASONS = 8
_OLD_CODE = "code"  # a hash of source text, in records of 0.1.0: accepted once


@dataclass
class Step:
    """One step.

    Attributes:
        name: how the user calls it.
        record: the file that holds its provenance of when it was last done; it names the outputs by their
            paths from its own folder, so that a folder of runs can be moved.
        provenance: each thing it depends on, to that thing's fingerprint or version. Called when the steps
            before it are done, and before its own work.
        outputs: the files it makes that must still exist, unchanged.
        work: does it and returns a line about the result.
        needs: names of the steps before it.
        reads_first: take `provenance` only after the work, for a step that reads and hashes much data itself.
    """

    name: str
    record: Path
    provenance: Callable[[], dict[str, str]]
    outputs: Callable[[], list[Path]]
    work: Callable[[], str]
    needs: tuple[str, ...] = ()
    reads_first: bool = False

    def stale(self) -> list[str]:
        """Why the step must be done; empty when it is up to date."""
        if not self.record.is_file():
            return ["not done yet"]
        done = json.loads(self.record.read_text(encoding="utf-8"))
        before, now = done.get("provenance") or done["made_of"], self.provenance()
        if _OLD_CODE in before:
            before = {key: value for key, value in before.items() if key != _OLD_CODE}
            now = {key: value for key, value in now.items() if key in before or value != "version 1"}
        reasons = differences(before, now)
        for name, sha256 in done["outputs"].items():
            path = self.record.parent / name
            if not path.is_file():
                reasons.append(f"{path.name} is missing")
            elif sha256_of_file(path) != sha256:
                reasons.append(f"{path.name} was changed")
        return reasons[:_MOST_REASONS]

    def do(self) -> str:
        """Does the step and records it; first removes what a killed process left unfinished."""
        self.record.unlink(missing_ok=True)
        for folder in {path.parent for path in (self.record, *self.outputs())}:
            remove_partials(folder)
        provenance = {} if self.reads_first else self.provenance()
        summary = self.work()
        self._write(self.provenance() if self.reads_first else provenance)
        return summary

    def accept(self) -> None:
        """Records the step as done with what exists now.

        Raises:
            UsageError: an output is missing.
        """
        missing = [path for path in self.outputs() if not path.is_file()]
        if missing:
            raise UsageError(f"{self.name} cannot be accepted: an output is missing", where=missing[0])
        self._write(self.provenance())

    def _write(self, provenance: dict[str, str]) -> None:
        outputs = {os.path.relpath(path, self.record.parent): sha256_of_file(path) for path in self.outputs()}
        write_json(self.record, {"step": self.name, "provenance": provenance, "outputs": outputs})


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """How two provenances differ, a message per difference."""
    changes = [
        f"{key} changed"
        + (f" from {before[key]} to {value}" if "version" in value and "version" in before[key] else "")
        for key, value in now.items()
        if key in before and before[key] != value
    ]
    added = [f"{key} is new" for key in now if key not in before]
    gone = [f"{key} is gone" for key in before if key not in now]
    return changes + added + gone


def chosen_steps(steps: list[Step], start: str | None, end: str | None) -> list[Step]:
    """The steps from `start` on (all that depend on it) up to `end` (all that it depends on).

    Raises:
        UsageError: no such step, or none between the two.
    """
    names = [step.name for step in steps]
    for name in (start, end):
        if name is not None and name not in names:
            raise UsageError(f"no step {name!r} in this run; {did_you_mean(name, names)}")
    wanted = set(names)
    if end is not None:
        by_name, todo = {step.name: step for step in steps}, [end]
        before: set[str] = set()
        while todo:
            name = todo.pop()
            before.add(name)
            todo += by_name[name].needs
        wanted &= before
    if start is not None:
        after = {start}
        for step in steps:
            if after & set(step.needs):
                after.add(step.name)
        wanted &= after
    if not wanted:
        raise UsageError(f"{end!r} does not depend on {start!r}")
    return [step for step in steps if step.name in wanted]


@dataclass(frozen=True)
class Event:
    """The state of one step: `skipped`, `doing`, `done`, `would do`, with the reasons or the result."""

    step: str
    state: str
    message: str


def run_steps(
    steps: list[Step],
    report: Callable[[Event], Any],
    *,
    plan_only: bool = False,
    accepted: Iterable[str] = (),
) -> None:
    """Does the steps that are not up to date, in order; reports why each is done or skipped."""
    redone: set[str] = set()
    accepted = set(accepted)
    for step in steps:
        if step.name in accepted and not plan_only:
            step.accept()
        awaited = redone & set(step.needs) if plan_only else set()
        reasons = [f"{name} comes before it" for name in sorted(awaited)] or step.stale()
        if not reasons:
            report(Event(step.name, "skipped", "up to date: nothing it depends on has changed"))
            continue
        redone.add(step.name)
        if plan_only:
            report(Event(step.name, "would do", "; ".join(reasons)))
        else:
            report(Event(step.name, "doing", "; ".join(reasons)))
            report(Event(step.name, "done", step.do()))
