"""Steps of a run: each knows what it is made of, what it makes, and so whether it is up to date.

The decision rests on fingerprints of task, data, weights and code, never on time stamps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pbvs
from pbvs.core.errors import UsageError, did_you_mean
from pbvs.core.files import remove_partials, sha256_of_file, write_json


@dataclass
class Step:
    """One step.

    Attributes:
        name: how the user calls it.
        record: the file that says what it was made of when it was last done; it names the outputs by their
            paths from its own folder, so that a folder of runs can be moved.
        provenance: words for each thing it depends on, to that thing's fingerprint. Called when the steps
            before it are done, and before its own work.
        outputs: the files it makes that must still be there, unchanged.
        work: does it and returns a line about what was made.
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
        return differences(done["made_of"], self.provenance()) + self._changed_outputs(done["outputs"])

    def do(self) -> str:
        """Does the step and records it; first clears away what a killed process left of it unfinished."""
        self.record.unlink(missing_ok=True)
        for folder in {path.parent for path in (self.record, *self.outputs())}:
            remove_partials(folder)
        provenance = {} if self.reads_first else self.provenance()
        told = self.work()
        self._write(self.provenance() if self.reads_first else provenance)
        return told

    def accept(self) -> None:
        """Records the step as done with what is there now.

        Raises:
            UsageError: an output is missing.
        """
        missing = [path for path in self.outputs() if not path.is_file()]
        if missing:
            raise UsageError(f"{self.name} cannot be accepted: nothing was made", where=missing[0])
        self._write(self.provenance())

    def _write(self, provenance: dict[str, str]) -> None:
        outputs = {os.path.relpath(path, self.record.parent): sha256_of_file(path) for path in self.outputs()}
        write_json(self.record, {"step": self.name, "made_of": provenance, "outputs": outputs})

    def _changed_outputs(self, done: dict[str, str]) -> list[str]:
        reasons = []
        for name, sha256 in done.items():
            path = self.record.parent / name
            if not path.is_file():
                reasons.append(f"{path.name} is missing")
            elif sha256_of_file(path) != sha256:
                reasons.append(f"{path.name} was changed")
        return reasons[:3]


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """In words, how two `provenance` differ."""
    changed = [f"{key} changed" for key in now if key in before and before[key] != now[key]]
    added = [f"{key} is new" for key in now if key not in before]
    gone = [f"{key} is gone" for key in before if key not in now]
    return changed + added + gone


def code_version(*parts: str) -> str:
    """A fingerprint of the version and of the source of some parts of pbvs (`models`, `data/pairs.py`)."""
    root = Path(pbvs.__file__).parent
    digest = hashlib.sha256(pbvs.__version__.encode())
    for part in parts:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


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
        wanted &= _before(steps, end)
    if start is not None:
        wanted &= _after(steps, start)
    if not wanted:
        raise UsageError(f"{end!r} does not depend on {start!r}")
    return [step for step in steps if step.name in wanted]


def _before(steps: list[Step], end: str) -> set[str]:
    by_name = {step.name: step for step in steps}
    found, todo = set(), [end]
    while todo:
        name = todo.pop()
        found.add(name)
        todo += by_name[name].needs
    return found


def _after(steps: Iterable[Step], start: str) -> set[str]:
    found = {start}
    for step in steps:
        if found & set(step.needs):
            found.add(step.name)
    return found


@dataclass(frozen=True)
class Event:
    """What became of one step: `skipped`, `doing`, `done`, `would do`, with the reasons or the result."""

    step: str
    state: str
    words: str


def run_steps(
    steps: list[Step], tell: Callable[[Event], Any], *, plan_only: bool = False, accepted: Iterable[str] = ()
) -> None:
    """Does the steps that are not up to date, in order; tells why each is done or skipped."""
    redone: set[str] = set()
    accepted = set(accepted)
    for step in steps:
        if step.name in accepted and not plan_only:
            step.accept()
        awaited = redone & set(step.needs) if plan_only else set()
        reasons = [f"{name} comes before it" for name in sorted(awaited)] or step.stale()
        if not reasons:
            tell(Event(step.name, "skipped", "up to date: nothing it is made of has changed"))
            continue
        redone.add(step.name)
        if plan_only:
            tell(Event(step.name, "would do", "; ".join(reasons)))
        else:
            tell(Event(step.name, "doing", "; ".join(reasons)))
            tell(Event(step.name, "done", step.do()))
