"""Where an image lies on Earth, carried from an input to what is made of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write


class Place(NamedTuple):
    """A raster's place: `crs` as rasterio gives it, `transform` of its pixels, and its size."""

    crs: Any
    transform: Affine
    height_px: int
    width_px: int

    def at_size(self, height_px: int, width_px: int) -> Affine:
        """The transform of the same ground in another number of pixels."""
        return self.transform @ Affine.scale(self.width_px / width_px, self.height_px / height_px)


def place_of(path: Path) -> Place | None:
    """The place of a TIFF; None for one without, and for a PNG."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, driver="GTiff") as dataset:
            if dataset.crs is None and dataset.transform == Affine.identity():
                return None
            return Place(dataset.crs, dataset.transform, dataset.height, dataset.width)


def write_geotiff(path: Path, stored: NDArray[np.uint8], place: Place | None) -> None:
    """Writes `H,W,C uint8` as a TIFF (deflate), at `place` where that is known; whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    height, width, bands = stored.shape
    kept = {} if place is None else {"crs": place.crs, "transform": place.at_size(height, width)}
    try:
        with warnings.catch_warnings(), atomic_write(path) as beside:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            size = {"height": height, "width": width, "count": bands, "dtype": "uint8"}
            with rasterio.open(
                beside, "w", driver="GTiff", compress="deflate", predictor=2, **size, **kept
            ) as tiff:
                tiff.write(stored.transpose(2, 0, 1))
    except (RasterioError, OSError) as error:
        raise DataError(f"the image cannot be written: {error}", where=path) from error
