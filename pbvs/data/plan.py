"""What `prepare` will do: one item a source file, with all that decides its result."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from pbvs.data.index import SCHEMA, read_about
from pbvs.data.layouts import FAMILIES, MODALITIES, PREPARED_MARK
from pbvs.data.scan import Problem, Seen
from pbvs.data.stretch import FULL, Stretch, Uint16Rule, percentile_stretch
from pbvs.data.warp import Grid, Valid, read_capture
from pbvs.errors import DataError, ImageError, UsageError, nearest
from pbvs.files import fingerprint
from pbvs.pixels import Stored, read_image


@dataclass(frozen=True)
class PrepareRules:
    """The choices that change pixels or what is kept; recorded with the data.

    Attributes:
        uint16: how 16-bit images become 8-bit, `full` or `percentile` (see `pbvs.data.stretch`).
        min_overlap: a capture that covers less than this part of its location's grid is left out, in [0,1].
    """

    uint16: Uint16Rule = "full"
    min_overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.uint16 not in get_args(Uint16Rule):
            known = nearest(str(self.uint16), list(get_args(Uint16Rule)))
            raise UsageError(f"no 16-bit rule is called {self.uint16!r}", next_step=known)
        if not 0.0 <= self.min_overlap <= 1.0:
            raise UsageError(f"min_overlap is a part of 1, not {self.min_overlap}")


@dataclass(frozen=True)
class Item:
    """One source file with all that decides its result."""

    seen: Seen
    source: Path
    out: str
    grid: Grid | None  # None: the image stays as it is
    stretch: Stretch | None  # None: the image has 8 bits

    @property
    def key(self) -> str:
        """The source's path relative to the root, as text."""
        return self.seen.entry.path.as_posix()

    def made_by(self) -> str:
        """Fingerprint of all but the source's contents that decides the result."""
        grid = self.grid.described() if self.grid else None
        return fingerprint([SCHEMA, self.out, grid, self.stretch])


# ---- what is asked for


@dataclass(frozen=True)
class Asked:
    """The modalities and families that the prepared folder is to hold."""

    modalities: tuple[str, ...]
    families: tuple[str, ...]


def asked_of(
    out: Path, modalities: Collection[str], families: Collection[str], size_px: tuple[int, int] | None
) -> Asked:
    """What this call asks for and what earlier calls did; UsageError for what cannot be meant."""
    for names, known in ((modalities, MODALITIES), (families, FAMILIES)):
        for name in names:
            if name not in known:
                raise UsageError(f"nothing is called {name!r}", next_step=nearest(name, list(known)))
    if size_px is not None and min(size_px) < 1:
        raise UsageError(f"size_px is height and width of at least 1 pixel, not {size_px}")
    if not (out / PREPARED_MARK).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                "the folder holds something else than prepared data",
                where=out,
                next_step="name a new or empty folder",
            )
        return Asked(tuple(sorted(modalities)), tuple(sorted(families)))
    before = read_about(out)
    return Asked(
        tuple(sorted({*modalities, *before["modalities"]})), tuple(sorted({*families, *before["families"]}))
    )


def is_wanted(one: Seen, asked: Asked) -> bool:
    """Whether an image can be worked with and is asked for."""
    return one.usable and one.entry.family in asked.families and one.entry.modality in asked.modalities


def nothing_wanted(root: Path, asked: Asked) -> DataError:
    """The error of data that holds nothing of what is asked for."""
    return DataError(
        f"no usable image of {', '.join(asked.modalities)} in {', '.join(asked.families)} data",
        where=root,
        next_step="`pbvs data scan` tells what is there and what is wrong with it",
    )


# ---- the plan: one item a file


def stretches_of(root: Path, seen: list[Seen], rules: PrepareRules) -> dict[tuple[str, str], Stretch]:
    """The stretch of every (city, modality) that has 16-bit files; over all of them, asked for or not."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for one in seen:
        if one.usable and one.header.dtype == "uint16":
            groups.setdefault((one.entry.city, one.entry.modality), []).append(root / one.entry.path)
    if rules.uint16 == "full":
        return dict.fromkeys(groups, FULL)
    return {group: percentile_stretch(paths, _read_any) for group, paths in groups.items()}


def plan_items(
    root: Path,
    seen: list[Seen],
    wanted: list[Seen],
    size_px: tuple[int, int] | None,
    stretches: dict[tuple[str, str], Stretch],
) -> tuple[list[Item], list[Problem]]:
    """One item a wanted file, in order of their results; a location without a grid is a problem."""
    references = _references(seen)
    places = {(one.entry.city, one.entry.location) for one in wanted if one.entry.family == "stack"}
    grids: dict[tuple[str, str], Grid] = {}
    problems: list[Problem] = []
    for place in sorted(places):
        try:
            grids[place] = Grid.of(root / references[place].entry.path).at_size(size_px)
        except ImageError as error:
            problems.append(Problem(references[place].entry.path.as_posix(), "unreadable", error.what))
    items: list[Item] = []
    for one in wanted:
        e = one.entry
        grid = grids.get((e.city, e.location)) if e.family == "stack" else None
        if e.family == "stack" and grid is None:
            continue
        stretch = stretches[e.city, e.modality] if one.header.dtype == "uint16" else None
        items.append(Item(one, root / e.path, _out_name(one), grid, stretch))
    return sorted(items, key=lambda item: item.out), problems


def _references(seen: list[Seen]) -> dict[tuple[str, str], Seen]:
    """Per stack location the image whose ground and CRS all others are brought to."""
    rank = {"rgb": 0, "ir": 1, "sar": 2}
    stack = [one for one in seen if one.usable and one.entry.family == "stack"]
    stack.sort(key=lambda one: (rank[one.entry.modality], not one.entry.mosaic, one.entry.path.as_posix()))
    references: dict[tuple[str, str], Seen] = {}
    for one in stack:
        references.setdefault((one.entry.city, one.entry.location), one)
    return references


def _out_name(one: Seen) -> str:
    e = one.entry
    if e.family == "eo_sar":  # flat: a folder for each of 90,000 tiles would cost more than the tiles
        return f"eo_sar/tiles/{e.split}/{e.modality}/{e.capture}.tif"
    return f"stack/{e.city}/{e.location}/{e.modality}/{e.capture}.tif"


def _read_any(path: Path) -> tuple[Stored, Valid]:
    """A source image with its validity; tiles (no CRS) are valid throughout."""
    try:
        stored, valid, _ = read_capture(path)
    except ImageError:
        stored = read_image(path)
        valid = np.ones(stored.shape[:2], bool)
    return stored, valid
