"""Prepared captures on disk: tiled, deflated GeoTIFF uint8 with an internal mask, and parts of them read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pbvs.data.warp import Grid, Valid, quietly_opened, without_place_warnings
from pbvs.errors import DataError, ImageError
from pbvs.files import written_whole

_TILE_PX = 256

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


def write_capture(path: Path, stored: NDArray[np.uint8], valid: Valid, grid: Grid | None) -> None:
    """Writes `H,W,C` uint8 with its `H,W` validity, whole or not at all; the same image gives the same bytes.

    `grid` is None for tiles of no known place. The mask is written only where something is invalid.

    Raises:
        DataError: the disk is full or the folder cannot be written to.
    """
    height, width, bands = stored.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": bands,
        "dtype": "uint8",
        "compress": "deflate",
        "predictor": 2,
        "photometric": "rgb" if bands == 3 else "minisblack",
    }
    if min(height, width) >= _TILE_PX:
        profile |= {"tiled": True, "blockxsize": _TILE_PX, "blockysize": _TILE_PX}
    if grid is not None:
        profile |= {"crs": grid.crs, "transform": grid.transform}
    try:
        with (
            written_whole(path) as beside,
            without_place_warnings(),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(beside, "w", **profile) as dataset,
        ):
            dataset.write(stored.transpose(2, 0, 1))
            if not valid.all():
                dataset.write_mask(valid)
    except (RasterioError, OSError) as error:
        raise DataError(
            f"a prepared image cannot be written: {error}",
            where=path,
            next_step="make room on the disk, and run again",
        ) from error


def read_values(path: Path, box: Box | None = None) -> NDArray[np.uint8]:
    """`H,W,C` uint8 of a prepared capture: the whole (None) or the part in `box`.

    Raises:
        ImageError: missing or torn.
    """
    with _opened(path) as dataset:
        bands: NDArray[np.uint8] = dataset.read(window=_window(box))
    return np.ascontiguousarray(bands.transpose(1, 2, 0))


def read_valid(path: Path, box: Box | None = None) -> Valid:
    """`H,W` bool of a prepared capture, True where it holds an image; errors as `read_values`."""
    with _opened(path) as dataset:
        mask: Valid = dataset.dataset_mask(window=_window(box)) > 0
    return mask


def _window(box: Box | None) -> Window | None:
    return None if box is None else Window(box[1], box[0], box[3], box[2])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with quietly_opened(path) as dataset:
            yield dataset
    except RasterioError as error:
        raise ImageError(
            f"a prepared image cannot be read: {error}",
            where=path,
            next_step="delete the file and run `pbvs data prepare` again: it makes only what is missing",
        ) from error
