"""One synthetic location of the stacks: its captures, its mosaic, and the stray files next to them."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from pbvs.core.errors import UsageError
from pbvs.core.pixels import Stored
from pbvs.scenes import render
from pbvs.scenes import synth_files as files
from pbvs.scenes.scene import Scene, make_scene
from pbvs.scenes.synth_files import CHIP_M, CITIES, Site

Nuisance = tuple[Path, str]

_MOST_CAPTURES = 5
_FIRST_DAY = datetime.date(2014, 4, 1)
_DAYS = 3400
_SUFFIXES = (".tiff", ".tif", ".TIF")
_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(96)
_DS_STORE = b"\x00\x00\x00\x01Bud1" + bytes(120)


class Stream(IntEnum):
    """The random streams of one seed, one per kind of part."""

    LOCATION = 0
    TILE = 1
    TEST = 2
    SAR_SHIFT = 3


@dataclass(frozen=True)
class SynthConfig:
    """The options of a whole set; see `pbvs.scenes.synth.make_archives`.

    Raises:
        UsageError: a value out of range.
    """

    seed: int
    chip_px: int
    ir: Literal["gray", "vegetation"]
    gray_factor: float
    target_px: int
    sar_shift_px: float = 0.0
    relief: float = 1.0

    def __post_init__(self) -> None:
        if self.seed < 0 or self.chip_px < 48 or self.target_px < 16 or not self.gray_factor > 0:
            raise UsageError(
                "the seed must be 0 or more, chips 48 pixels or more, targets 16 or more, the factor above 0"
            )
        if not (0.0 <= self.sar_shift_px < math.inf and 0.0 <= self.relief < math.inf):
            raise UsageError("the SAR shift and the relief must be 0 or more")
        if self.ir not in ("gray", "vegetation"):
            raise UsageError(f"unknown infrared {self.ir!r}", next_step="known: gray, vegetation")


@dataclass(frozen=True)
class SarShift:
    """The georeferencing error put into a SAR file.

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
class WrittenPart:
    """The files of one part of a set, the nuisances among them, and their SAR shifts."""

    paths: list[Path] = field(default_factory=list)
    nuisances: list[Nuisance] = field(default_factory=list)
    shifts: list[SarShift] = field(default_factory=list)


def make_location(out: Path, config: SynthConfig, number: int) -> WrittenPart:
    """Writes the folder of location `number` into its city's archive below `out`.

    The cities take turns, so more locations leave the first ones unchanged.

    Raises:
        DataError: a file cannot be written.
    """
    index, which = divmod(number, len(CITIES))
    city = CITIES[which]
    rng = np.random.default_rng([config.seed, Stream.LOCATION, which, index])
    site = files.site_of(city, index, rng)
    side = config.chip_px * rng.uniform(0.85, 1.2)
    size_px = int(side * rng.uniform(0.96, 1.04)), int(side * rng.uniform(0.96, 1.04))
    extent = CHIP_M + 2 * files.MARGIN_M
    scene = make_scene(rng, city.name, (extent, extent), files.canvas_px_per_m(max(size_px)), config.relief)
    location = _Location(out / city.folder / site.name, config, site, index, scene, size_px, rng)
    n_optical = int(rng.integers(1, _MOST_CAPTURES))
    fewest = 2 if location.is_first_of("Centerfield") else 1  # the second covers a part of the chip
    n_sar = int(rng.choice([n for n in range(fewest, _MOST_CAPTURES + 1) if n != n_optical]))
    location.write_optical(n_optical)
    location.write_mosaic()
    location.write_sar(n_sar)
    location.write_stray_files()
    return location.written


@dataclass(frozen=True)
class _Location:
    """Writes the files of one location, in the order of its methods."""

    folder: Path
    config: SynthConfig
    site: Site
    index: int
    scene: Scene
    size_px: tuple[int, int]
    rng: np.random.Generator
    written: WrittenPart = field(default_factory=WrittenPart)

    def is_first_of(self, city: str) -> bool:
        """Whether this is a city's first location, where the required nuisances occur."""
        return self.index == 0 and self.site.city.name == city

    def write_optical(self, count: int) -> None:
        """Writes `count` colour captures, most with infrared."""
        for n, day in enumerate(self._dates(count)):
            east, south = (float(v) for v in self.rng.uniform(-1.0, 1.0, 2))
            optical = self._render_optical((east, south))
            valid = None
            if n == 0 and self._occurs(0.15, "Bingham"):  # the edge of the flight strip crosses the image
                rows, columns = np.indices(self.size_px) / max(self.size_px)
                slant, fraction = self.rng.uniform(0.05, 0.2), self.rng.uniform(0.05, 0.12)
                valid = columns + slant * rows > fraction
            sixteen = self.site.city.name == "Manhattan" and self.config.ir != "gray" and n % 2 == 0
            suffix, stem = self._suffix(), f"{day:%Y%m%d}"
            with_ir = n == 0 or self.rng.random() < 0.85
            names = [f"{stem}_rgb{suffix}", *([f"{stem}_ir{suffix}"] if with_ir else [])]
            self._write_pair(optical, names, (east, south), valid, sixteen)

    def write_mosaic(self) -> None:
        """Writes a mosaic of two flights with a seam between them, for most locations."""
        if self.index and self.rng.random() < 0.15:
            return
        first, second = self._render_optical((0.0, 0.0)), self._render_optical((0.0, 0.0))
        rows, columns = np.indices(self.size_px) / max(self.size_px)
        left = columns + self.rng.uniform(-0.3, 0.3) * (rows - 0.5) < self.rng.uniform(0.35, 0.65)
        rgb = np.where(left[:, :, None], first.rgb, second.rgb)
        mosaic = replace(first, rgb=rgb, light=np.where(left, first.light, second.light))
        spelling = "mosiac" if self.site.city.name in ("Bingham", "UC_Davis") else "mosaic"
        suffix = self._suffix()
        names = [f"{spelling}_rgb{suffix}", f"{spelling}_ir{suffix}"]
        self._write_pair(mosaic, names, (0.0, 0.0), None, sixteen_bit=False)
        self._note(self.folder / names[0], f"mosaic spelt {spelling}")

    def write_sar(self, count: int) -> None:
        """Writes `count` SAR captures: odd ones cover about two thirds of the chip, the others all of it."""
        rng, city = self.rng, self.site.city
        for n, day in enumerate(self._dates(count)):
            partial = n % 2 == 1
            reach = rng.uniform(45.0, 70.0) if partial else rng.uniform(0.0, 6.0)
            direction = rng.uniform(0.0, 2 * np.pi)
            side = rng.uniform(195.0, 205.0) if partial else rng.uniform(214.0, 230.0)
            angle = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.05, 0.16))
            east, south = float(reach * np.cos(direction)), float(reach * np.sin(direction))
            pixel_m = CHIP_M / self.size_px[0] * rng.uniform(0.85, 1.25)
            footprint = files.Footprint(east, south, side, angle)
            on = files.sar_grid(self.site, footprint, pixel_m, self.scene.px_per_m)
            image = render.radar(self.scene, on.grid, render.random_pass(rng), rng)
            sixteen = city.name == "Manhattan" and n % 2 == 0
            hour, minute, second = (int(rng.integers(top)) for top in (24, 60, 60))
            time, suffix = f"{hour:02d}-{minute:02d}-{second:02d}", self._suffix()
            path = self.folder / f"{day:%Y-%m-%d}-{time}_UMBRA-{4 + n:02d}_GEC{suffix}"
            if n == 0 and self._occurs(0.15, "UC_Davis"):
                path = self.folder / f"{day:%Y-%m-%d}_spotlight{suffix}"
                self._note(path, "SAR that is not named GEC")
            declares = bool(rng.random() < 0.5)
            if n == 0 and self.index == 0:
                declares = city.name in ("Bingham", "Manhattan")
            affine = self._shifted_affine(on.affine, path, n)
            self._write_geotiff(path, files.stored(image, sixteen, on.valid), city.sar_crs, affine, declares)
            self._note_border(path, declares)
        if self._occurs(0.08, "Centerfield"):  # an interrupted download
            content = path.read_bytes()
            self._write_bytes(
                self.folder / "2013-11-02-03-14-15_UMBRA-04_GEC.tif",
                content[: max(64, len(content) // 3)],
                "unreadable: a truncated TIFF",
            )

    def write_stray_files(self) -> None:
        """Writes files that macOS leaves in archives."""
        double = f"._{self.written.paths[0].name}"
        macosx = self.folder.parent / "__MACOSX" / self.folder.name
        strays = [
            (self._occurs(0.2, "Bingham"), self.folder / double, _APPLE_DOUBLE, "._name"),
            (self._occurs(0.2, "Centerfield"), self.folder / ".DS_Store", _DS_STORE, ".DS_Store"),
            (self._occurs(0.1, "UC_Davis"), macosx / double, _APPLE_DOUBLE, "__MACOSX"),
        ]
        for occurs, path, data, what in strays:
            if occurs:
                self._write_bytes(path, data, f"macOS litter {what}")

    def _occurs(self, fraction: float, always_in: str) -> bool:
        """Whether a nuisance occurs: in a fraction of the locations, and in the first of one city."""
        return bool(self.rng.random() < fraction) or self.is_first_of(always_in)

    def _note(self, path: Path, nuisance: str) -> None:
        """Records a nuisance, each kind once per location."""
        if all(nuisance != known for _, known in self.written.nuisances):
            self.written.nuisances.append((path, nuisance))

    def _note_border(self, path: Path, declares_nodata: bool) -> None:
        self._note(path, f"nodata border 0, {'declared' if declares_nodata else 'not declared'}")

    def _dates(self, count: int) -> list[datetime.date]:
        days = self.rng.choice(_DAYS, count, replace=False)
        return [_FIRST_DAY + datetime.timedelta(int(day)) for day in sorted(days)]

    def _suffix(self) -> str:
        choice = _SUFFIXES[int(self.rng.choice(3, p=[0.6, 0.25, 0.15]))]
        fixed = {"Bingham": ".tiff", "Centerfield": ".TIF", "Manhattan": ".tif"}
        return fixed.get(self.site.city.name, choice) if self.index == 0 else choice

    def _render_optical(self, shift_m: tuple[float, float]) -> render.Optical:
        grid = files.plain_grid(self.size_px, self.scene.px_per_m, shift_m)
        return render.optical(self.scene, grid, render.random_flight(self.rng), self.rng)

    def _shifted_affine(self, affine: Affine, path: Path, n: int) -> Affine:
        """`affine` with the random shift of the n-th SAR file, which is recorded.

        The shift has a random stream of its own, so that no pixel depends on it.
        """
        if not self.config.sar_shift_px:
            return affine
        which = CITIES.index(self.site.city)
        rng = np.random.default_rng([self.config.seed, Stream.SAR_SHIFT, which, self.index, n])
        reach_px = self.config.sar_shift_px * np.sqrt(rng.uniform())  # uniform over a disc
        direction = rng.uniform(0.0, 2 * np.pi)
        east_px, south_px = float(reach_px * np.cos(direction)), float(reach_px * np.sin(direction))
        east_m, south_m = east_px * CHIP_M / self.size_px[1], south_px * CHIP_M / self.size_px[0]
        self.written.shifts.append(SarShift(path, east_m, south_m, east_px, south_px))
        return Affine(affine.a, affine.b, affine.c + east_m, affine.d, affine.e, affine.f - south_m)

    def _write_pair(
        self,
        optical: render.Optical,
        names: list[str],
        shift_m: tuple[float, float],
        valid: NDArray[np.bool_] | None,
        sixteen_bit: bool,
    ) -> None:
        """Writes RGB and, for two names, its infrared."""
        config = self.config
        rgb = files.stored(optical.rgb, sixteen_bit, valid)
        images = [rgb]
        if len(names) > 1 and config.ir == "gray":
            images.append(render.gray_infrared(rgb, config.gray_factor))
        elif len(names) > 1:
            rgb255 = rgb / files.SIXTEEN_BIT_FACTOR if sixteen_bit else rgb
            ir = render.infrared(rgb255, optical, config.gray_factor, self.rng)
            images.append(files.stored(ir, sixteen_bit, valid))
        affine = files.optical_affine(self.site, self.size_px, shift_m)
        declares = valid is not None and bool(self.rng.random() < 0.5)
        for name, image in zip(names, images, strict=True):
            path = self.folder / name
            self._write_geotiff(path, image, self.site.city.optical_crs, affine, declares)
            if valid is not None:
                self._note_border(path, declares)

    def _write_geotiff(self, path: Path, image: Stored, crs: str, affine: Affine, declares: bool) -> None:
        """Writes and records a GeoTIFF that `declares` nodata 0 or no nodata."""
        files.write_geotiff(path, image, crs, affine, 0 if declares else None)
        self.written.paths.append(path)
        if image.dtype == np.uint16:
            self._note(path, "uint16 where others are uint8")
        if path.suffix != ".tiff":
            self._note(path, f"suffix {path.suffix}")

    def _write_bytes(self, path: Path, data: bytes, nuisance: str) -> None:
        files.write_bytes(path, data)
        self.written.paths.append(path)
        self._note(path, nuisance)
