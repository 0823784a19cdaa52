"""Tiny archives for the tests: images of one analytic scene, rendered in any CRS and grid."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import transform

from pbvs.core.pixels import write_png

BASE_CRS = "EPSG:26912"
CORNER = (400_000.0, 4_500_000.0)  # top left of the location, in BASE_CRS
SIDE_M = 64.0


def affine(pixel_m: float = 1.0, corner: tuple[float, float] = CORNER) -> Affine:
    return Affine(pixel_m, 0.0, corner[0], 0.0, -pixel_m, corner[1])


def affine_around(crs: str, size: int, margin: float = 0.25) -> Affine:
    """A north-up grid of `size` x `size` in another CRS that contains the location and a margin."""
    xs = np.array([CORNER[0], CORNER[0] + SIDE_M] * 2)
    ys = np.repeat([CORNER[1], CORNER[1] - SIDE_M], 2)
    east, north = (np.array(a) for a in transform(BASE_CRS, crs, xs, ys))
    width, height = np.ptp(east), np.ptp(north)
    pixel_x, pixel_y = width * (1 + 2 * margin) / size, height * (1 + 2 * margin) / size
    return Affine(pixel_x, 0, east.min() - margin * width, 0, -pixel_y, north.max() + margin * height)


def ground(size: tuple[int, int], crs: str, where: Affine) -> NDArray[np.float64]:
    """A smooth scene in [40,220] as a function of position on Earth, `H,W`, at a grid's pixel centres."""
    rows, columns = np.indices(size)
    xs = where.a * (columns + 0.5) + where.c
    ys = where.e * (rows + 0.5) + where.f
    east, north = transform(crs, BASE_CRS, xs.ravel(), ys.ravel())
    u = (np.array(east) - CORNER[0]) / SIDE_M
    v = (CORNER[1] - np.array(north)) / SIDE_M
    scene = 130 + 60 * np.sin(5 * u + 1) * np.cos(4 * v) + 30 * (u - v)
    return np.clip(scene, 40, 220).reshape(size)


def write_tiff(
    path: Path,
    image: NDArray,
    crs: str | None = BASE_CRS,
    where: Affine | None = None,
    nodata: float | None = None,
) -> Path:
    """`H,W` or `H,W,C` as a GeoTIFF."""
    bands = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "nodata": nodata,
    }
    if crs:
        profile |= {"crs": CRS.from_string(crs), "transform": where or affine()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(bands)
    return path


def colours(scene: NDArray[np.float64]) -> NDArray[np.uint8]:
    """`H,W` to `H,W,3` uint8 with three different bands."""
    return np.rint(np.stack([scene, scene * 0.8, 255 - scene], axis=2)).astype(np.uint8)


def infrared(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """IR as an exact function of RGB."""
    return np.rint(np.clip(1.3 * rgb.mean(axis=2), 0, 255)).astype(np.uint8)


def sar_in(
    path: Path, crs: str = "EPSG:32612", size: int = 96, nodata: float | None = 0.0, scale: float = 1.0
) -> Path:
    """The ground as a one-band SAR file in another CRS, `scale` times as bright (uint16 where over 1)."""
    where = affine_around(crs, size)
    dtype = np.uint16 if scale > 1 else np.uint8
    scene = np.rint(scale * ground((size, size), crs, where)).astype(dtype)
    return write_tiff(path, scene, crs, where, nodata)


def location_in(root: Path, city: str = "Bingham", name: str = "40.64610_-112.18230") -> Path:
    return root / f"Train_Data_{city}_SAR_IR_RGB" / name


def add_flight(location: Path, capture: str, size: int = 64, shade: float = 1.0) -> None:
    """RGB and IR of one flight on the location's grid."""
    where = affine(SIDE_M / size)
    rgb = colours(shade * ground((size, size), BASE_CRS, where))
    write_tiff(location / f"{capture}_rgb.tiff", rgb, where=where)
    write_tiff(location / f"{capture}_ir.tif", infrared(rgb), where=where)


def add_location(
    root: Path, city: str = "Bingham", name: str = "40.64610_-112.18230", flights: int = 1
) -> Path:
    """A location with SAR in another CRS and `flights` flights of RGB and IR, of 2019, 2020, ..."""
    location = location_in(root, city, name)
    sar_in(location / "20190611_UMBRA_GEC.tif")
    for n in range(flights):
        add_flight(location, f"flight_{2019 + n}0601", shade=1 - 0.1 * n)
    return location


def add_tiles(root: Path, n: int = 3, split: str = "train", size: int = 32, seed: int = 5) -> None:
    """`n` pairs of EO/SAR tiles of noise."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        for folder in ("SAR", "EO"):
            tile = rng.integers(0, 256, (size, size, 1), dtype=np.uint8)
            write_png(root / "Train_Data_and_Validation_EO_SAR" / folder / split / f"Gotcha_{i}.png", tile)
