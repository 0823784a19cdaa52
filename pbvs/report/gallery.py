"""The images of a page: which ones, their thumbnails and their errors."""

from __future__ import annotations

import base64
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pbvs.archives.layouts import inputs_folder
from pbvs.core import pixels
from pbvs.core.errors import DataError
from pbvs.core.pixels import list_images, read_image
from pbvs.prepare.stretch import stretch_of_histogram

TERMS = ("l2", "l1", "lpips")
_QUALITY = 82  # of JPEG; thumbnails are for viewing, errors are computed on the full images


@dataclass(frozen=True)
class PageImage:
    """One test image on the page; the page's script reads these fields as JSON.

    Attributes:
        task, image: `image` is the stem of the input.
        terms: its errors by `TERMS`; `other_terms`: those of the submission it is compared with.
        thumbs: data URIs by kind: `source`, `pred`, `target`, `other`.
        full: paths of the full-size images, relative to the page, by the same kinds.
    """

    task: str
    image: str
    terms: Mapping[str, float]
    other_terms: Mapping[str, float]
    thumbs: Mapping[str, str]
    full: Mapping[str, str]


def read_errors(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Errors by task, image and term, from the CSV of `pbvs score --csv`.

    Raises:
        DataError: the file is missing, or is another kind of CSV.
    """
    if not path.is_file():
        raise DataError("there are no per-image scores", where=path, next_step="score with --csv first")
    errors: dict[str, dict[str, dict[str, float]]] = {}
    try:
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            terms = {term: float(row[term]) for term in TERMS}
            errors.setdefault(row["task"], {})[row["image"]] = terms
    except (KeyError, ValueError) as error:
        raise DataError(f"not a CSV of `pbvs score --csv`: {error}", where=path) from error
    return errors


def pick_images(errors: Mapping[str, Mapping[str, float]], n_max: int, term: str = "l2") -> list[str]:
    """At most `n_max` images of a task: the best, the worst and some evenly between, ranked by `term`."""
    ranked = sorted(errors, key=lambda image: (errors[image][term], image))
    if len(ranked) <= n_max:
        return sorted(ranked, key=natural_key)
    n_ends = max(1, n_max // 4)
    between = ranked[n_ends:-n_ends]
    picks = np.linspace(0, len(between) - 1, n_max - 2 * n_ends).round().astype(int)
    return sorted({*ranked[:n_ends], *ranked[-n_ends:], *(between[i] for i in picks)}, key=natural_key)


def natural_key(name: str) -> tuple[int, int | str, str]:
    """A sort key that puts `2` before `10`."""
    return (0, int(name), name) if name.isdigit() else (1, name, name)


def image_paths(
    task: str, inputs: Path, predictions: Path, targets: Path, other: Path | None
) -> dict[str, dict[str, Path]]:
    """The images of a task as path by kind (see `PageImage.thumbs`) and stem.

    Raises:
        DataError: there are no predictions or no targets.
    """
    folders = {"source": inputs_folder(inputs, task), "pred": predictions / task, "target": targets / task}
    if other is not None and (other / task).is_dir():
        folders["other"] = other / task
    paths = {
        kind: {path.stem: path for path in list_images(folder)} if folder and folder.is_dir() else {}
        for kind, folder in folders.items()
    }
    for kind in ("pred", "target"):
        if not paths[kind]:
            raise DataError(f"no images of {task}", where=folders[kind])
    return paths


def thumbnail(path: Path, side_px: int) -> str:
    """An image no larger than `side_px`, as a JPEG data URI; 16 bits are stretched by percentiles."""
    image = read_image(path)
    if image.dtype != np.uint8:
        counts = np.bincount(image.ravel(), minlength=1 << 16)
        image = pixels.to_uint8(image, *stretch_of_histogram(counts, (1.0, 99.0)))
    image = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
    height, width = image.shape[:2]
    scale = min(1.0, side_px / max(height, width))
    small = pixels.resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    bgr = small[:, :, ::-1] if small.shape[2] == 3 else small
    ok, encoded = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert ok
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def thumb_side_px(n_images: int) -> int:
    """The largest thumbnail side that keeps a page of `n_images` under 20 MB."""
    return next((side for most, side in ((60, 512), (240, 256), (700, 160)) if n_images <= most), 96)
