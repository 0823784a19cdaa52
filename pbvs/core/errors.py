"""Every error that reaches the user: what is wrong, where, and what to do next.

`exit_code` is the exit status of the command line: 1 for a fault of the data or the run,
2 for a misused command.
"""

from __future__ import annotations

from pathlib import Path


class PbvsError(Exception):
    """Root of all errors of this package; its text is printed to the user unchanged.

    Args:
        what: the fault, in one sentence.
        where: the file, key or image at fault; None when there is none.
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
    """An argument is invalid: an unknown task, key or folder."""

    exit_code = 2


class TaskError(UsageError):
    """A task file, or a value that overrides it, is wrong: unknown key or node, wrong type, cycle, bands."""


class DataError(PbvsError):
    """The data is at fault: empty, of an unknown layout, unreadable, unpaired."""


class ImageError(DataError):
    """An image cannot be read, or has the wrong format, size, type or bands."""


class CheckpointError(PbvsError):
    """Weights or training state are missing, truncated or corrupt, or belong to something else."""


class TrainingError(PbvsError):
    """Training cannot continue: a loss is not finite, out of memory, no training data."""


class ScoreError(PbvsError):
    """A score cannot be computed from its inputs."""


class WeightsError(PbvsError):
    """Weights of a metric network are missing, truncated or corrupt, or not the official ones."""


class SubmissionError(PbvsError):
    """A zip cannot be built, or breaks the platform's rules."""


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint for an error about an unknown `name`: the most similar known name, then all known names."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) if known else 'none'}"
