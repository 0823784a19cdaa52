"""Pairs predictions and targets by file stem, without leftovers, and reads both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.errors import RasterioError

from pbvs.archives.headers import HeaderReader
from pbvs.core import pixels
from pbvs.core.errors import ImageError, ScoreError, UsageError
from pbvs.core.pixels import list_images
from pbvs.core.types import Image8

_N_NAMED = 10


class ImagePair(NamedTuple):
    """The files of one stem."""

    stem: str
    prediction: Path
    target: Path


def pair_by_stem(pred_dir: Path, target_dir: Path) -> list[ImagePair]:
    """Pairs the PNGs and TIFFs of two folders, sorted by stem; hidden files are ignored.

    Raises:
        UsageError: a folder does not exist.
        ScoreError: no targets, two files of one stem, or a stem on one side only; lists up to ten.
    """
    predictions, targets = _by_stem(pred_dir), _by_stem(target_dir)
    if not targets:
        raise ScoreError("no PNG or TIFF in the folder of targets", where=target_dir)
    missing = sorted(targets.keys() - predictions.keys())
    extra = sorted(predictions.keys() - targets.keys())
    if missing or extra:
        raise ScoreError(
            "predictions and targets do not pair by stem"
            + (f"; {len(missing)} without a prediction: {_listed(missing)}" if missing else "")
            + (f"; {len(extra)} without a target: {_listed(extra)}" if extra else ""),
            where=f"{pred_dir} against {target_dir}",
            next_step="keep one PNG or TIFF per target, named by the target's stem, and no other",
        )
    return [ImagePair(stem, predictions[stem], targets[stem]) for stem in sorted(targets)]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError("the folder does not exist", where=folder)
    images = list_images(folder)
    by_stem = {path.stem: path for path in images}
    twice = sorted({path.stem for path in images if by_stem[path.stem] != path})
    if twice:
        raise ScoreError(
            f"two files of one stem: {_listed(twice)}", where=folder, next_step="keep one file per stem"
        )
    return by_stem


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def check_headers(pairs: Sequence[ImagePair]) -> None:
    """Refuses images that cannot be scored by their headers, before anything is computed.

    Raises:
        ScoreError: an image is not of 8 bits, or does not have one or three bands.
        ImageError: not a PNG or TIFF, or truncated.
    """
    reader = HeaderReader()
    for path in (path for pair in pairs for path in (pair.prediction, pair.target)):
        try:
            with pixels.no_georeference_warnings():
                header = reader.read(str(path))
        except (ImageError, RasterioError, OSError) as error:
            reason = error.what if isinstance(error, ImageError) else str(error)
            raise ImageError(f"the image cannot be read: {reason}", where=path) from error
        _refuse_other_types(header.dtype, path)
        if header.bands not in (1, 3):
            raise ScoreError(
                f"an image has one or three bands, not {header.bands}",
                where=path,
                next_step="write it as gray or RGB, without transparency",
            )


def read_pairs(pairs: Sequence[ImagePair]) -> Iterator[tuple[str, Image8, Image8]]:
    """Name, prediction and target of each pair, `H,W,C` uint8.

    Raises:
        ScoreError: an image has 16 bits.
        ImageError: a file is truncated or corrupt.
    """
    for stem, prediction, target in pairs:
        yield stem, _read_8_bits(prediction), _read_8_bits(target)


def _read_8_bits(path: Path) -> Image8:
    image = pixels.read_image(path)
    _refuse_other_types(str(image.dtype), path)
    return image.astype(np.uint8, copy=False)


def _refuse_other_types(dtype: str, path: Path) -> None:
    if dtype != "uint8":
        raise ScoreError(
            f"the score needs 8-bit images, not {dtype}",
            where=path,
            next_step="write the image with 8 bits; the score does not choose how other values are scaled",
        )


def fit_to_target(name: str, prediction: Image8, target: Image8) -> Image8:
    """The prediction with its target's bands and size; ScoreError if the bands do not fit."""
    for image in (prediction, target):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
            raise ScoreError(f"an image is H,W,1|3 uint8, not {image.shape} {image.dtype}", where=name)
    bands, target_bands = prediction.shape[2], target.shape[2]
    if bands == 1 and target_bands == 3:
        prediction = np.repeat(prediction, 3, axis=2)
    elif bands == 3 and target_bands == 1:
        if (prediction != prediction[:, :, :1]).any():
            raise ScoreError(
                "the prediction is in colour, its target has one band",
                where=name,
                next_step="write one band, or three equal ones; is this the right task's folder?",
            )
        prediction = prediction[:, :, :1]
    height, width = target.shape[:2]
    return pixels.resize(prediction, (height, width))


def check_number(n_images: int, task: str | None) -> None:
    """Raises ScoreError for fewer images than the FID needs."""
    if n_images < 2:
        raise ScoreError(
            f"FID needs at least 2 images; there {'is' if n_images == 1 else 'are'} {n_images}",
            where=task,
            next_step="score more images at once",
        )
