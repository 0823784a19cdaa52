"""The `readme.txt` of a submission: four lines whose form the organisers published.

runtime per image [s] : 10.43
CPU[1] / GPU[0] : 1
Extra Data [1] / No Extra Data [0] : 1
Other description : free text
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from pbvs.core.errors import SubmissionError, UsageError

LABELS = (
    "runtime per image [s]",
    "CPU[1] / GPU[0]",
    "Extra Data [1] / No Extra Data [0]",
    "Other description",
)
_NUMBER = re.compile(r"[0-9]{1,300}(\.[0-9]*)?|\.[0-9]+")  # no more digits than a finite float has
_EXAMPLES = ("10.43", "1", "0", "free text")


@dataclass(frozen=True)
class ReadmeFields:
    """What a submission says of itself.

    Attributes:
        seconds_per_image: runtime of one image; finite and not negative.
        cpu: True when it ran on a CPU, False for a GPU.
        extra_data: True when data beyond the challenge's own was used.
        description: free text on one line; line breaks and runs of blanks become one blank.

    Raises:
        UsageError: the runtime is no usable number, or the description is empty.
    """

    seconds_per_image: float
    cpu: bool
    extra_data: bool
    description: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.seconds_per_image) or self.seconds_per_image < 0:
            raise UsageError(
                f"the runtime per image cannot be {self.seconds_per_image} seconds",
                next_step="give seconds as a number that is not negative, such as 0.35",
            )
        if not self.description.split():
            raise UsageError(
                "the readme's description is empty",
                next_step="say in a few words what the method is: the organisers read it",
            )
        if not self.description.isprintable() and any(0xD800 <= ord(c) <= 0xDFFF for c in self.description):
            raise UsageError(
                "the readme's description holds bytes that are no text",
                next_step="write it in plain letters; they are stored as UTF-8",
            )
        object.__setattr__(self, "description", " ".join(self.description.split()))

    def text(self) -> str:
        """The four lines, each ended by a line feed; the runtime keeps four significant digits."""
        values = (
            _seconds(self.seconds_per_image),
            str(int(self.cpu)),
            str(int(self.extra_data)),
            self.description,
        )
        return "".join(f"{label} : {value}\n" for label, value in zip(LABELS, values, strict=True))


def _seconds(seconds: float) -> str:
    """Plain decimals, never `1e-05`, which a reader of the form may not take."""
    return str(np.format_float_positional(seconds, precision=4, fractional=False, trim="-"))


def faults(text: str) -> list[str]:
    """What is wrong with a readme's text, one sentence a fault; empty when it has the published form.

    Blanks around the colon, a missing last line feed and Windows line ends are taken as they come.
    """
    lines = text.rstrip().splitlines()
    found = [_line_fault(number, lines) for number in range(len(LABELS))]
    if len(lines) > len(LABELS):
        found.append(
            f"{len(lines)} lines instead of {len(LABELS)}: the description must stay on its one line"
        )
    return [fault for fault in found if fault]


def _line_fault(index: int, lines: list[str]) -> str | None:
    wanted = f"line {index + 1} must read '{LABELS[index]} : {_EXAMPLES[index]}'"
    if index >= len(lines):
        return f"{wanted}; it is missing"
    value = _value(index, lines[index])
    if value is None:
        return f"{wanted}; it is {lines[index][:80]!r}"
    if index == 0 and not _NUMBER.fullmatch(value):
        return f"{wanted}; {value[:40]!r} is not a plain number of seconds"
    if index in (1, 2) and value not in ("0", "1"):
        return f"{wanted}; {value[:40]!r} is neither 0 nor 1"
    if index == 3 and not value:
        return f"{wanted}; the description is empty"
    return None


def _value(index: int, line: str) -> str | None:
    """What stands behind the colon, or None when the line does not begin with its label."""
    found = re.fullmatch(re.escape(LABELS[index]) + r"\s*:(.*)", line.strip())
    return found.group(1).strip() if found else None


def parse(text: str) -> ReadmeFields:
    """The fields of a readme's text.

    Raises:
        SubmissionError: the text has not the published form; every fault is told.
    """
    found = faults(text)
    if found:
        raise SubmissionError(
            "the readme has not the published form: " + "; ".join(found),
            where="readme.txt",
            next_step="write the four lines as in the published form: " + " | ".join(LABELS),
        )
    values = [_value(index, line) or "" for index, line in enumerate(text.rstrip().splitlines())]
    return ReadmeFields(float(values[0]), values[1] == "1", values[2] == "1", values[3])
