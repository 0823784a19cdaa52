"""The platform's rules for a zip, as data, and the problems of a zip that breaks them.

The organisers published the rules: `readme.txt` at the zip's root, and up to four task folders, each with
one PNG or TIFF per test input, named by the input's id. Nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pbvs.core.challenge import TASKS

README_NAME = "readme.txt"

LARGE_BYTES = 500_000_000
"""The platform has accepted zips of up to 500-600 MB; larger ones get a warning."""

TOO_LARGE_BYTES = 1_000_000_000
"""Over 1 GB an upload fails on the platform with an empty log."""

WHOLE_ZIP = "(the whole zip)"
"""The path of problems that belong to no entry."""

_SYSTEM_FILES = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")

KIND_CONSTANT = "constant"
KIND_LARGE = "large"
KIND_SIZE = "size"
ALLOWABLE_KINDS = frozenset({KIND_CONSTANT, KIND_LARGE, KIND_SIZE})
"""Kinds of problem that the user can waive: the platform accepts them, but they are usually mistakes."""


@dataclass(frozen=True)
class Expected:
    """What each image of one task must be.

    Attributes:
        size_px: height and width.
        bands: 1 (grey) or 3 (RGB), always uint8.
    """

    size_px: tuple[int, int]
    bands: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_px", tuple(self.size_px))  # a list compares unequal to every shape


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a zip.

    Attributes:
        path: the entry, the folder or the zip itself, as it is named in the zip.
        what: the fault, in one sentence.
        hint: what to do about it.
        kind: a keyword for scripts: `archive`, `torn`, `nested`, `folder`, `empty`, `litter`, `extra`,
            `missing`, `doubled`, `name`, `link`, `encrypted`, `method`, `bomb`, `image`, `size`, `bands`,
            `depth`, `type`, `constant`, `readme` or `large`.
    """

    path: str
    what: str
    hint: str
    kind: str


@dataclass
class CheckReport:
    """The result of checking a zip.

    Attributes:
        problems: sorted by path; empty for a zip that keeps the rules.
        images: the number of images of each task that has a folder, right or wrong.
        n_bytes: the zip's size.
        notes: what breaks no rule but is worth knowing (a task not attempted, RGB for a one-band task).
    """

    problems: list[Problem] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    n_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """True when no rule is broken."""
        return not self.problems

    def text(self, most_paths: int = 3) -> str:
        """The problems as text; those with the same fault and hint share one line, with some of the paths."""
        paths_by_fault: dict[tuple[str, str], list[str]] = {}
        for problem in self.problems:
            paths_by_fault.setdefault((problem.what, problem.hint), []).append(problem.path)
        return "\n".join(
            f"{some_of(paths, most_paths)}: {what}\n  next:  {hint}"
            for (what, hint), paths in paths_by_fault.items()
        )


def is_system_file(name: str) -> bool:
    """True for hidden files and folders, and for metadata files of operating systems."""
    return name.startswith(".") or name.casefold() in _SYSTEM_FILES


def some_of(names: list[str], most: int) -> str:
    """The first `most` of the names, joined, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def format_size(n_bytes: int) -> str:
    """A file size as text: `12.3 MB`, in millions of bytes as upload limits count them."""
    return f"{n_bytes / 1e6:.1f} MB"


def format_px(size_px: tuple[int, ...]) -> str:
    """An image size as text: height x width."""
    return " x ".join(str(side) for side in size_px)


def size_problem(n_bytes: int) -> Problem | None:
    """The problem of a zip of `n_bytes` that is too large for the platform, else None."""
    if n_bytes <= TOO_LARGE_BYTES:
        return None
    what = f"the zip has {format_size(n_bytes)}; uploads over {format_size(TOO_LARGE_BYTES)} fail silently"
    hint = "compress the PNGs harder (level 9), or submit fewer tasks at a time"
    return Problem(WHOLE_ZIP, what, hint, KIND_LARGE)


def size_note(n_bytes: int) -> str | None:
    """A warning when a zip of `n_bytes` is so large that uploads sometimes fail, else None."""
    if n_bytes <= LARGE_BYTES:
        return None
    return f"the zip has {format_size(n_bytes)}; uploads over {format_size(LARGE_BYTES)} sometimes fail"


def not_attempted_notes(attempted: Collection[str], tasks: tuple[str, ...] = TASKS) -> list[str]:
    """A note for each of `tasks` without a folder: it counts 1 in the overall score."""
    return [
        f"{task} is not attempted: it counts 1 in the overall score"
        for task in tasks
        if task not in attempted
    ]
