"""The record in a folder of translated images: their provenance, and the time they took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbvs.core.errors import DataError
from pbvs.core.pixels import list_images

RECORD = ".translate.json"  # hidden, so that it is no image and no part of a submission


def provenance(folder: Path) -> dict[str, str] | None:
    """The provenance of the images in a folder; None where pbvs did not translate them."""
    path = folder / RECORD
    if not path.is_file():
        return None
    return record_provenance(json.loads(path.read_text(encoding="utf-8")))


def record_provenance(record: Mapping[str, Any]) -> dict[str, str]:
    """The provenance in a record, also in one of pbvs 0.1.0."""
    found: dict[str, str] = record.get("provenance") or record["made_of"]
    return found


def seconds_per_image(folder: Path) -> float:
    """The measured time of one image, from the record in its folder.

    Raises:
        DataError: the folder was not written by a translation.
    """
    path = folder / RECORD
    if not path.is_file():
        raise DataError(
            "no record of a translation there", where=path, next_step="translate with pbvs, or give --runtime"
        )
    return mean_seconds(json.loads(path.read_text(encoding="utf-8")))


def mean_seconds(record: Mapping[str, Any]) -> float:
    """Seconds per image, by a record."""
    return float(record["seconds"]) / max(1, int(record["timed_images"]))


def mean_seconds_per_image(folders: Sequence[Path]) -> float:
    """The measured time of one image over several folders of translations.

    Raises:
        DataError: a folder was not written by a translation.
    """
    counts = [len(list_images(folder)) for folder in folders]
    seconds = [seconds_per_image(folder) for folder in folders]
    return sum(n * s for n, s in zip(counts, seconds, strict=True)) / max(1, sum(counts))
