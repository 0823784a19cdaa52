"""`make_archives`: made scenes in the challenge's folder layout, with the difficulties of the real archives.

Each location, tile and test image has a generator of its own, from the seed, its kind and its number. So the
same seed gives the same bytes whatever the number of threads, and a larger set holds the smaller one.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from pbvs.core.errors import UsageError
from pbvs.core.files import write_csv, write_json
from pbvs.core.pixels import Stored, resize
from pbvs.scenes import render
from pbvs.scenes import synth_files as files
from pbvs.scenes.scene import Scene, make_scene
from pbvs.scenes.synth_location import Made, Nuisance, PutShift, Recipe, make_location

Infrared = Literal["gray", "vegetation"]

SYNTH_MARK = "synth.json"
SHIFTS_NAME = "sar_shifts.csv"
SHIFT_COLUMNS = ("path", "east_m", "south_m", "east_px", "south_px")
TILES_FOLDER = "Train_Data_and_Validation_EO_SAR"
TEST_TASKS = ("sar2eo", "sar2rgb", "rgb2ir", "sar2ir")

_LOCATION, _TILE, _TEST = 0, 1, 2  # keep the kinds of chance apart under one seed
_TILE_PX = 256
_TILE_M = 150.0
_TILE_MARGIN_M = 25.0
_VALIDATION_EVERY = 6
_AS_SEEN = {"sar_shift_px": 0.0, "relief": 1.0}  # told only where a set departs from it


@dataclass(frozen=True)
class SynthSummary:
    """What `make_archives` wrote.

    Attributes:
        out: the folder.
        files: number of files written below it.
        nuisances: (file or folder, which difficulty of the real archives it shows), sorted.
        shifts: one a SAR file of the locations, sorted by path; empty where none was put in.
    """

    out: Path
    files: int
    nuisances: list[Nuisance] = field(default_factory=list)
    shifts: list[PutShift] = field(default_factory=list)


def make_archives(
    out: Path,
    *,
    locations: int = 12,
    tiles: int = 48,
    test_images: int = 4,
    seed: int = 0,
    chip_px: int = 320,
    ir: Infrared = "vegetation",
    gray_factor: float = 1.3,
    target_px: int = 1024,
    sar_shift_px: float = 0.0,
    relief: float = 1.0,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SynthSummary:
    """Writes the four stack archives, the EO/SAR tiles, and test inputs with their targets.

    Args:
        out: a new or empty folder.
        locations: over the four cities in turn; from 4 on every nuisance occurs.
        tiles: pairs of EO/SAR tiles; one in six is for validation.
        test_images: inputs of each of the four tasks, at places that are not trained on.
        seed: 0 or more.
        chip_px: side of a 200 m chip, about: sizes vary from 0.8 to 1.3 times this.
        ir: `gray`: exactly `clip(rint(gray_factor * mean(R,G,B)), 0, 255)` of the RGB as stored;
            `vegetation`: as `pbvs.scenes.render.infrared`.
        gray_factor: near infrared over gray.
        target_px: side of the three stack tasks' test targets.
        sar_shift_px: every SAR file of a location tells a place that is wrong by up to this many pixels of
            the location's colour images, uniform over a disc; what was put in is told in `sar_shifts.csv`
            (`SHIFT_COLUMNS`: the file, how far east and south of its true place it says it lies).
        relief: what terrain and heights are multiplied by; on level ground (0) nothing leans in SAR.
        overwrite: replace an earlier set in `out`; a folder that holds anything else is never touched.
        threads: at work; None takes one a core. It changes no byte.
        progress: called with (parts done, parts in all).

    Raises:
        UsageError: a number out of range, or `out` holds something.
        DataError: the disk is full or cannot be written to.
    """
    recipe = Recipe(seed, chip_px, ir, gray_factor, target_px, sar_shift_px, relief)
    _check_numbers(recipe, locations, tiles, test_images)
    _clear(out, overwrite)
    told = {key: value for key, value in asdict(recipe).items() if value != _AS_SEEN.get(key)}
    write_json(out / SYNTH_MARK, {**told, "made": "by pbvs data synth: no real place is shown"})
    jobs: list[Callable[[], Made]] = []
    jobs += [partial(_location, out, recipe, n) for n in range(locations)]
    jobs += [partial(_tile, out, recipe, n) for n in range(tiles)]
    jobs += [partial(_test_image, out, recipe, task, n) for task in TEST_TASKS for n in range(test_images)]
    made = _run(jobs, threads or os.cpu_count() or 1, progress)
    nuisances = sorted(nuisance for one in made for nuisance in one.nuisances)
    shifts = sorted((shift for one in made for shift in one.shifts), key=lambda shift: shift.path)
    if shifts:
        _write_shifts(out, shifts)
    n_files = 1 + bool(shifts) + sum(len(one.paths) for one in made)
    return SynthSummary(out, n_files, nuisances, shifts)


def _write_shifts(out: Path, shifts: list[PutShift]) -> None:
    rows: list[list[str]] = []
    for shift in shifts:
        numbers = (shift.east_m, shift.south_m, shift.east_px, shift.south_px)
        rows.append([shift.path.relative_to(out).as_posix(), *(f"{number:.6f}" for number in numbers)])
    write_csv(out / SHIFTS_NAME, SHIFT_COLUMNS, rows)


def _check_numbers(recipe: Recipe, locations: int, tiles: int, test_images: int) -> None:
    if min(locations, tiles, test_images) < 0 or locations + tiles + test_images == 0:
        raise UsageError("nothing to make: give a number of locations, tiles or test images")
    if recipe.seed < 0 or recipe.chip_px < 48 or recipe.target_px < 16 or not recipe.gray_factor > 0:
        raise UsageError(
            "the seed is 0 or more, chips 48 pixels or more, targets 16 or more, the factor above 0"
        )
    if not (0.0 <= recipe.sar_shift_px < math.inf and 0.0 <= recipe.relief < math.inf):
        raise UsageError("the shift of SAR and the relief are 0 or more")
    if recipe.ir not in ("gray", "vegetation"):
        raise UsageError(f"no infrared is called {recipe.ir!r}", next_step="known: gray, vegetation")


def _clear(out: Path, overwrite: bool) -> None:
    """Makes sure that `out` is empty; removes what an earlier run made there, and that alone."""
    if out.exists() and not out.is_dir():
        raise UsageError("there is a file where the folder should be", where=out)
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / SYNTH_MARK).is_file():
        raise UsageError(
            "the folder holds something that was not made here", where=out, next_step="choose a new folder"
        )
    if not overwrite:
        raise UsageError(
            "the folder holds made scenes", where=out, next_step="choose another, or add --overwrite"
        )
    for name in (*(_archive(city) for city in files.CITIES), TILES_FOLDER, "test", "test_targets"):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    (out / SHIFTS_NAME).unlink(missing_ok=True)


def _archive(city: files.City) -> str:
    return f"Train_Data_{city.name}_SAR_IR_RGB"


def _run(
    jobs: list[Callable[[], Made]], threads: int, progress: Callable[[int, int], None] | None
) -> list[Made]:
    made: list[Made] = []
    pool = ThreadPoolExecutor(threads)
    try:
        for done in [pool.submit(job) for job in jobs]:
            made.append(done.result())
            if progress:
                progress(len(made), len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or an interrupt nothing more is begun
    return made


# ---- the three kinds of part


def _location(out: Path, recipe: Recipe, number: int) -> Made:
    """The location of a number: the cities take turns, so that more locations leave the first as they are."""
    index, which = divmod(number, len(files.CITIES))
    city = files.CITIES[which]
    rng = np.random.default_rng([recipe.seed, _LOCATION, which, index])
    return make_location(out / _archive(city), recipe, city, index, rng)


def _tile(out: Path, recipe: Recipe, number: int) -> Made:
    rng = np.random.default_rng([recipe.seed, _TILE, number])
    sar, eo = _tile_pair(rng, files.CITIES[number % len(files.CITIES)].name, recipe.relief)
    split = "validation" if number % _VALIDATION_EVERY == 1 else "train"
    name = f"Gotcha_{number}.png"
    paths = [out / TILES_FOLDER / kind / split / name for kind in ("SAR", "EO")]
    for path, image in zip(paths, (sar, eo), strict=True):
        files.write_image(path, _bytes(image))
    return Made(paths)


def _tile_pair(rng: np.random.Generator, character: str, relief: float) -> tuple[render.Image, render.Image]:
    """SAR and panchromatic image of one ground on one grid, `256,256` each."""
    px_per_m = files.canvas_px_per_m(_TILE_PX, _TILE_M)
    side = _TILE_M + 2 * _TILE_MARGIN_M
    scene = make_scene(rng, character, (side, side), px_per_m, relief)
    grid = files.plain_grid((_TILE_PX, _TILE_PX), px_per_m, chip_m=_TILE_M, margin_m=_TILE_MARGIN_M)
    rgb = render.optical(scene, grid, render.random_flight(rng), rng).rgb
    return render.radar(scene, grid, render.random_pass(rng), rng), render.panchromatic(rgb)


def _test_image(out: Path, recipe: Recipe, task: str, number: int) -> Made:
    which = TEST_TASKS.index(task)
    rng = np.random.default_rng([recipe.seed, _TEST, which, number])
    city = files.CITIES[(number + which) % len(files.CITIES)]
    target_path = out / "test_targets" / task / f"{number}.png"
    if task == "sar2eo":
        source_path = out / "test" / task / f"{number}.png"
        sar, eo = _tile_pair(rng, city.name, recipe.relief)
        files.write_image(source_path, _bytes(sar))
        files.write_image(target_path, _bytes(eo))
        return Made([source_path, target_path])
    source_path = out / "test" / task / f"{number}.tiff"
    source, target = _test_pair(rng, recipe, task, city.name)
    site = files.site_of(city, -1 - (number * len(TEST_TASKS) + which), rng)
    crs = city.optical_crs if task == "rgb2ir" else city.sar_crs
    where = files.optical_affine(site, (source.shape[0], source.shape[1]), (0.0, 0.0))
    files.write_geotiff(source_path, source, crs, where, None)
    files.write_image(target_path, target)
    return Made([source_path, target_path])


def _test_pair(
    rng: np.random.Generator, recipe: Recipe, task: str, character: str
) -> tuple[Stored, np.ndarray]:
    """The input as stored, and the target at the target size, of one chip."""
    size = _test_size(rng, recipe.chip_px)
    px_per_m = files.canvas_px_per_m(max(size))
    side = files.CHIP_M + 2 * files.MARGIN_M
    scene = make_scene(rng, character, (side, side), px_per_m, recipe.relief)
    grid = files.plain_grid(size, px_per_m)
    seen = render.optical(scene, grid, render.random_flight(rng), rng)
    if task == "rgb2ir" and recipe.ir == "gray":
        rgb = _bytes(_at_target(seen.rgb, recipe))
        return rgb, render.gray_infrared(rgb, recipe.gray_factor)
    rgb = _bytes(seen.rgb)
    if task == "rgb2ir":
        return rgb, _bytes(_at_target(_infrared(seen, rgb, recipe, rng), recipe))
    sar = _bytes(_sar(scene, grid, rng))
    if task == "sar2rgb":
        return sar, _bytes(_at_target(seen.rgb, recipe))
    return sar, _bytes(_at_target(_infrared(seen, rgb, recipe, rng), recipe))


def _sar(scene: Scene, grid: render.Grid, rng: np.random.Generator) -> render.Image:
    return render.radar(scene, grid, render.random_pass(rng), rng)


def _infrared(
    seen: render.Optical, rgb: np.ndarray, recipe: Recipe, rng: np.random.Generator
) -> render.Image:
    if recipe.ir == "gray":
        return render.gray_infrared(rgb, recipe.gray_factor).astype(np.float64)
    return render.infrared(rgb, seen, recipe.gray_factor, rng)


def _test_size(rng: np.random.Generator, chip_px: int) -> tuple[int, int]:
    """Height and width within 0.8 and 1.3 of `chip_px`, never equal."""
    side = chip_px * rng.uniform(0.85, 1.22)
    height, width = (int(side * rng.uniform(0.95, 1.05)) for _ in range(2))
    return height, width + (height == width)


def _at_target(image: render.Image, recipe: Recipe) -> render.Image:
    whole = image[:, :, None] if image.ndim == 2 else image
    return resize(whole, (recipe.target_px, recipe.target_px))


def _bytes(image: render.Image) -> np.ndarray:
    """Levels as uint8, 0 kept for what holds no data."""
    return files.stored(image)
