"""The data layer beside the plain loops that it replaces, both in one run.

    python benchmarks/data_layer.py FOLDER [--data ROOT] [--files N] [--mosaic-px N] [--record FILE]

FOLDER is for scratch (some gigabytes). ROOT holds archives in the challenge's layout for `prepare`; without
it scenes are made. Prints a table; `--record` writes it with the date and the hardware.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import crops
import many_files
import rasterio
from big_mosaic import measure as measure_mosaic
from hardware import processor
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import Resampling, reproject

from pbvs.archives.layouts import MODALITIES, find_images
from pbvs.archives.scan import scan
from pbvs.prepare.grid import Grid
from pbvs.prepare.prepare import prepare
from pbvs.scenes.synth import make_archives

SIDE_PX = 1024
Row = tuple[str, str, str, str]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# ---- scan


def open_one_by_one(paths: list[Path]) -> None:
    """What a script does: every file opened, its header looked at."""
    for path in paths:
        with rasterio.open(path) as dataset:
            _ = (dataset.height, dataset.width, dataset.count, dataset.dtypes[0])
            _ = (str(dataset.crs), dataset.transform, dataset.nodata)


def scan_rows(folder: Path, n_files: int) -> Iterator[Row]:
    root = folder / "many"
    many_files.write_many(root, n_files)
    paths = [root / entry.path for entry in find_images(root).entries]
    tiffs = [path for path in paths if path.suffix != ".png"]
    scan(root)  # both sides find the files in the system's cache
    shutil.rmtree(os.environ["PBVS_CACHE"])
    unwrap = seconds(lambda: open_one_by_one(paths))
    first = seconds(lambda: scan(root))
    again = seconds(lambda: scan(root))
    what = f"scan of {len(paths)} files, {len(tiffs)} of them GeoTIFF"
    yield what, f"rasterio.open loop {unwrap:.2f} s", f"{first:.2f} s", f"{unwrap / first:.1f} x"
    yield "the same again", f"rasterio.open loop {unwrap:.2f} s", f"{again:.2f} s", f"{unwrap / again:.1f} x"


# ---- prepare


def warp_one_by_one(root: Path, out: Path) -> int:
    """What a script does: each image read whole, warped to its location's first RGB, and written."""
    found = [e for e in find_images(root).entries if e.family == "stack"]
    grids: dict[str, Grid] = {}
    for entry in sorted(found, key=lambda e: (e.modality != "rgb", not e.mosaic, e.path.as_posix())):
        grids.setdefault(entry.location, Grid.of(root / entry.path).at_size((SIDE_PX, SIDE_PX)))
    n_done = 0
    for number, entry in enumerate(found):
        try:
            warp_one(root / entry.path, grids[entry.location], out / f"{number}.tif")
        except RasterioError:
            continue  # a torn file: prepare passes it over too
        n_done += 1
    return n_done


def warp_one(path: Path, grid: Grid, out: Path) -> None:
    with rasterio.open(path) as source:
        profile = {
            **{"driver": "GTiff", "height": grid.height_px, "width": grid.width_px, "count": source.count},
            **{
                "dtype": source.dtypes[0],
                "crs": grid.crs,
                "transform": grid.transform,
                "compress": "deflate",
            },
        }
        with rasterio.open(out, "w", **profile) as written:
            for band in range(1, source.count + 1):
                reproject(
                    rasterio.band(source, band),
                    rasterio.band(written, band),
                    resampling=Resampling.bilinear,
                )


def prepare_rows(folder: Path, root: Path) -> Iterator[Row]:
    out, plain_out = folder / "prepared", folder / "plain"
    plain_out.mkdir()
    wanted = {"modalities": MODALITIES, "families": ("stack",), "size_px": (SIDE_PX, SIDE_PX)}
    started = time.perf_counter()
    n_plain = warp_one_by_one(root, plain_out)
    unwrap = n_plain / (time.perf_counter() - started)
    started = time.perf_counter()
    n_ours = prepare(root, out, workers=os.cpu_count() or 1, **wanted).n_images
    ours = n_ours / (time.perf_counter() - started)
    again = seconds(lambda: prepare(root, out, **wanted))
    what = f"prepare {n_ours} captures at {SIDE_PX} px"
    yield what, f"one by one {unwrap:.1f} images/s", f"{ours:.1f} images/s", f"{ours / unwrap:.1f} x"
    yield "the same again, nothing to do", "-", f"{again:.2f} s", "-"


# ---- crops and the big mosaic


def crop_rows(folder: Path) -> Iterator[Row]:
    for what, (unwrap, ours) in crops.measure(folder / "crops").items():
        yield what, f"whole PNG {unwrap:.0f}/s", f"{ours:.0f}/s", f"{ours / unwrap:.1f} x"


def mosaic_lines(folder: Path, side_px: int) -> Iterator[str]:
    yield "| mosaic | seconds | peak MiB | of these by imports |"
    yield "| --- | --- | --- | --- |"
    for told in measure_mosaic(folder / "mosaic", side_px):
        cells = told["what"], f"{told['seconds']:.1f}", told["peak_mib"], told["imports_mib"]
        yield f"| {' | '.join(map(str, cells))} |"


def hardware() -> str:
    versions = f"rasterio {rasterio.__version__}, Python {platform.python_version()}"
    return f"{processor()}, no GPU used; {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--mosaic-px", type=int, default=20_000)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    asked.folder.mkdir(parents=True)  # a new one: nothing left over is measured
    os.environ["PBVS_CACHE"] = str(asked.folder / "cache")
    if asked.data is None:
        asked.data = asked.folder / "made"
        make_archives(asked.data, locations=12, tiles=0, test_images=0, chip_px=SIDE_PX)
    rows = [
        *scan_rows(asked.folder, asked.files),
        *prepare_rows(asked.folder, asked.data),
        *crop_rows(asked.folder),
    ]
    lines = [
        f"{datetime.date.today()}; {hardware()}",
        "",
        "| what | plain | pbvs | ratio |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", "Peak memory of one capture, in a process of its own:", ""]
    lines += mosaic_lines(asked.folder, asked.mosaic_px)
    print("\n".join(lines))
    if asked.record:
        asked.record.write_text("# The data layer beside plain loops\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
