"""What the platform asks of a zip, as data, and the words for what is wrong with one.

The rules are those that the organisers published: at the zip's root `readme.txt` and up to four task
folders, each with one PNG or TIFF per test input, named by the input's id, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

TASKS = ("sar2eo", "sar2rgb", "rgb2ir", "sar2ir")
README_NAME = "readme.txt"

LARGE_BYTES = 500_000_000
"""Zips up to 500-600 MB are known to have gone through the platform; above, it is told as a warning."""

TOO_LARGE_BYTES = 1_000_000_000
"""Over 1 GB an upload fails on the platform with an empty log."""

WHOLE_ZIP = "(the whole zip)"
"""The path of problems that belong to no entry."""

_LITTER = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")

KIND_CONSTANT = "constant"
KIND_LARGE = "large"
KIND_SIZE = "size"
ALLOWABLE_KINDS = frozenset({KIND_CONSTANT, KIND_LARGE, KIND_SIZE})
"""Kinds of problem that a user may know better about: the platform takes it, but it is mostly a fault."""


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
        path: the entry (or folder, or the zip itself) at fault, as it is named in the zip.
        what: the fault, in one sentence.
        cure: what to do about it.
        kind: one word for scripts: `archive`, `torn`, `nested`, `folder`, `empty`, `litter`, `extra`,
            `missing`, `doubled`, `name`, `link`, `encrypted`, `method`, `bomb`, `image`, `size`, `bands`,
            `depth`, `type`, `constant`, `readme` or `large`.
    """

    path: str
    what: str
    cure: str
    kind: str


@dataclass
class CheckReport:
    """Everything that was found in a zip.

    Attributes:
        problems: sorted by path; empty for a zip that keeps the rules.
        images: the number of images found for each task that has a folder, right or wrong.
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
        """The problems as lines to show; those with one fault and cure are told once, with some paths."""
        together: dict[tuple[str, str], list[str]] = {}
        for problem in self.problems:
            together.setdefault((problem.what, problem.cure), []).append(problem.path)
        return "\n".join(
            f"{some_of(paths, most_paths)}: {what}\n  next:  {cure}"
            for (what, cure), paths in together.items()
        )


def is_litter(name: str) -> bool:
    """True for hidden files and folders, and for what operating systems leave beside one's own files."""
    return name.startswith(".") or name.casefold() in _LITTER


def some_of(names: list[str], most: int) -> str:
    """The first `most` of the names, joined, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def told_size(n_bytes: int) -> str:
    """A size in words: `12.3 MB`, in millions of bytes as upload limits count them."""
    return f"{n_bytes / 1e6:.1f} MB"


def told_px(size_px: tuple[int, ...]) -> str:
    """A size in words: height x width."""
    return " x ".join(str(side) for side in size_px)


def size_problem(n_bytes: int) -> Problem | None:
    """A problem when a zip of `n_bytes` is larger than the platform takes, else None."""
    if n_bytes <= TOO_LARGE_BYTES:
        return None
    what = (
        f"the zip has {told_size(n_bytes)}; uploads over {told_size(TOO_LARGE_BYTES)} fail without a message"
    )
    return Problem(
        WHOLE_ZIP, what, "compress the PNGs harder (level 9), or submit fewer tasks at a time", KIND_LARGE
    )


def size_note(n_bytes: int) -> str | None:
    """A warning when a zip of `n_bytes` is large enough for uploads to be uncertain, else None."""
    if n_bytes <= LARGE_BYTES:
        return None
    return (
        f"the zip has {told_size(n_bytes)}; uploads over {told_size(LARGE_BYTES)} are known to fail at times"
    )


def not_attempted_notes(attempted: Collection[str], asked: tuple[str, ...] = TASKS) -> list[str]:
    """A note for each task of `asked` without a folder: it counts 1 in the overall score."""
    return [
        f"{task} is not attempted: it counts 1 in the overall score"
        for task in asked
        if task not in attempted
    ]
