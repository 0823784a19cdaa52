"""The images that a page shows: which, how small, and with what numbers."""

from __future__ import annotations

import base64
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.archives.layouts import inputs_folder
from pbvs.core import pixels
from pbvs.core.errors import DataError
from pbvs.core.pixels import list_images, read_image
from pbvs.prepare.stretch import stretch_of_histogram

TERMS = ("l2", "l1", "lpips")
_QUALITY = 82  # of JPEG; thumbnails are to look at, the numbers come from the images themselves
Stored8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """One test image on the page.

    Attributes:
        task, image: of it; `image` is the input's stem.
        terms: its errors by `TERMS`; `other_terms` those of the submission it is compared with.
        thumbs: data URIs by what they show: `source`, `made`, `target`, `other`.
        full: paths of the images themselves, relative to the page, by the same names.
    """

    task: str
    image: str
    terms: Mapping[str, float]
    other_terms: Mapping[str, float]
    thumbs: Mapping[str, str]
    full: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For the page's script."""
        return {
            "task": self.task,
            "image": self.image,
            "terms": dict(self.terms),
            "otherTerms": dict(self.other_terms),
            "thumbs": dict(self.thumbs),
            "full": dict(self.full),
        }


def read_errors(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Errors by task, image and term, from the CSV that a score leaves.

    Raises:
        DataError: no such file, or another kind of CSV.
    """
    if not path.is_file():
        raise DataError("there is no score of single images", where=path, next_step="score with --csv first")
    errors: dict[str, dict[str, dict[str, float]]] = {}
    try:
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            terms = {term: float(row[term]) for term in TERMS}
            errors.setdefault(row["task"], {})[row["image"]] = terms
    except (KeyError, ValueError) as error:
        raise DataError(f"not a CSV of `pbvs score --csv`: {error}", where=path) from error
    return errors


def chosen(errors: Mapping[str, Mapping[str, float]], n_most: int, term: str = "l2") -> list[str]:
    """At most so many images of a task: the best, the worst, and some evenly between, by `term`."""
    ranked = sorted(errors, key=lambda image: (errors[image][term], image))
    if len(ranked) <= n_most:
        return sorted(ranked, key=natural)
    ends = max(1, n_most // 4)
    between = ranked[ends:-ends]
    places = np.linspace(0, len(between) - 1, n_most - 2 * ends).round().astype(int)
    return sorted({*ranked[:ends], *ranked[-ends:], *(between[i] for i in places)}, key=natural)


def natural(name: str) -> tuple[int, int | str, str]:
    """Sorts `2` before `10`."""
    return (0, int(name), name) if name.isdigit() else (1, name, name)


class Folders:
    """The images of one task: test inputs, predictions, targets, and other predictions, by stem."""

    def __init__(self, task: str, inputs: Path, made: Path, targets: Path, other: Path | None) -> None:
        source = inputs_folder(inputs, task)
        folders = {"source": source, "made": made / task, "target": targets / task}
        if other is not None and (other / task).is_dir():
            folders["other"] = other / task
        self.paths = {
            name: {path.stem: path for path in list_images(folder)} if folder and folder.is_dir() else {}
            for name, folder in folders.items()
        }
        for name in ("made", "target"):
            if not self.paths[name]:
                raise DataError(f"no images of {task}", where=folders[name])

    def of(self, image: str) -> dict[str, Path]:
        """The files that show an image."""
        return {name: paths[image] for name, paths in self.paths.items() if image in paths}


def thumbnail(path: Path, side_px: int) -> str:
    """An image no larger than `side_px`, as a JPEG in a data URI; 16 bits are stretched by percentiles."""
    image = read_image(path)
    if image.dtype != np.uint8:
        counts = np.bincount(image.ravel(), minlength=1 << 16)
        image = pixels.eight_bits(image, *stretch_of_histogram(counts, (1.0, 99.0)))
    image = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
    height, width = image.shape[:2]
    shrink = min(1.0, side_px / max(height, width))
    small = pixels.resize(image, (max(1, round(height * shrink)), max(1, round(width * shrink))))
    bgr = small[:, :, ::-1] if small.shape[2] == 3 else small
    done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def thumb_side_px(n_images: int) -> int:
    """How large thumbnails may be, so that a page of `n_images` stays under 20 MB."""
    sides: Sequence[tuple[int, int]] = ((60, 512), (240, 256), (700, 160))
    return next((side for most, side in sides if n_images <= most), 96)
