"""Prepared captures on disk: tiled, deflated GeoTIFFs of uint8 with an internal mask, read in parts."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pbvs.core.errors import ImageError
from pbvs.core.files import atomic_write
from pbvs.core.types import Mask
from pbvs.prepare.grid import Grid
from pbvs.prepare.rasters_tiff import TiledTiff
from pbvs.prepare.records import wrap_write_errors

_MAX_OPEN = 16  # per thread: a crop opens its two images once, though it tries several boxes in their masks

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


# ---- writing


@contextmanager
def written_capture(
    path: Path, size_px: tuple[int, int], n_bands: int, grid: Grid | None
) -> Iterator[TiledTiff]:
    """Yields a file to write rows to; it replaces `path`, complete, when the block ends without error.

    `grid` is None for tiles without georeference. The mask is written only where something is invalid.

    Raises:
        DataError: the disk is full or the folder cannot be written to; what was at `path` stays.
    """
    with wrap_write_errors(path), atomic_write(path) as tmp_path, tmp_path.open("wb") as stream:
        tiff = TiledTiff(stream, size_px, n_bands, grid)
        yield tiff
        tiff.finish()


def write_capture(path: Path, stored: NDArray[np.uint8], valid: Mask, grid: Grid | None) -> None:
    """Writes `H,W,C` uint8 with its `H,W` validity atomically; the same image gives the same bytes.

    Raises:
        DataError: as `written_capture`.
    """
    height, width, n_bands = stored.shape
    with written_capture(path, (height, width), n_bands, grid) as tiff:
        tiff.write_rows(stored, valid)


# ---- reading


def read_values(
    path: Path, box: Box | None = None, size_px: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """`H,W,C` uint8 of a prepared capture.

    Args:
        path: the capture.
        box: the part to read; None reads the whole.
        size_px: height and width to resample to, for display: means of the valid pixels where it shrinks,
            else bilinear. None reads the pixels themselves.

    Raises:
        ImageError: missing, truncated or corrupt.
    """
    with _opened(path) as dataset:
        height, width = size_px or (dataset.shape if box is None else box[2:])
        values: NDArray[np.uint8] = np.empty((height, width, dataset.count), np.uint8)
        dataset.read(out=values.transpose(2, 0, 1), **_part(dataset, box, size_px))
    return values


def read_valid(path: Path, box: Box | None = None, size_px: tuple[int, int] | None = None) -> Mask:
    """`H,W` bool of a prepared capture, True where it is valid; arguments and errors as `read_values`.

    At another size a pixel is valid where valid ones have over half of its weight.
    """
    with _opened(path) as dataset:
        mask: NDArray[np.uint8] = dataset.read_masks(1, out_shape=size_px, **_part(dataset, box, size_px))
    return mask > 128  # of 255: half of the weight is rounded to 128


def _part(dataset: Any, box: Box | None, size_px: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of rasterio to read a part at a size."""
    window = None if box is None else Window(box[1], box[0], box[3], box[2])
    if size_px is None:
        return {"window": window}
    height, width = dataset.shape if box is None else box[2:]
    shrinks = size_px[0] <= height and size_px[1] <= width
    return {"window": window, "resampling": Resampling.average if shrinks else Resampling.bilinear}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        yield _DATASETS.get(path)
    except (RasterioError, OSError) as error:
        _DATASETS.forget(path)
        raise ImageError(
            f"a prepared image cannot be read: {error}",
            where=path,
            next_step="delete the file and run `pbvs data prepare` again: it only adds what is missing",
        ) from error


class _Datasets(threading.local):
    """The files that this thread read last, kept open: opening one costs as much as reading a crop.

    A dataset belongs to one thread and one process: after a fork the child opens its own. A replaced file is
    reopened.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[Path, tuple[tuple[int, ...], Any]] = OrderedDict()

    def get(self, path: Path) -> Any:
        """The open file; raises OSError or RasterioError when it cannot be opened."""
        if self._process != os.getpid():
            self.__init__()  # type: ignore[misc]
        state = path.stat()
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if path in self._open and self._open[path][0] == identity:
            self._open.move_to_end(path)
            return self._open[path][1]
        self.forget(path)
        # Folders of tiles hold 90,000 files: GDAL must not list them in search of sidecar files.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            dataset = rasterio.open(path, driver="GTiff", sharing=False)
        self._open[path] = identity, dataset
        if len(self._open) > _MAX_OPEN:
            self.forget(next(iter(self._open)))
        return dataset

    def forget(self, path: Path) -> None:
        """Closes the file, if it is open."""
        if path in self._open:
            self._open.pop(path)[1].close()


_DATASETS = _Datasets()
