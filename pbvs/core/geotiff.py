"""The georeference of an input image, and 8-bit GeoTIFFs that keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from rasterio import Affine
from rasterio.errors import RasterioError

from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write
from pbvs.core.pixels import TIFF_SUFFIXES, no_georeference_warnings
from pbvs.core.types import Image8


class GeoReference(NamedTuple):
    """The `crs` of a raster as rasterio returns it, the `transform` of its pixels, and its size."""

    crs: Any
    transform: Affine
    height_px: int
    width_px: int

    def transform_at(self, height_px: int, width_px: int) -> Affine:
        """The transform of the same ground resampled to another size."""
        return self.transform @ Affine.scale(self.width_px / width_px, self.height_px / height_px)


def read_georeference(path: Path) -> GeoReference | None:
    """The georeference of a TIFF; None for a TIFF without one, and for a PNG."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    with no_georeference_warnings(), rasterio.open(path, driver="GTiff") as dataset:
        if dataset.crs is None and dataset.transform == Affine.identity():
            return None
        return GeoReference(dataset.crs, dataset.transform, dataset.height, dataset.width)


def write_geotiff(path: Path, stored: Image8, georeference: GeoReference | None) -> None:
    """Writes `H,W,C uint8` as a TIFF (deflate), georeferenced where that is known; atomic.

    Raises:
        DataError: it cannot be written.
    """
    height, width, bands = stored.shape
    profile: dict[str, Any] = {"driver": "GTiff", "compress": "deflate", "predictor": 2, "dtype": "uint8"}
    profile |= {"height": height, "width": width, "count": bands}
    if georeference is not None:
        profile |= {"crs": georeference.crs, "transform": georeference.transform_at(height, width)}
    try:
        with (
            no_georeference_warnings(),
            atomic_write(path) as tmp_path,
            rasterio.open(tmp_path, "w", **profile) as tiff,
        ):
            tiff.write(stored.transpose(2, 0, 1))
    except (RasterioError, OSError) as error:
        raise DataError(f"the image cannot be written: {error}", where=path) from error
