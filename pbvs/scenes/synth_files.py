"""Synthetic scenes on Earth: their sites, the grids of their images, and the files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform

from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write
from pbvs.core.pixels import WHITE, Stored, write_png
from pbvs.scenes.render import Grid, Image

CHIP_M = 200.0  # side of a location's chip
MARGIN_M = 30.0  # of ground painted around the chip, for shadows, layover and rotated footprints
_OVERSAMPLING = 1.4  # canvas pixels per chip pixel
_GEOGRAPHIC = "EPSG:4326"
SIXTEEN_BIT_FACTOR = 16.0  # 12 of the 16 bits, as in many cameras
_SPACING_DEGREES = 0.004  # between locations of a city, so that no two overlap
_PER_ROW = 16


@dataclass(frozen=True)
class City:
    """A city of the stacks: its position, and the projections of its images."""

    name: str
    latitude: float
    longitude: float
    optical_crs: str
    sar_crs: str

    @property
    def folder(self) -> str:
        """The name of its archive."""
        return f"Train_Data_{self.name}_SAR_IR_RGB"


CITIES = (
    City("Bingham", 40.5230, -112.1510, "EPSG:26912", "EPSG:32612"),
    City("Centerfield", 39.1270, -111.8190, "EPSG:26912", "EPSG:32612"),
    City("Manhattan", 40.7540, -73.9840, "EPSG:26918", "EPSG:32618"),
    City("UC_Davis", 38.5380, -121.7570, "EPSG:26910", "EPSG:32610"),
)


@dataclass(frozen=True)
class Site:
    """A chip's top left corner, on Earth (degrees) and in the city's optical projection (metres)."""

    city: City
    latitude: float
    longitude: float
    east: float
    north: float

    @property
    def name(self) -> str:
        """The location folder's name."""
        return f"{self.latitude:.5f}_{self.longitude:.5f}"


def site_of(city: City, index: int, rng: np.random.Generator) -> Site:
    """The site of a city's location number `index`: a lattice cell, with a small random offset.

    Numbers below 0 are north of all others.
    """
    row, column = divmod(index, _PER_ROW)
    move_lat, move_lon = rng.uniform(0.0, 0.2, 2) * _SPACING_DEGREES
    latitude = round(city.latitude - row * _SPACING_DEGREES - move_lat, 5)
    longitude = round(city.longitude + column * _SPACING_DEGREES + move_lon, 5)
    east, north = transform(_GEOGRAPHIC, city.optical_crs, [longitude], [latitude])
    return Site(city, latitude, longitude, float(east[0]), float(north[0]))


def canvas_px_per_m(chip_px: float, chip_m: float = CHIP_M) -> float:
    """The canvas' pixels per metre for a chip of about `chip_px` pixels per side."""
    return _OVERSAMPLING * chip_px / chip_m


# ---- grids


def plain_grid(
    size_px: tuple[int, int],
    px_per_m: float,
    shift_m: tuple[float, float] = (0.0, 0.0),
    chip_m: float = CHIP_M,
    margin_m: float = MARGIN_M,
) -> Grid:
    """A north-up grid of `size_px` (height, width) over the chip, moved (east, south) by `shift_m`."""
    scale_x, scale_y = chip_m / size_px[1] * px_per_m, chip_m / size_px[0] * px_per_m
    left, top = (margin_m + shift_m[0]) * px_per_m, (margin_m + shift_m[1]) * px_per_m
    matrix = [[scale_x, 0.0, left + 0.5 * scale_x - 0.5], [0.0, scale_y, top + 0.5 * scale_y - 0.5]]
    return Grid(size_px[0], size_px[1], np.array(matrix))


def optical_affine(site: Site, size_px: tuple[int, int], shift_m: tuple[float, float]) -> Affine:
    """The affine of `plain_grid` in the city's optical projection."""
    east, north = site.east + shift_m[0], site.north - shift_m[1]
    return Affine(CHIP_M / size_px[1], 0.0, east, 0.0, -CHIP_M / size_px[0], north)


@dataclass(frozen=True)
class Footprint:
    """The ground of a SAR image: a rotated square, its centre in metres from the chip's centre."""

    east_m: float
    south_m: float
    side_m: float
    angle: float


@dataclass(frozen=True)
class SarGrid:
    """A SAR image's grid on the canvas, its affine in the city's SAR projection, and its valid mask `H,W`."""

    grid: Grid
    affine: Affine
    valid: NDArray[np.bool_]


def sar_grid(site: Site, footprint: Footprint, pixel_m: float, px_per_m: float) -> SarGrid:
    """A north-up grid in the SAR projection that contains the footprint, within the canvas."""
    cos, sin = math.cos(footprint.angle), math.sin(footprint.angle)
    half = footprint.side_m / 2
    reach = half * (abs(cos) + abs(sin))
    limit = CHIP_M / 2 + MARGIN_M - 2.0
    left, right = max(footprint.east_m - reach, -limit), min(footprint.east_m + reach, limit)
    top, bottom = max(footprint.south_m - reach, -limit), min(footprint.south_m + reach, limit)
    height, width = int((bottom - top) / pixel_m), int((right - left) / pixel_m)
    corner_east, corner_north = site.east + CHIP_M / 2 + left, site.north - CHIP_M / 2 - top
    east, north = transform(site.city.optical_crs, site.city.sar_crs, [corner_east], [corner_north])
    affine = Affine(pixel_m, 0.0, float(east[0]), 0.0, -pixel_m, float(north[0]))
    # within a chip the change of datum is affine to far below a pixel, so three points define the matrix
    far = 100.0
    points = [affine @ (0.5 + c, 0.5 + r) for c, r in ((0.0, 0.0), (far, 0.0), (0.0, far))]
    east, north = transform(site.city.sar_crs, site.city.optical_crs, *zip(*points, strict=True))
    x = (np.array(east) - site.east + MARGIN_M) * px_per_m - 0.5
    y = (site.north - np.array(north) + MARGIN_M) * px_per_m - 0.5
    m = np.array([[(v[1] - v[0]) / far, (v[2] - v[0]) / far, v[0]] for v in (x, y)], np.float64)
    # valid pixels: those in the rotated square
    rows, columns = np.indices((height, width))
    centre = MARGIN_M + CHIP_M / 2
    x = (m[0, 0] * columns + m[0, 1] * rows + m[0, 2] + 0.5) / px_per_m - centre - footprint.east_m
    y = (m[1, 0] * columns + m[1, 1] * rows + m[1, 2] + 0.5) / px_per_m - centre - footprint.south_m
    valid = (np.abs(x * cos + y * sin) <= half) & (np.abs(y * cos - x * sin) <= half)
    return SarGrid(Grid(height, width, m), affine, valid)


# ---- stored values


def stored(image: Image, sixteen_bit: bool = False, valid: NDArray[np.bool_] | None = None) -> Stored:
    """Float values 0..255 as stored integers, rounded half to even: 1 or more where valid, 0 elsewhere.

    Returns:
        uint8, or uint16 of 16 times the value, which uses 12 of the bits.
    """
    factor, kind = (SIXTEEN_BIT_FACTOR, np.uint16) if sixteen_bit else (1.0, np.uint8)
    values = np.rint(np.clip(image * factor, 1.0, WHITE * factor)).astype(kind)
    if valid is not None:
        values[~valid] = 0
    return values  # type: ignore[return-value]


# ---- files


def write_geotiff(path: Path, image: Stored, crs: str, affine: Affine, nodata: int | None) -> None:
    """Writes `H,W` or `H,W,C` as a deflated GeoTIFF, atomically; the same image gives the same bytes.

    Raises:
        DataError: the file cannot be written.
    """
    bands = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": crs,
        "transform": affine,
        "nodata": nodata,
        "compress": "deflate",
        "predictor": 2,
        "photometric": "rgb" if bands.shape[0] == 3 else "minisblack",
    }
    with (
        _write_errors(path),
        atomic_write(path) as tmp_path,
        rasterio.open(tmp_path, "w", **profile) as dataset,
    ):
        dataset.write(bands)


def write_image(path: Path, image: NDArray[Any]) -> None:
    """Writes `H,W` or `H,W,C` uint8 as a PNG; errors as `write_geotiff`."""
    with _write_errors(path):
        write_png(path, image[:, :, None] if image.ndim == 2 else image)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes; errors as `write_geotiff`."""
    with _write_errors(path), atomic_write(path) as tmp_path:
        tmp_path.write_bytes(data)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, OSError) as error:
        what = f"a synthetic file cannot be written: {error}"
        raise DataError(what, where=path, next_step="free disk space, or choose another folder") from error
