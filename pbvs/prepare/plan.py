"""What `prepare` will do: one item a source file, with all that decides its result."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from pbvs.archives.layouts import FAMILIES, MODALITIES, PREPARED_MARK
from pbvs.archives.scan import Problem, ScannedImage
from pbvs.core.errors import DataError, ImageError, UsageError, did_you_mean
from pbvs.core.files import fingerprint
from pbvs.prepare.grid import Grid
from pbvs.prepare.prepared_folder import SCHEMA, read_about
from pbvs.prepare.records import Record
from pbvs.prepare.stretch import FULL, PERCENT, Percent, Stretch, Uint16Rule, checked_percent

Place = tuple[str, str, str]  # family, city ("" for tiles), location


@dataclass(frozen=True)
class PrepareRules:
    """The choices that change pixels or what is kept; recorded with the data.

    Attributes:
        uint16: how 16-bit images become 8-bit: `full`, `percentile` or `percentile_image` (see
            `pbvs.prepare.stretch`).
        uint16_percent: the low and the high percent of the latter two.
        min_overlap: in [0,1]; a capture that covers less than this part of its location's grid is left out,
            and a pair that is both valid on less is listed.
        register: whether each SAR capture of a stack location is moved to lie on its optical image where the
            estimated shift can be trusted (see `pbvs.prepare.registration`).
    """

    uint16: Uint16Rule = "full"
    uint16_percent: Percent = PERCENT
    min_overlap: float = 0.5
    register: bool = False

    def __post_init__(self) -> None:
        if self.uint16 not in get_args(Uint16Rule):
            known = did_you_mean(str(self.uint16), list(get_args(Uint16Rule)))
            raise UsageError(f"no 16-bit rule is called {self.uint16!r}", next_step=known)
        if not 0.0 <= self.min_overlap <= 1.0:
            raise UsageError(f"min_overlap is a part of 1, not {self.min_overlap}")
        checked_percent(self.uint16_percent)

    def described(self) -> dict[str, Any]:
        """The rules as JSON-like values; percents that no rule uses are left out."""
        percent = None if self.uint16 == "full" else list(checked_percent(self.uint16_percent))
        return {
            "uint16": self.uint16,
            "uint16_percent": percent,
            "min_overlap": self.min_overlap,
            "register": self.register,
        }


@dataclass(frozen=True, slots=True)
class Item:
    """One source file with all that decides its result.

    Attributes:
        seen: the file.
        key: its path relative to the root, as text.
        out: the result's path relative to the prepared folder.
        grid: where the result's pixels lie; None: the image stays as it is.
        stretch: the numbers for 16 bits; None: the image has 8, or its own numbers are taken by `percent`.
        percent: see `stretch`.
        reference: the prepared image to register it to, relative to the prepared folder; "" for none.
        made_by: fingerprint of all but the source's contents that decides the result.
    """

    seen: ScannedImage
    key: str
    out: str
    grid: Grid | None
    stretch: Stretch | None
    percent: Percent | None
    reference: str
    made_by: str

    @property
    def place(self) -> Place:
        """Family, city and location."""
        e = self.seen.entry
        return e.family, e.city, e.location

    def registered_to(self, reference: Item, made: Record) -> Item:
        """The same, to be registered to a prepared image."""
        made_by = fingerprint([self.made_by, reference.out, made.sha256, made.made_by])
        return replace(self, reference=reference.out, made_by=made_by)


# ---- what is asked for


@dataclass(frozen=True)
class Request:
    """The modalities and families that the prepared folder is to hold."""

    modalities: tuple[str, ...]
    families: tuple[str, ...]


def asked_of(
    out: Path, modalities: Collection[str], families: Collection[str], size_px: tuple[int, int] | None
) -> Request:
    """What this call asks for and what earlier calls did; UsageError for what cannot be meant."""
    for names, known in ((modalities, MODALITIES), (families, FAMILIES)):
        for name in names:
            if name not in known:
                raise UsageError(f"nothing is called {name!r}", next_step=did_you_mean(name, list(known)))
    if size_px is not None and min(size_px) < 1:
        raise UsageError(f"size_px is height and width of at least 1 pixel, not {size_px}")
    holds_something = out.exists() and (not out.is_dir() or any(".part" not in p.name for p in out.iterdir()))
    if not (out / PREPARED_MARK).exists():  # looked at last: another rank may just be writing it
        if holds_something:
            raise UsageError(
                "the folder holds something else than prepared data",
                where=out,
                next_step="name a new or empty folder",
            )
        return Request(tuple(sorted(modalities)), tuple(sorted(families)))
    before = read_about(out)
    return Request(
        tuple(sorted({*modalities, *before["modalities"]})), tuple(sorted({*families, *before["families"]}))
    )


def is_wanted(one: ScannedImage, asked: Request) -> bool:
    """Whether an image can be worked with and is asked for."""
    return one.usable and one.entry.family in asked.families and one.entry.modality in asked.modalities


def nothing_wanted(root: Path, asked: Request) -> DataError:
    """The error of data that holds nothing of what is asked for."""
    return DataError(
        f"no usable image of {', '.join(asked.modalities)} in {', '.join(asked.families)} data",
        where=root,
        next_step="`pbvs data scan` tells what is there and what is wrong with it",
    )


# ---- the plan: one item a file


def sixteen_bit_groups(wanted: Iterable[ScannedImage]) -> dict[str, list[str]]:
    """The 16-bit files of each sensor (`family/modality`) by path, sorted."""
    groups: dict[str, list[str]] = {}
    for one in wanted:
        if one.header.dtype == "uint16":
            groups.setdefault(_sensor(one), []).append(one.entry.path.as_posix())
    return {sensor: sorted(paths) for sensor, paths in sorted(groups.items())}


def plan_items(
    root: Path,
    seen: list[ScannedImage],
    wanted: list[ScannedImage],
    size_px: tuple[int, int] | None,
    rules: PrepareRules,
    stretches: Mapping[str, Stretch],
) -> tuple[list[Item], list[Problem]]:
    """One item a wanted file, in order of their results.

    Args:
        root: the archives.
        seen: all images, since the reference of a grid need not be wanted.
        wanted: those to prepare.
        size_px: of the grids; None keeps the reference's own pixels.
        rules: for 16 bits.
        stretches: the numbers by sensor, see `sixteen_bit_groups`.

    Returns:
        The items, and a problem for each reference that could not be read; the next in order is then taken.
    """
    problems: list[Problem] = []
    wanted_places = {_stack_place(one) for one in wanted if one.entry.family == "stack"}
    grids: dict[tuple[str, str], tuple[Grid, str]] = {}
    for place, candidates in groupby(_by_rank(seen), key=_stack_place):
        if place in wanted_places and (grid := _first_grid(root, candidates, size_px, problems)):
            grids[place] = grid, fingerprint(grid.described())
    items: list[Item] = []
    for one in wanted:
        grid, told = (None, "")
        if one.entry.family == "stack":
            if _stack_place(one) not in grids:
                continue  # all its images are told of as unreadable
            grid, told = grids[_stack_place(one)]
        stretch, percent = None, None
        if one.header.dtype == "uint16":
            stretch = FULL if rules.uint16 == "full" else stretches.get(_sensor(one))
            percent = checked_percent(rules.uint16_percent) if rules.uint16 == "percentile_image" else None
        made_by = _made_by(told, stretch, percent)
        items.append(
            Item(one, one.entry.path.as_posix(), _out_name(one), grid, stretch, percent, "", made_by)
        )
    return sorted(items, key=lambda item: item.out), problems


@lru_cache(maxsize=4096)  # 180,000 tiles have one
def _made_by(grid: str, stretch: Stretch | None, percent: Percent | None) -> str:
    return fingerprint([SCHEMA, grid, stretch, percent])


def _sensor(one: ScannedImage) -> str:
    return f"{one.entry.family}/{one.entry.modality}"


def _stack_place(one: ScannedImage) -> tuple[str, str]:
    return one.entry.city, one.entry.location


def reference_rank(one: ScannedImage) -> tuple[int, bool, str]:
    """Sorts a location's images: RGB mosaic, RGB, IR mosaic, IR, SAR; the first readable gives the grid."""
    return {"rgb": 0, "ir": 1}.get(one.entry.modality, 2), not one.entry.mosaic, one.entry.path.as_posix()


def _by_rank(seen: Iterable[ScannedImage]) -> Iterator[ScannedImage]:
    stack = (one for one in seen if one.usable and one.entry.family == "stack")
    yield from sorted(stack, key=lambda one: (_stack_place(one), reference_rank(one)))


def _first_grid(
    root: Path, candidates: Iterable[ScannedImage], size_px: tuple[int, int] | None, problems: list[Problem]
) -> Grid | None:
    for one in candidates:
        try:
            return Grid.of(root / one.entry.path).at_size(size_px)
        except ImageError as error:
            problems.append(Problem(one.entry.path.as_posix(), "unreadable", error.what))
    return None


def _out_name(one: ScannedImage) -> str:
    e = one.entry
    if e.family == "eo_sar":  # flat: a folder for each of 90,000 tiles would cost more than the tiles
        return f"eo_sar/tiles/{e.split}/{e.modality}/{e.capture}.tif"
    return f"stack/{e.city}/{e.location}/{e.modality}/{e.capture}.tif"
