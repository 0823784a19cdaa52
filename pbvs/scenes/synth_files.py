"""Where made scenes lie on Earth, the grids they are seen on, and the files they are written to."""

from __future__ import annotations

import math
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
MARGIN_M = 30.0  # ground painted about the chip: what throws shadows, leans or is seen by a turned footprint
_FINER = 1.4  # pixels of the canvas to a pixel of the chip
_GEOGRAPHIC = "EPSG:4326"
SIXTEEN_BIT_FACTOR = 16.0  # 12 bits of 16, as many cameras fill them
_APART_DEGREES = 0.004  # between locations of a city: no two overlap
_PER_ROW = 16


@dataclass(frozen=True)
class City:
    """A city of the stacks: where it lies, and the projections its images come in."""

    name: str
    latitude: float
    longitude: float
    optical_crs: str
    sar_crs: str


CITIES = (
    City("Bingham", 40.5230, -112.1510, "EPSG:26912", "EPSG:32612"),
    City("Centerfield", 39.1270, -111.8190, "EPSG:26912", "EPSG:32612"),
    City("Manhattan", 40.7540, -73.9840, "EPSG:26918", "EPSG:32618"),
    City("UC_Davis", 38.5380, -121.7570, "EPSG:26910", "EPSG:32610"),
)


@dataclass(frozen=True)
class Site:
    """A chip's place: its top left corner on Earth and in the city's optical projection (metres)."""

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
    """The place of a city's location number `index`: a cell of a lattice, moved a little at random.

    Numbers below 0 lie north of all others.
    """
    row, column = divmod(index, _PER_ROW)
    move_lat, move_lon = rng.uniform(0.0, 0.2, 2) * _APART_DEGREES
    latitude = round(city.latitude - row * _APART_DEGREES - move_lat, 5)
    longitude = round(city.longitude + column * _APART_DEGREES + move_lon, 5)
    east, north = transform(_GEOGRAPHIC, city.optical_crs, [longitude], [latitude])
    return Site(city, latitude, longitude, float(east[0]), float(north[0]))


def canvas_px_per_m(chip_px: float, chip_m: float = CHIP_M) -> float:
    """Pixels a metre of the canvas for a chip of about `chip_px` pixels a side."""
    return _FINER * chip_px / chip_m


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
    """The place on Earth of `plain_grid`, in the city's optical projection."""
    east, north = site.east + shift_m[0], site.north - shift_m[1]
    return Affine(CHIP_M / size_px[1], 0.0, east, 0.0, -CHIP_M / size_px[0], north)


@dataclass(frozen=True)
class Footprint:
    """The ground that a SAR image covers: a turned square about a place, metres from the chip's middle."""

    east_m: float
    south_m: float
    side_m: float
    angle: float


@dataclass(frozen=True)
class SarGrid:
    """A SAR image's pixels: on the canvas, on Earth (in the city's SAR projection), and which hold data."""

    grid: Grid
    affine: Affine
    valid: NDArray[np.bool_]


def sar_grid(site: Site, footprint: Footprint, pixel_m: float, px_per_m: float) -> SarGrid:
    """A north-up grid in the SAR projection that holds the footprint, as far as the canvas reaches."""
    turned = footprint.side_m / 2 * (abs(math.cos(footprint.angle)) + abs(math.sin(footprint.angle)))
    limit = CHIP_M / 2 + MARGIN_M - 2.0
    left, right = max(footprint.east_m - turned, -limit), min(footprint.east_m + turned, limit)
    top, bottom = max(footprint.south_m - turned, -limit), min(footprint.south_m + turned, limit)
    height, width = int((bottom - top) / pixel_m), int((right - left) / pixel_m)
    corner_east, corner_north = site.east + CHIP_M / 2 + left, site.north - CHIP_M / 2 - top
    east, north = transform(site.city.optical_crs, site.city.sar_crs, [corner_east], [corner_north])
    affine = Affine(pixel_m, 0.0, float(east[0]), 0.0, -pixel_m, float(north[0]))
    grid = Grid(height, width, _matrix_to_canvas(site, affine, px_per_m))
    return SarGrid(grid, affine, _inside(footprint, grid, px_per_m))


def _matrix_to_canvas(site: Site, affine: Affine, px_per_m: float) -> NDArray[np.float64]:
    """From pixels of a grid in the SAR projection to the canvas, by the true transform between the two.

    Over a chip the change of datum is affine to far below a pixel, so three points tell it.
    """
    far = 100.0
    places = [affine @ (0.5 + c, 0.5 + r) for c, r in ((0.0, 0.0), (far, 0.0), (0.0, far))]
    east, north = transform(
        site.city.sar_crs, site.city.optical_crs, [p[0] for p in places], [p[1] for p in places]
    )
    x = (np.array(east) - site.east + MARGIN_M) * px_per_m - 0.5
    y = (site.north - np.array(north) + MARGIN_M) * px_per_m - 0.5
    rows = [[(v[1] - v[0]) / far, (v[2] - v[0]) / far, v[0]] for v in (x, y)]
    return np.array(rows, np.float64)


def _inside(footprint: Footprint, grid: Grid, px_per_m: float) -> NDArray[np.bool_]:
    rows, columns = np.indices((grid.height_px, grid.width_px))
    m = grid.to_canvas
    middle = MARGIN_M + CHIP_M / 2
    x = (m[0, 0] * columns + m[0, 1] * rows + m[0, 2] + 0.5) / px_per_m - middle - footprint.east_m
    y = (m[1, 0] * columns + m[1, 1] * rows + m[1, 2] + 0.5) / px_per_m - middle - footprint.south_m
    cos, sin = math.cos(footprint.angle), math.sin(footprint.angle)
    half = footprint.side_m / 2
    inside: NDArray[np.bool_] = (np.abs(x * cos + y * sin) <= half) & (np.abs(y * cos - x * sin) <= half)
    return inside


# ---- stored values


def stored(image: Image, sixteen_bit: bool = False, valid: NDArray[np.bool_] | None = None) -> Stored:
    """Levels 0..255 as stored integers, rounded half to even: 1 or more where valid, 0 elsewhere.

    In 16 bits a level is 16 steps, so values fill 12 of the bits.
    """
    factor, kind = (SIXTEEN_BIT_FACTOR, np.uint16) if sixteen_bit else (1.0, np.uint8)
    values = np.rint(np.clip(image * factor, 1.0, WHITE * factor)).astype(kind)
    if valid is not None:
        values[~valid] = 0
    return values  # type: ignore[return-value]


# ---- files


def write_geotiff(path: Path, image: Stored, crs: str, where: Affine, nodata: int | None) -> None:
    """Writes `H,W` or `H,W,C` as a deflated GeoTIFF, whole or not at all; the same image, the same bytes.

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
        "transform": where,
        "nodata": nodata,
        "compress": "deflate",
        "predictor": 2,
        "photometric": "rgb" if bands.shape[0] == 3 else "minisblack",
    }
    try:
        with atomic_write(path) as beside, rasterio.open(beside, "w", **profile) as dataset:
            dataset.write(bands)
    except (RasterioError, OSError) as error:
        raise _cannot_write(path, error) from error


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes `H,W` or `H,W,C` uint8 as a PNG; errors as `write_geotiff`."""
    try:
        write_png(path, image[:, :, None] if image.ndim == 2 else image)
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes; errors as `write_geotiff`."""
    try:
        with atomic_write(path) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: Exception) -> DataError:
    return DataError(
        f"a made file cannot be written: {error}", where=path, next_step="make room, or choose another folder"
    )
