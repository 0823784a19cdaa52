"""The `readme.txt` of a submission: four lines in the form that the organisers published.

runtime per image [s] : 10.43
CPU[1] / GPU[0] : 1
Extra Data [1] / No Extra Data [0] : 1
Other description : free text
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

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
    """The fields of a submission's readme.

    Attributes:
        seconds_per_image: runtime per image; finite and not negative.
        cpu: True when it ran on a CPU, False for a GPU.
        extra_data: True when data other than the challenge's was used.
        description: free text on one line; line breaks and runs of blanks become one blank.

    Raises:
        UsageError: the runtime is invalid, or the description is empty or not valid Unicode.
    """

    seconds_per_image: float
    cpu: bool
    extra_data: bool
    description: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.seconds_per_image) or self.seconds_per_image < 0:
            raise UsageError(
                f"a runtime per image of {self.seconds_per_image} seconds is invalid",
                next_step="pass seconds as a non-negative number, such as 0.35",
            )
        if not self.description.split():
            raise UsageError(
                "the readme's description is empty",
                next_step="describe the method in one sentence for the organisers",
            )
        if not self.description.isprintable() and any(0xD800 <= ord(c) <= 0xDFFF for c in self.description):
            raise UsageError(
                "the readme's description contains bytes that are not text",
                next_step="use plain letters; they are stored as UTF-8",
            )
        object.__setattr__(self, "description", " ".join(self.description.split()))

    def text(self) -> str:
        """The four lines, each ended by a line feed; the runtime keeps four significant digits."""
        import numpy as np

        # Plain decimals, never `1e-05`, which a reader of the form may not accept.
        seconds = np.format_float_positional(self.seconds_per_image, precision=4, fractional=False, trim="-")
        values = (seconds, str(int(self.cpu)), str(int(self.extra_data)), self.description)
        return "".join(f"{label} : {value}\n" for label, value in zip(LABELS, values, strict=True))


def faults(text: str) -> list[str]:
    """What is wrong with a readme's text, one sentence per fault; empty when it has the published form.

    Blanks around the colon, a missing last line feed and Windows line ends are accepted.
    """
    lines = text.rstrip().splitlines()
    found = []
    for index, (label, example) in enumerate(zip(LABELS, _EXAMPLES, strict=True)):
        wanted = f"line {index + 1} must read '{label} : {example}'"
        if index >= len(lines):
            found.append(f"{wanted}; it is missing")
            continue
        value = _value(index, lines[index])
        if value is None:
            found.append(f"{wanted}; it is {lines[index][:80]!r}")
        elif index == 0 and not _NUMBER.fullmatch(value):
            found.append(f"{wanted}; {value[:40]!r} is not a plain number of seconds")
        elif index in (1, 2) and value not in ("0", "1"):
            found.append(f"{wanted}; {value[:40]!r} is neither 0 nor 1")
        elif index == 3 and not value:
            found.append(f"{wanted}; the description is empty")
    if len(lines) > len(LABELS):
        found.append(f"{len(lines)} lines instead of {len(LABELS)}: the description must be a single line")
    return found


def _value(index: int, line: str) -> str | None:
    """The text after the colon, or None when the line does not begin with its label."""
    found = re.fullmatch(re.escape(LABELS[index]) + r"\s*:(.*)", line.strip())
    return found.group(1).strip() if found else None


def parse(text: str) -> ReadmeFields:
    """The fields of a readme's text.

    Raises:
        SubmissionError: the text does not have the published form; the message lists every fault.
    """
    found = faults(text)
    if found:
        raise SubmissionError(
            "the readme does not have the published form: " + "; ".join(found),
            where="readme.txt",
            next_step="write the four lines as in the published form: " + " | ".join(LABELS),
        )
    values = [_value(index, line) or "" for index, line in enumerate(text.rstrip().splitlines())]
    return ReadmeFields(float(values[0]), values[1] == "1", values[2] == "1", values[3])
