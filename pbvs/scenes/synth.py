"""`make_archives`: synthetic scenes in the challenge's folder layout, with the real archives' difficulties.

Each location, tile and test image has a random generator of its own, from the seed, its kind and its number.
So the same seed gives the same bytes for any number of threads, and a larger set contains the smaller one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import call
from pathlib import Path
from typing import Literal

import numpy as np

from pbvs.core.challenge import TASKS
from pbvs.core.errors import UsageError
from pbvs.core.files import write_csv, write_json
from pbvs.core.pixels import Stored, resize
from pbvs.core.types import Progress
from pbvs.scenes import render
from pbvs.scenes import synth_files as files
from pbvs.scenes.scene import make_scene
from pbvs.scenes.synth_files import CITIES
from pbvs.scenes.synth_location import Nuisance, SarShift, Stream, SynthConfig, WrittenPart, make_location

Infrared = Literal["gray", "vegetation"]

SYNTH_MARK = "synth.json"
SHIFTS_NAME = "sar_shifts.csv"
SHIFT_COLUMNS = ("path", "east_m", "south_m", "east_px", "south_px")
TILES_FOLDER = "Train_Data_and_Validation_EO_SAR"

_TILE_PX = 256
_TILE_M = 150.0
_TILE_MARGIN_M = 25.0
_VALIDATION_EVERY = 6
_DEFAULTS = {"sar_shift_px": 0.0, "relief": 1.0}  # written to `synth.json` only where they differ


@dataclass(frozen=True)
class SynthSummary:
    """The result of `make_archives`.

    Attributes:
        out: the folder.
        files: number of files written below it.
        nuisances: (file or folder, the difficulty of the real archives it has), sorted.
        shifts: one per SAR file of the locations, sorted by path; empty without `sar_shift_px`.
    """

    out: Path
    files: int
    nuisances: list[Nuisance] = field(default_factory=list)
    shifts: list[SarShift] = field(default_factory=list)


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
    progress: Progress | None = None,
) -> SynthSummary:
    """Writes the four stack archives, the EO/SAR tiles, and test inputs with their targets.

    Args:
        out: a new or empty folder.
        locations: over the four cities in turn; with 4 or more every nuisance occurs.
        tiles: pairs of EO/SAR tiles; one in six is for validation.
        test_images: inputs per task, outside the training locations.
        seed: 0 or more.
        chip_px: typical side of a 200 m chip; sizes vary from 0.8 to 1.3 times this.
        ir: `gray`: exactly `clip(rint(gray_factor * mean(R,G,B)), 0, 255)` of the RGB as stored;
            `vegetation`: as `pbvs.scenes.render.infrared`.
        gray_factor: near infrared over gray.
        target_px: side of the three stack tasks' test targets.
        sar_shift_px: the georeferencing of every location's SAR file is off by up to this many pixels of the
            location's colour images, uniform over a disc; `sar_shifts.csv` lists the shifts
            (`SHIFT_COLUMNS`: the file, how far east and south of its true position it is georeferenced).
        relief: factor on terrain and heights; on level ground (0) SAR has no layover.
        overwrite: replace an earlier set in `out`; a folder with any other content is never touched.
        threads: number of worker threads; None: one per core. It changes no byte.
        progress: called with (parts done, number of parts).

    Raises:
        UsageError: a number out of range, or `out` is not empty.
        DataError: a file cannot be written.
    """
    config = SynthConfig(seed, chip_px, ir, gray_factor, target_px, sar_shift_px, relief)
    if min(locations, tiles, test_images) < 0 or locations + tiles + test_images == 0:
        raise UsageError("nothing to generate: set the number of locations, tiles or test images")
    _clear(out, overwrite)
    options = {key: value for key, value in asdict(config).items() if value != _DEFAULTS.get(key)}
    write_json(out / SYNTH_MARK, {**options, "made": "by pbvs data synth: no real place is shown"})
    jobs: list[Callable[[], WrittenPart]] = []
    jobs += [partial(make_location, out, config, n) for n in range(locations)]
    jobs += [partial(_make_tile, out, config, n) for n in range(tiles)]
    jobs += [partial(_make_test_image, out, config, task, n) for task in TASKS for n in range(test_images)]
    parts: list[WrittenPart] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for part in pool.map(call, jobs):  # after an error or an interrupt, no further job starts
            parts.append(part)
            if progress:
                progress(len(parts), len(jobs))
    shifts = sorted((shift for part in parts for shift in part.shifts), key=lambda shift: shift.path)
    if shifts:
        rows = [
            [shift.path.relative_to(out).as_posix()]
            + [f"{getattr(shift, column):.6f}" for column in SHIFT_COLUMNS[1:]]
            for shift in shifts
        ]
        write_csv(out / SHIFTS_NAME, SHIFT_COLUMNS, rows)
    n_files = 1 + bool(shifts) + sum(len(part.paths) for part in parts)
    return SynthSummary(out, n_files, sorted(x for part in parts for x in part.nuisances), shifts)


def _clear(out: Path, overwrite: bool) -> None:
    """Removes an earlier set from `out`, and nothing else.

    Raises:
        UsageError: `out` is a file, has other content, or has an earlier set and `overwrite` is False.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("the folder's path is a file", where=out)
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / SYNTH_MARK).is_file():
        raise UsageError(
            "the folder is not empty and not written by `pbvs data synth`",
            where=out,
            next_step="choose a new folder",
        )
    if not overwrite:
        raise UsageError(
            "the folder contains synthetic scenes", where=out, next_step="choose another, or add --overwrite"
        )
    for name in (*(city.folder for city in CITIES), TILES_FOLDER, "test", "test_targets"):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    (out / SHIFTS_NAME).unlink(missing_ok=True)


# ---- tiles and test images


def _make_tile(out: Path, config: SynthConfig, number: int) -> WrittenPart:
    """Writes EO/SAR tile pair `number`."""
    rng = np.random.default_rng([config.seed, Stream.TILE, number])
    split = "validation" if number % _VALIDATION_EVERY == 1 else "train"
    sar_path, eo_path = (out / TILES_FOLDER / kind / split / f"Gotcha_{number}.png" for kind in ("SAR", "EO"))
    return _write_tile_pair(sar_path, eo_path, rng, CITIES[number % len(CITIES)].name, config.relief)


def _write_tile_pair(
    sar_path: Path, eo_path: Path, rng: np.random.Generator, character: str, relief: float
) -> WrittenPart:
    """Writes SAR and panchromatic image of one scene on one grid, `256,256` each."""
    px_per_m = files.canvas_px_per_m(_TILE_PX, _TILE_M)
    side = _TILE_M + 2 * _TILE_MARGIN_M
    scene = make_scene(rng, character, (side, side), px_per_m, relief)
    grid = files.plain_grid((_TILE_PX, _TILE_PX), px_per_m, chip_m=_TILE_M, margin_m=_TILE_MARGIN_M)
    rgb = render.optical(scene, grid, render.random_flight(rng), rng).rgb
    sar = render.radar(scene, grid, render.random_pass(rng), rng)
    files.write_image(sar_path, files.stored(sar))
    files.write_image(eo_path, files.stored(render.panchromatic(rgb)))
    return WrittenPart([sar_path, eo_path])


def _make_test_image(out: Path, config: SynthConfig, task: str, number: int) -> WrittenPart:
    """Writes a task's test input `number` and its target, for stack tasks at the target size."""
    which = TASKS.index(task)
    rng = np.random.default_rng([config.seed, Stream.TEST, which, number])
    city = CITIES[(number + which) % len(CITIES)]
    source_path, target_path = (
        out / "test" / task / f"{number}.tiff",
        out / "test_targets" / task / f"{number}.png",
    )
    if task == "sar2eo":
        return _write_tile_pair(source_path.with_suffix(".png"), target_path, rng, city.name, config.relief)
    side = config.chip_px * rng.uniform(0.85, 1.22)
    height, width = (int(side * rng.uniform(0.95, 1.05)) for _ in range(2))
    size_px = (height, width + (height == width))  # never square
    extent = files.CHIP_M + 2 * files.MARGIN_M
    scene = make_scene(rng, city.name, (extent, extent), files.canvas_px_per_m(max(size_px)), config.relief)
    grid = files.plain_grid(size_px, scene.px_per_m)
    optical = render.optical(scene, grid, render.random_flight(rng), rng)
    target_size_px = (config.target_px, config.target_px)
    if task == "rgb2ir" and config.ir == "gray":  # the input has the target size, where infrared is exact
        source = files.stored(resize(optical.rgb, target_size_px))
        target: Stored = render.gray_infrared(source, config.gray_factor)
    else:
        source = rgb = files.stored(optical.rgb)
        if task != "rgb2ir":
            source = files.stored(render.radar(scene, grid, render.random_pass(rng), rng))
        image = optical.rgb
        if task != "sar2rgb" and config.ir == "gray":
            image = render.gray_infrared(rgb, config.gray_factor).astype(np.float64)
        elif task != "sar2rgb":
            image = render.infrared(rgb, optical, config.gray_factor, rng)
        target = files.stored(resize(np.atleast_3d(image), target_size_px))
    site = files.site_of(city, -1 - (number * len(TASKS) + which), rng)
    crs = city.optical_crs if task == "rgb2ir" else city.sar_crs
    affine = files.optical_affine(site, (source.shape[0], source.shape[1]), (0.0, 0.0))
    files.write_geotiff(source_path, source, crs, affine, None)
    files.write_image(target_path, target)
    return WrittenPart([source_path, target_path])
