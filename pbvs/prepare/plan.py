"""What `prepare` will do: one item per source file, with everything that determines its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from pbvs.archives.layouts import FAMILIES, MODALITIES, PREPARED_MARK
from pbvs.archives.scan import Problem, ScannedImage
from pbvs.core import versions
from pbvs.core.errors import DataError, ImageError, UsageError, did_you_mean
from pbvs.core.files import fingerprint
from pbvs.prepare.grid import Grid
from pbvs.prepare.prepared_folder import SCHEMA, read_about
from pbvs.prepare.records import Record
from pbvs.prepare.stretch import PERCENT, Percent, Stretch, Uint16Rule, checked_percent

LocationKey = tuple[str, str]  # city ("" for tiles), location
FamilyLocation = tuple[str, str, str]  # family, city, location


@dataclass(frozen=True)
class PrepareRules:
    """The choices that change pixels or what is kept; recorded with the data.

    Attributes:
        uint16: how 16-bit images become 8-bit: `full`, `percentile` or `percentile_image` (see
            `pbvs.prepare.stretch`).
        uint16_percent: low and high percent of the latter two.
        min_overlap: in [0,1]; a capture that covers a smaller fraction of its location's grid is left out,
            and a pair that is jointly valid on less is listed as a problem.
        register: whether each SAR capture of a stack location is shifted onto its optical image where the
            estimated shift is trusted (see `pbvs.prepare.registration`).
    """

    uint16: Uint16Rule = "full"
    uint16_percent: Percent = PERCENT
    min_overlap: float = 0.5
    register: bool = False

    def __post_init__(self) -> None:
        if self.uint16 not in get_args(Uint16Rule):
            raise UsageError(
                f"no 16-bit rule is called {self.uint16!r}",
                next_step=did_you_mean(str(self.uint16), list(get_args(Uint16Rule))),
            )
        if not 0.0 <= self.min_overlap <= 1.0:
            raise UsageError(f"min_overlap is a fraction in [0,1], not {self.min_overlap}")
        checked_percent(self.uint16_percent)

    def described(self) -> dict[str, Any]:
        """The rules as JSON-like values; percents that no rule uses are None."""
        percent = None if self.uint16 == "full" else list(checked_percent(self.uint16_percent))
        return asdict(self) | {"uint16_percent": percent}


@dataclass(frozen=True, slots=True)
class Item:
    """One source file with everything that determines its result.

    Attributes:
        image: the file.
        key: its path relative to the root, as text.
        out: the result's path relative to the prepared folder.
        grid: the grid of the result; None: the image stays as it is.
        stretch: the 16-bit stretch; None: the image has 8 bits, or `percent` applies to its own pixels.
        percent: see `stretch`.
        reference: the prepared image to register it to, relative to the prepared folder; "" for none.
        recipe: fingerprint of everything but the source's contents that determines the result.
    """

    image: ScannedImage
    key: str
    out: str
    grid: Grid | None
    stretch: Stretch | None
    percent: Percent | None
    reference: str
    recipe: str

    @property
    def modality(self) -> str:
        """Modality of the image."""
        return self.image.entry.modality

    @property
    def location(self) -> FamilyLocation:
        """Family, city and location of the image."""
        return family_location(self.image)

    def registered_to(self, reference: Item, record: Record) -> Item:
        """The same item, to be registered to the prepared image of `reference`, described by `record`."""
        recipe = fingerprint([self.recipe, reference.out, record.sha256, record.recipe])
        return replace(self, reference=reference.out, recipe=recipe)


def family_location(image: ScannedImage) -> FamilyLocation:
    """Family, city and location of an image."""
    return image.entry.family, image.entry.city, image.entry.location


# ---- the request


@dataclass(frozen=True)
class Request:
    """What the prepared folder is to hold: modalities, families and, if not all, locations."""

    modalities: tuple[str, ...]
    families: tuple[str, ...]
    keep_location: Callable[[LocationKey], bool] | None = None

    def wants(self, image: ScannedImage) -> bool:
        """Whether an image is usable and requested."""
        family, city, location = family_location(image)
        return (
            image.usable
            and family in self.families
            and image.entry.modality in self.modalities
            and (self.keep_location is None or self.keep_location((city, location)))
        )

    def nothing_found(self, root: Path) -> DataError:
        """The error for data that holds nothing of this request."""
        where = "" if self.keep_location is None else " at the locations to keep"
        return DataError(
            f"no usable image of {', '.join(self.modalities)} in {', '.join(self.families)} data{where}",
            where=root,
            next_step="`pbvs data scan` lists what is there and its problems",
        )


def request_for(
    out: Path,
    modalities: Collection[str],
    families: Collection[str],
    size_px: tuple[int, int] | None,
    keep_location: Callable[[LocationKey], bool] | None = None,
) -> Request:
    """The request of this call, with the modalities and families of earlier calls that wrote to `out`.

    Raises:
        UsageError: an unknown modality or family, an invalid size, or `out` holds something else.
        DataError: `out` was prepared by another version, or its `prepared.json` is corrupt.
    """
    for names, known in ((modalities, MODALITIES), (families, FAMILIES)):
        for name in names:
            if name not in known:
                raise UsageError(f"nothing is called {name!r}", next_step=did_you_mean(name, list(known)))
    if size_px is not None and min(size_px) < 1:
        raise UsageError(f"size_px is height and width of at least 1 pixel, not {size_px}")
    holds_files = out.exists() and (not out.is_dir() or any(".part" not in p.name for p in out.iterdir()))
    if (out / PREPARED_MARK).exists():  # checked last: another rank may be writing it right now
        before = read_about(out)
        modalities, families = {*modalities, *before["modalities"]}, {*families, *before["families"]}
    elif holds_files:
        raise UsageError(
            "the folder holds something else than prepared data",
            where=out,
            next_step="name a new or empty folder",
        )
    return Request(tuple(sorted(modalities)), tuple(sorted(families)), keep_location)


# ---- the plan: one item per file


def sixteen_bit_groups(wanted: Iterable[ScannedImage]) -> dict[str, list[str]]:
    """The 16-bit files of each sensor (`family/modality`) by path, sorted."""
    groups: dict[str, list[str]] = {}
    for image in wanted:
        if image.header.dtype == "uint16":
            groups.setdefault(_sensor(image), []).append(image.entry.path.as_posix())
    return {sensor: sorted(paths) for sensor, paths in sorted(groups.items())}


def plan_items(
    root: Path,
    images: list[ScannedImage],
    wanted: list[ScannedImage],
    size_px: tuple[int, int] | None,
    rules: PrepareRules,
    stretches: Mapping[str, Stretch],
) -> tuple[list[Item], list[Problem]]:
    """One item per wanted file, in order of their results.

    Args:
        root: the archives.
        images: all images, since the reference of a grid need not be wanted.
        wanted: those to prepare.
        size_px: height and width of the grids; None keeps the reference's own pixels.
        rules: for 16 bits.
        stretches: the 16-bit stretch by sensor, see `sixteen_bit_groups`; empty for `percentile_image`.

    Returns:
        The items, and a problem for each reference that could not be read; the next in order replaces it.
    """
    grids, problems = _location_grids(root, images, {family_location(image) for image in wanted}, size_px)
    own_percent = checked_percent(rules.uint16_percent) if rules.uint16 == "percentile_image" else None
    recipes: dict[tuple[str, Stretch | None, Percent | None], str] = {}  # 180,000 tiles share one
    items: list[Item] = []
    for image in wanted:
        e, (grid, grid_fingerprint) = image.entry, (None, "")
        if e.family == "stack":
            if family_location(image) not in grids:
                continue  # all its images are listed as unreadable
            grid, grid_fingerprint = grids[family_location(image)]
            out = f"stack/{e.city}/{e.location}/{e.modality}/{e.capture}.tif"
        else:  # flat: one folder for each of 90,000 tiles would cost more than the tiles
            out = f"eo_sar/tiles/{e.split}/{e.modality}/{e.capture}.tif"
        is_16_bit = image.header.dtype == "uint16"
        stretch = stretches.get(_sensor(image)) if is_16_bit else None
        percent = own_percent if is_16_bit else None
        parts = (grid_fingerprint, stretch, percent)
        if parts not in recipes:
            recipes[parts] = fingerprint([SCHEMA, *parts, *versions.later(versions.PREPARE)])
        items.append(Item(image, e.path.as_posix(), out, grid, stretch, percent, "", recipes[parts]))
    return sorted(items, key=lambda item: item.out), problems


def reference_rank(image: ScannedImage) -> tuple[int, bool, str]:
    """Sort key of a location's images, best reference first: RGB mosaic, RGB, IR mosaic, IR, SAR."""
    e = image.entry
    return {"rgb": 0, "ir": 1}.get(e.modality, 2), not e.mosaic, e.path.as_posix()


def _sensor(image: ScannedImage) -> str:
    return f"{image.entry.family}/{image.entry.modality}"


def _location_grids(
    root: Path,
    images: Iterable[ScannedImage],
    locations: Collection[FamilyLocation],
    size_px: tuple[int, int] | None,
) -> tuple[dict[FamilyLocation, tuple[Grid, str]], list[Problem]]:
    """Grid and its fingerprint of each stack location in `locations`; a problem per unreadable reference."""
    grids: dict[FamilyLocation, tuple[Grid, str]] = {}
    problems: list[Problem] = []
    stack = (image for image in images if image.usable and image.entry.family == "stack")
    ranked = sorted(stack, key=lambda image: (family_location(image), reference_rank(image)))
    for location, candidates in groupby(ranked, key=family_location):
        if location not in locations:
            continue
        for image in candidates:
            try:
                grid = Grid.of(root / image.entry.path).at_size(size_px)
            except ImageError as error:
                problems.append(Problem(image.entry.path.as_posix(), "unreadable", error.what))
            else:
                grids[location] = grid, fingerprint(grid.described())
                break
    return grids, problems
