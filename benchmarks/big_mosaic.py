"""Peak memory and time of bringing a mosaic far larger than memory should hold onto its grid.

    python benchmarks/big_mosaic.py FOLDER [--side 20000]

FOLDER is for scratch (some gigabytes at the full side). Each capture is made in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window

_BLOCK_PX = 1024
_PIXEL_M = 0.5  # of the optical mosaic, in EPSG:3395
_CORNER = (-12_485_000.0, 4_900_000.0)  # in Utah
SMALL_PX = 1024


def write_mosaic(path: Path, side_px: int, bands: int, where: Affine, crs: str, **profile: Any) -> Path:
    """A made mosaic of hills and grain, written block by block; one band has a slanted border of nodata 0."""
    shape = {"height": side_px, "width": side_px, "count": bands, "dtype": "uint8"}
    place = {"crs": CRS.from_string(crs), "transform": where, "nodata": 0 if bands == 1 else None}
    packed = {"compress": "deflate", "zlevel": 1, "predictor": 2, "bigtiff": "IF_SAFER"}
    grain = np.random.default_rng(0).integers(0, 32, (_BLOCK_PX, _BLOCK_PX, bands), dtype=np.uint8)
    with (
        rasterio.Env(GDAL_CACHEMAX=256 << 20),
        rasterio.open(path, "w", driver="GTiff", **shape, **place, **packed, **profile) as dataset,
    ):
        for top in range(0, side_px, _BLOCK_PX):
            rows = np.concatenate(
                [_block(top, left, side_px, grain) for left in range(0, side_px, _BLOCK_PX)], axis=1
            )
            dataset.write(rows.transpose(2, 0, 1), window=Window(0, top, side_px, len(rows)))
    return path


def _block(top: int, left: int, side_px: int, grain: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = min(_BLOCK_PX, side_px - top), min(_BLOCK_PX, side_px - left)
    y = np.arange(top, top + height, dtype=np.float32)[:, None]
    x = np.arange(left, left + width, dtype=np.float32)[None]
    hills = 110 + 60 * np.sin(x / 211) * np.cos(y / 307)
    block: NDArray[np.uint8] = hills.astype(np.uint8)[:, :, None] + grain[:height, :width]
    if grain.shape[2] == 1:
        slant = side_px / 10
        block[(x + y / 30 < slant) | (side_px - x - y / 30 < slant) | (y < slant / 2)] = 0
    return block


def write_both(folder: Path, side_px: int) -> dict[str, Path]:
    """The optical mosaic in tiles and in strips (EPSG:3395), and a SAR mosaic of the same ground in UTM."""
    folder.mkdir(parents=True, exist_ok=True)
    where = Affine(_PIXEL_M, 0, _CORNER[0], 0, -_PIXEL_M, _CORNER[1])
    xs = [_CORNER[0] + u * side_px * _PIXEL_M for u in (0, 1, 0, 1)]
    ys = [_CORNER[1] - v * side_px * _PIXEL_M for v in (0, 0, 1, 1)]
    east, north = (np.array(a) for a in transform("EPSG:3395", "EPSG:32612", xs, ys))
    pixel = 1.1 * max(np.ptp(east), np.ptp(north)) / side_px  # 5 % more on each side: nodata and some more
    corner = east.mean() - pixel * side_px / 2, north.mean() + pixel * side_px / 2
    in_utm = Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    return {
        "RGB in tiles": write_mosaic(folder / "rgb_tiles.tif", side_px, 3, where, "EPSG:3395", **tiles),
        "RGB in strips": write_mosaic(folder / "rgb_strips.tif", side_px, 3, where, "EPSG:3395"),
        "SAR in another CRS": write_mosaic(folder / "sar.tif", side_px, 1, in_utm, "EPSG:32612"),
    }


def measure(folder: Path, side_px: int = 20_000) -> list[dict[str, Any]]:
    """One row for each mosaic and each size of the grid (see `make_one`), with `what` before it."""
    sources = write_both(folder, side_px)
    rows = []
    for what, source in sources.items():
        for size_px in (SMALL_PX, side_px):
            arguments = [str(source), str(sources["RGB in tiles"]), str(folder / "made.tif"), str(size_px)]
            command = [sys.executable, __file__, "--one", *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"what": f"{side_px} px {what} to {size_px} px", **json.loads(done.stdout)})
    return rows


def make_one(source: Path, reference: Path, out: Path, size_px: int) -> dict[str, Any]:
    """Makes one capture; what it took.

    Returns:
        `seconds`, `peak_mib` of the whole process, `imports_mib` of it before any work, `valid_fraction` and
        `mbytes` of the file.
    """
    from pbvs.prepare.capture import make_capture
    from pbvs.prepare.grid import Grid

    imports = peak_mib()
    started = time.perf_counter()
    grid = Grid.of(reference).at_size((size_px, size_px))
    made = make_capture(source, out, grid=grid, stretch=None)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mib": round(peak_mib()),
        "imports_mib": round(imports),
        "valid_fraction": made.valid_fraction,
        "mbytes": round(made.n_bytes / 1e6, 1),
    }


def peak_mib() -> float:
    """The most memory that this process has held, in MiB.

    `ru_maxrss` also counts what the parent held when it started this process; Linux knows better.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        source, reference, out, size_px = asked.one
        print(json.dumps(make_one(Path(source), Path(reference), Path(out), int(size_px))))
    elif asked.folder is None:
        parser.error("name a folder for scratch")
    else:
        for row in measure(asked.folder, asked.side):
            print(json.dumps(row))


if __name__ == "__main__":
    main()
