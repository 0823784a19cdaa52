"""Every error that a user can meet: it says what is wrong, where, and what to do next.

`exit_code` follows the command line's contract: 1, the data or the run is at fault;
2, the command was misused.
"""

from __future__ import annotations

from pathlib import Path


class PbvsError(Exception):
    """Root of all errors of this package; its text is shown to the user as it is.

    Args:
        what: the fault, in one sentence.
        where: the file, key or image that is at fault; left out when there is none.
        next_step: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, next_step: str | None = None):
        self.what = what
        self.where = None if where is None else str(where)
        self.next_step = next_step
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.next_step:
            lines.append(f"  next:  {self.next_step}")
        return "\n".join(lines)


class UsageError(PbvsError):
    """The command was called with words that cannot be meant so: an unknown task, key or folder."""

    exit_code = 2


class TaskError(UsageError):
    """A task file, or a value set over it, is wrong: unknown key or node, wrong type, cycle, bands."""


class DataError(PbvsError):
    """The data is at fault: empty, of another layout, unreadable, not pairing."""


class ImageError(DataError):
    """One image cannot be read or is not what its place asks for."""


class CheckpointError(PbvsError):
    """Weights or training state are missing, torn, or belong to something else."""


class TrainingError(PbvsError):
    """Training cannot go on: a loss is not finite, memory ran out, nothing to train on."""


class ScoreError(PbvsError):
    """A score cannot be computed from what was given."""


class WeightsError(PbvsError):
    """A judge's weights are missing, torn, or not the official ones."""


class SubmissionError(PbvsError):
    """A zip cannot be built, or does not keep the platform's rules."""


def did_you_mean(name: str, known: list[str]) -> str:
    """Words for an error about an unknown `name`: the nearest known one, and all of them."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) if known else 'none'}"
