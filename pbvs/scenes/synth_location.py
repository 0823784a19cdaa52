"""One made location of the stacks: its captures, its mosaic, and the litter found beside them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from pbvs.core.pixels import Stored
from pbvs.scenes import render
from pbvs.scenes import synth_files as files
from pbvs.scenes.scene import Scene, make_scene
from pbvs.scenes.synth_files import CHIP_M, CITIES, City, Site

Nuisance = tuple[Path, str]

_MOST_CAPTURES = 5
_FIRST_DAY = datetime.date(2014, 4, 1)
_DAYS = 3400
_SUFFIXES = (".tiff", ".tif", ".TIF")
_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(96)
_SHIFT = 3  # keeps the chance of shifts apart from all other under one seed; `synth` counts the kinds
_DS_STORE = b"\x00\x00\x00\x01Bud1" + bytes(120)


@dataclass(frozen=True)
class Recipe:
    """What holds for a whole set; see `pbvs.scenes.synth.make_archives`."""

    seed: int
    chip_px: int
    ir: Literal["gray", "vegetation"]
    gray_factor: float
    target_px: int
    sar_shift_px: float = 0.0
    relief: float = 1.0


@dataclass(frozen=True)
class PutShift:
    """How far from its true place a SAR file says that it lies.

    Attributes:
        path: the file.
        east_m, south_m: in metres on the ground.
        east_px, south_px: in pixels of the location's colour images: columns to the right, rows down.
    """

    path: Path
    east_m: float
    south_m: float
    east_px: float
    south_px: float


@dataclass(frozen=True)
class Made:
    """The files written for one part of a set, the nuisances among them, and the shifts put into them."""

    paths: list[Path]
    nuisances: list[Nuisance] = field(default_factory=list)
    shifts: list[PutShift] = field(default_factory=list)


@dataclass
class _Location:
    """A location while it is written."""

    folder: Path
    recipe: Recipe
    site: Site
    index: int
    scene: Scene
    size_px: tuple[int, int]
    rng: np.random.Generator
    paths: list[Path] = field(default_factory=list)
    nuisances: list[Nuisance] = field(default_factory=list)
    shifts: list[PutShift] = field(default_factory=list)

    @property
    def city(self) -> str:
        return self.site.city.name

    def first_of(self, city: str) -> bool:
        """Whether this is the first location of a city: there the nuisances that must occur do."""
        return self.index == 0 and self.city == city

    def some(self, share: float, always_in: str) -> bool:
        """True for a share of the locations, and for the first of one city."""
        return bool(self.rng.random() < share) or self.first_of(always_in)

    def note(self, path: Path, what: str) -> None:
        """Notes a nuisance, each kind once a location."""
        if all(words != what for _, words in self.nuisances):
            self.nuisances.append((path, what))


def make_location(archive: Path, recipe: Recipe, city: City, index: int, rng: np.random.Generator) -> Made:
    """Writes a location's folder into `archive`.

    Raises:
        DataError: a file cannot be written.
    """
    site = files.site_of(city, index, rng)
    side = recipe.chip_px * rng.uniform(0.85, 1.2)
    size_px = int(side * rng.uniform(0.96, 1.04)), int(side * rng.uniform(0.96, 1.04))
    extent = files.CHIP_M + 2 * files.MARGIN_M
    px_per_m = files.canvas_px_per_m(max(size_px))
    scene = make_scene(rng, city.name, (extent, extent), px_per_m, recipe.relief)
    here = _Location(archive / site.name, recipe, site, index, scene, size_px, rng)
    n_optical = int(rng.integers(1, _MOST_CAPTURES))
    fewest = 2 if here.first_of("Centerfield") else 1  # the second covers the chip in part
    n_sar = int(rng.choice([n for n in range(fewest, _MOST_CAPTURES + 1) if n != n_optical]))
    _optical_captures(here, n_optical)
    _mosaic(here)
    _sar_captures(here, n_sar)
    _litter(here, archive)
    return Made(here.paths, here.nuisances, here.shifts)


def _dates(here: _Location, count: int) -> list[datetime.date]:
    days = here.rng.choice(_DAYS, count, replace=False)
    return [_FIRST_DAY + datetime.timedelta(int(day)) for day in sorted(days)]


def _suffix(here: _Location) -> str:
    choice = _SUFFIXES[int(here.rng.choice(3, p=[0.6, 0.25, 0.15]))]
    return {"Bingham": ".tiff", "Centerfield": ".TIF", "Manhattan": ".tif"}.get(
        here.city if here.index == 0 else "", choice
    )


# ---- optical


def _optical_captures(here: _Location, count: int) -> None:
    for n, day in enumerate(_dates(here, count)):
        shift = tuple(float(v) for v in here.rng.uniform(-1.0, 1.0, 2))
        seen = _seen(here, (shift[0], shift[1]))
        valid = _strip_edge(here) if n == 0 and here.some(0.15, "Bingham") else None
        sixteen = here.city == "Manhattan" and here.recipe.ir != "gray" and n % 2 == 0
        suffix, stem = _suffix(here), f"{day:%Y%m%d}"
        with_ir = n == 0 or here.rng.random() < 0.85
        names = [f"{stem}_rgb{suffix}", *([f"{stem}_ir{suffix}"] if with_ir else [])]
        _write_optical(here, seen, names, (shift[0], shift[1]), valid, sixteen)


def _seen(here: _Location, shift_m: tuple[float, float]) -> render.Optical:
    grid = files.plain_grid(here.size_px, here.scene.px_per_m, shift_m)
    return render.optical(here.scene, grid, render.random_flight(here.rng), here.rng)


def _strip_edge(here: _Location) -> NDArray[np.bool_]:
    """Valid pixels of an image that the edge of a flight strip cuts off at a slant."""
    rows, columns = np.indices(here.size_px) / max(here.size_px)
    lean, share = here.rng.uniform(0.05, 0.2), here.rng.uniform(0.05, 0.12)
    valid: NDArray[np.bool_] = columns + lean * rows > share
    return valid


def _write_optical(
    here: _Location,
    seen: render.Optical,
    names: list[str],
    shift_m: tuple[float, float],
    valid: NDArray[np.bool_] | None,
    sixteen_bit: bool,
) -> None:
    """Writes RGB and, when two names are given, its infrared."""
    recipe = here.recipe
    rgb = files.stored(seen.rgb, sixteen_bit, valid)
    images = [rgb]
    if len(names) > 1 and recipe.ir == "gray":
        images.append(render.gray_infrared(rgb, recipe.gray_factor))  # type: ignore[arg-type]
    elif len(names) > 1:
        levels = rgb / files.SIXTEEN_BIT_FACTOR if sixteen_bit else rgb
        ir = render.infrared(levels, seen, recipe.gray_factor, here.rng)
        images.append(files.stored(ir, sixteen_bit, valid))
    where = files.optical_affine(here.site, here.size_px, shift_m)
    declared = 0 if valid is not None and here.rng.random() < 0.5 else None
    for name, image in zip(names, images, strict=True):
        path = here.folder / name
        _geotiff(here, path, image, here.site.city.optical_crs, where, declared)
        if valid is not None:
            here.note(path, _border_words(declared))


def _mosaic(here: _Location) -> None:
    """A mosaic of two flights, with a seam between them; both spellings occur."""
    if here.index and here.rng.random() < 0.15:
        return
    first, second = _seen(here, (0.0, 0.0)), _seen(here, (0.0, 0.0))
    rows, columns = np.indices(here.size_px) / max(here.size_px)
    left = columns + here.rng.uniform(-0.3, 0.3) * (rows - 0.5) < here.rng.uniform(0.35, 0.65)
    seen = replace(
        first,
        rgb=np.where(left[:, :, None], first.rgb, second.rgb),
        light=np.where(left, first.light, second.light),
    )
    word = "mosiac" if here.city in ("Bingham", "UC_Davis") else "mosaic"
    suffix = _suffix(here)
    names = [f"{word}_rgb{suffix}", f"{word}_ir{suffix}"]
    _write_optical(here, seen, names, (0.0, 0.0), None, sixteen_bit=False)
    here.note(here.folder / names[0], f"mosaic spelt {word}")


# ---- radar


def _sar_captures(here: _Location, count: int) -> None:
    for n, day in enumerate(_dates(here, count)):
        footprint = _footprint(here, partial=count > 1 and n > 0 and n % 2 == 1)
        pixel_m = files.CHIP_M / here.size_px[0] * here.rng.uniform(0.85, 1.25)
        on = files.sar_grid(here.site, footprint, pixel_m, here.scene.px_per_m)
        image = render.radar(here.scene, on.grid, render.random_pass(here.rng), here.rng)
        sixteen = here.city == "Manhattan" and n % 2 == 0
        path = here.folder / _sar_name(here, day, n)
        declared = _declared(here, n)
        where = _moved(here, path, n, on.affine)
        _geotiff(here, path, files.stored(image, sixteen, on.valid), here.site.city.sar_crs, where, declared)
        here.note(path, _border_words(declared))
    if here.some(0.08, "Centerfield"):
        _torn(here)


def _moved(here: _Location, path: Path, n: int, where: Affine) -> Affine:
    """The place that the n-th SAR file tells: `where`, moved by up to the recipe's shift, which is noted.

    Drawn by a generator of the capture's own, so that no pixel depends on it.
    """
    if not here.recipe.sar_shift_px:
        return where
    rng = np.random.default_rng([here.recipe.seed, _SHIFT, CITIES.index(here.site.city), here.index, n])
    reach_px = here.recipe.sar_shift_px * np.sqrt(rng.uniform())  # uniform over a disc
    way = rng.uniform(0.0, 2 * np.pi)
    east_px, south_px = float(reach_px * np.cos(way)), float(reach_px * np.sin(way))
    east_m, south_m = east_px * CHIP_M / here.size_px[1], south_px * CHIP_M / here.size_px[0]
    here.shifts.append(PutShift(path, east_m, south_m, east_px, south_px))
    a, b, c, d, e, f = where[:6]
    return Affine(a, b, c + east_m, d, e, f - south_m)


def _declared(here: _Location, n: int) -> int | None:
    """Whether the n-th SAR file says that 0 is nodata: half do; of the first locations some surely."""
    says = bool(here.rng.random() < 0.5)
    if n == 0 and here.index == 0:
        says = here.city in ("Bingham", "Manhattan")
    return 0 if says else None


def _footprint(here: _Location, partial: bool) -> files.Footprint:
    """Whole cover, moved and turned a little; or a part of the chip (about two thirds)."""
    rng = here.rng
    reach = rng.uniform(45.0, 70.0) if partial else rng.uniform(0.0, 6.0)
    way = rng.uniform(0.0, 2 * np.pi)
    east, south = reach * np.cos(way), reach * np.sin(way)
    side = rng.uniform(195.0, 205.0) if partial else rng.uniform(214.0, 230.0)
    angle = rng.choice([-1.0, 1.0]) * rng.uniform(0.05, 0.16)
    return files.Footprint(float(east), float(south), float(side), float(angle))


def _sar_name(here: _Location, day: datetime.date, n: int) -> str:
    hour, minute, second = (int(here.rng.integers(top)) for top in (24, 60, 60))
    suffix = _suffix(here)
    if n == 0 and here.some(0.15, "UC_Davis"):
        name = f"{day:%Y-%m-%d}_spotlight{suffix}"
        here.note(here.folder / name, "SAR that is not named GEC")
        return name
    return f"{day:%Y-%m-%d}-{hour:02d}-{minute:02d}-{second:02d}_UMBRA-{4 + n:02d}_GEC{suffix}"


def _torn(here: _Location) -> None:
    """A download that broke off: the first third of a SAR file."""
    whole = here.paths[-1].read_bytes()
    path = here.folder / "2013-11-02-03-14-15_UMBRA-04_GEC.tif"
    files.write_bytes(path, whole[: max(64, len(whole) // 3)])
    here.paths.append(path)
    here.note(path, "unreadable: a truncated TIFF")


# ---- what else lies about


def _litter(here: _Location, archive: Path) -> None:
    name = here.paths[0].name
    found = [
        (here.some(0.2, "Bingham"), here.folder / f"._{name}", _APPLE_DOUBLE, "macOS litter ._name"),
        (here.some(0.2, "Centerfield"), here.folder / ".DS_Store", _DS_STORE, "macOS litter .DS_Store"),
        (
            here.some(0.1, "UC_Davis"),
            archive / "__MACOSX" / here.site.name / f"._{name}",
            _APPLE_DOUBLE,
            "macOS litter __MACOSX",
        ),
    ]
    for there, path, data, what in found:
        if there:
            files.write_bytes(path, data)
            here.paths.append(path)
            here.note(path, what)


def _geotiff(here: _Location, path: Path, image: Stored, crs: str, where: Affine, nodata: int | None) -> None:
    files.write_geotiff(path, image, crs, where, nodata)
    here.paths.append(path)
    if image.dtype == np.uint16:
        here.note(path, "uint16 where others are uint8")
    if path.suffix != ".tiff":
        here.note(path, f"suffix {path.suffix}")


def _border_words(declared: int | None) -> str:
    return f"nodata border 0, {'declared' if declared == 0 else 'not declared'}"
