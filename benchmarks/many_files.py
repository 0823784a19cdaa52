"""Thousands of small archive files in the challenge's folders, to measure what looking at them costs.

A few templates are made and copied; the names, folders, CRSs, types and strips are those of real archives.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from pbvs.core.pixels import encode_png

_CITIES = ("Bingham", "Centerfield", "Manhattan", "UC_Davis")
_SIDE_PX = 256
_SAR_A_LOCATION = 4
_WRITTEN = 1_700_000_000  # long ago, as archives are: a scan does not remember files that are seconds old
_TILES = Path("Train_Data_and_Validation_EO_SAR")


def write_many(root: Path, n_files: int, tile_fraction: float = 0.5) -> None:
    """Writes `n_files` files of the archives' layout below `root`, a new folder.

    Args:
        n_files: how many in all.
        tile_fraction: the part of them that are EO/SAR tiles (PNG, 256 x 256); the others are GeoTIFFs of
            stack locations: four SAR, RGB, IR and both mosaics each.
    """
    root.mkdir(parents=True)
    n_tiles = round(n_files * tile_fraction)
    templates = _templates(root)
    places = itertools.chain(
        itertools.islice(_tile_places(n_tiles), n_tiles), itertools.islice(_stack_places(), n_files - n_tiles)
    )
    made: set[Path] = set()
    for place, template in places:
        path = root / place
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(templates[template])
        os.utime(path, (_WRITTEN, _WRITTEN))


def _tile_places(n_tiles: int) -> Iterator[tuple[Path, str]]:
    """SAR and EO of one name in turn; one pair in twenty lies in the validation folders."""
    for n in itertools.count():
        split = "train" if n % 20 else "validation"
        for folder in ("SAR", "EO"):
            yield _TILES / folder / split / f"Gotcha_{n}.png", "tile"


def _stack_places() -> Iterator[tuple[Path, str]]:
    for n in itertools.count():
        city = _CITIES[n % len(_CITIES)]
        folder = Path(f"Train_Data_{city}_SAR_IR_RGB") / f"{40 + n * 0.0018:.5f}_{-112 - n * 0.0023:.5f}"
        kind = "16" if city == "Manhattan" else ""
        for k in range(_SAR_A_LOCATION):
            name = f"2023-{k + 1:02d}-{n % 28 + 1:02d}-16-33-{k + 10}_UMBRA-05_GEC.tif"
            yield folder / name, "sar"
        flight = f"m_39111_{n % 100:02d}_1_20200{n % 9 + 1}15"
        for modality in ("rgb", "ir"):
            yield folder / f"{flight}_{modality}.tiff", modality + kind
            yield folder / f"mosiac_{modality}.tif", modality + kind


def _templates(root: Path) -> dict[str, bytes]:
    """The bytes of one file of each kind; `root` serves as scratch."""
    rows, columns = np.indices((_SIDE_PX, _SIDE_PX))
    scene = (100 + 60 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.uint8)
    colour = np.stack([scene, scene // 2, 255 - scene])
    sixteen = colour.astype(np.uint16) * 64
    return {
        "tile": encode_png(scene[:, :, None]),
        "sar": _tiff(root, scene[None], "EPSG:32612", nodata=0),
        "rgb": _tiff(root, colour, "EPSG:26912"),
        "ir": _tiff(root, scene[None], "EPSG:26912"),
        "rgb16": _tiff(root, sixteen, "EPSG:26918"),
        "ir16": _tiff(root, sixteen[:1], "EPSG:26918"),
    }


def _tiff(root: Path, bands: NDArray, crs: str, nodata: float | None = None) -> bytes:
    path = root / "template.tif"
    profile = {"driver": "GTiff", "height": _SIDE_PX, "width": _SIDE_PX, "compress": "deflate"}
    place = {"crs": crs, "transform": Affine(1.0, 0.0, 400_000.0, 0.0, -1.0, 4_500_000.0), "nodata": nodata}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, count=len(bands), dtype=bands.dtype, **place) as written:
            written.write(bands)
    data = path.read_bytes()
    path.unlink()
    return data
