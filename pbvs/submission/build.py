"""Builds a zip from predictions and checks it."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pbvs.core.errors import ImageError, SubmissionError, UsageError
from pbvs.core.files import atomic_write, sha256_of_file
from pbvs.core.pixels import encode_png, read_image
from pbvs.core.types import Progress
from pbvs.submission import rules
from pbvs.submission.check import check
from pbvs.submission.image_facts import is_plain_png, png_facts
from pbvs.submission.lookahead import map_ahead
from pbvs.submission.plan import Prediction, plan
from pbvs.submission.readme import ReadmeFields
from pbvs.submission.rules import Expected
from pbvs.submission.tiff_guard import NotAnImage

DEFAULT_COMPRESSION = 6
"""zlib's level for re-encoded PNGs. On satellite images of 1024 x 1024 x 3 level 6 leaves 60.4 % of the
raw size; 9 leaves 59.9 % in five times the time, and 1 leaves 62.6 % in half the time."""

Bands = Literal["task", "rgb"]
_N_IN_MEMORY = 4  # images
_MOST_FAULTS_LISTED = 10
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can hold


@dataclass(frozen=True)
class BuiltZip:
    """A zip that was built and passed the check.

    Attributes:
        path: of the zip.
        n_bytes: the zip's size.
        sha256: of the whole file, in hex. The same files and readme give the same bytes.
        images: the number of images per task.
        warnings: notes of the check, to read before the upload.
    """

    path: Path
    n_bytes: int
    sha256: str
    images: dict[str, int]
    warnings: list[str]


def build(
    predictions: Path,
    out: Path,
    readme: ReadmeFields,
    expected: Mapping[str, Expected],
    *,
    inputs: Path | None = None,
    overwrite: bool = False,
    compression: int | None = None,
    bands: Bands = "task",
    force_large: bool = False,
    allow_constant: bool = False,
    allow_size: bool = False,
    progress: Progress | None = None,
) -> BuiltZip:
    """Packs task folders of images into one zip that keeps the platform's rules.

    Every image is decoded and compared with what its task expects. A plain PNG goes into the zip byte for
    byte; everything else is re-encoded as PNG. The zip is written to a temporary file, checked, and only then
    renamed.

    Args:
        predictions: a folder with one folder of PNG or TIFF images per attempted task.
        out: the zip to write.
        readme: the contents of the zip's readme.
        expected: size and bands of each task's uint8 images; exact, unless `allow_size` is set.
        inputs: the root of the test inputs, to check the ids against; None skips that check.
        overwrite: replace an existing `out`.
        compression: zlib's level, 0..9, to re-encode all PNGs with; None keeps plain PNGs.
        bands: `rgb` repeats the band of one-band tasks to three, which the platform also accepts.
        force_large: build a zip of over 1 GB anyway; the platform is known to fail on these.
        allow_constant: accept images of one constant value.
        allow_size: accept images of another size, which the evaluation resamples, at a cost in score.
        progress: called with (images packed, total images).

    Raises:
        UsageError: `out` exists already, `predictions` does not exist, or the compression is not 0..9.
        SubmissionError: the predictions do not make a valid zip; `out` is not written.
    """
    if out.is_dir():
        raise UsageError("the zip's name is that of a folder", where=out, next_step="add a file name")
    if out.exists() and not overwrite:
        raise UsageError("the zip exists already", where=out, next_step="choose another name, or --overwrite")
    if compression is not None and compression not in range(10):
        raise UsageError(f"compression {compression} is not 0..9", next_step="6 is usual, 9 the smallest")
    items = plan(predictions, out, expected)
    waivers = {
        rules.KIND_LARGE: force_large,
        rules.KIND_CONSTANT: allow_constant,
        rules.KIND_SIZE: allow_size,
    }
    encode = partial(_encode, compression=compression, bands=bands, allow_size=allow_size)
    jobs = map_ahead(encode, ((item, expected[item.task]) for item in items), _N_IN_MEMORY)
    try:
        with atomic_write(out) as tmp_path:
            _write_zip(tmp_path, items, jobs, readme, force_large, progress)
            report = check(tmp_path, expected, inputs, allow={kind for kind, on in waivers.items() if on})
            if report.problems:
                what = f"the zip would not pass the check:\n{report.text()}"
                raise SubmissionError(what, where=out, next_step="fix these problems and build again")
    except OSError as error:
        next_step = "free some disk space, or choose another folder"
        what = f"the zip cannot be written: {error}"
        raise SubmissionError(what, where=out, next_step=next_step) from error
    images = dict(Counter(item.task for item in items))
    return BuiltZip(out, out.stat().st_size, sha256_of_file(out), images, report.notes)


def _write_zip(
    zip_path: Path,
    items: list[Prediction],
    jobs: Generator[Future[bytes], None, None],
    readme: ReadmeFields,
    force_large: bool,
    progress: Progress | None,
) -> None:
    """Writes the zip of `items`, whose PNGs `jobs` encode; one error reports all faulty images at the end."""
    faults: list[ImageError] = []
    with closing(jobs), zipfile.ZipFile(zip_path, "w") as archive:
        _add(archive, rules.README_NAME, readme.text().encode(), zipfile.ZIP_DEFLATED)
        for done, (job, item) in enumerate(zip(jobs, items, strict=True), 1):
            try:
                data = job.result()
            except ImageError as error:
                faults.append(error)
                continue
            finally:
                if progress:
                    progress(done, len(items))
            if not faults:
                _add(archive, item.name, data, zipfile.ZIP_STORED)
            problem = None if force_large else rules.size_problem(archive.start_dir)
            if problem:
                most = rules.format_size(rules.TOO_LARGE_BYTES)
                what = f"the zip grows over {most}; such uploads fail silently"
                raise SubmissionError(what, next_step=f"{problem.hint}, or force it")
    if faults:
        lines = [f"{fault.where}: {fault.what}" for fault in faults[:_MOST_FAULTS_LISTED]]
        more = len(faults) - len(lines)
        lines += [f"and {more} more"] if more else []
        what = f"{len(faults)} of the predictions cannot go into a zip:\n  " + "\n  ".join(lines)
        raise SubmissionError(what, where=faults[0].where, next_step=faults[0].next_step)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    """Adds one entry whose bytes depend on name and data only: fixed date and permissions."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, on every machine
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = method
    archive.writestr(info, data)


def _encode(
    item: Prediction, expected: Expected, compression: int | None, bands: Bands, allow_size: bool
) -> bytes:
    """One prediction as PNG bytes; a plain PNG of the right size and bands is kept byte for byte.

    Such a PNG is not decoded here: the check of the finished zip decodes every image.

    Raises:
        ImageError: the prediction cannot be read, or is not what its task expects.
    """
    import numpy as np

    n_bands = 3 if bands == "rgb" else expected.bands
    if compression is None and item.source.suffix.lower() == ".png":
        with suppress(OSError, NotAnImage):  # `read_image` reports what is wrong
            data = item.source.read_bytes()
            facts = png_facts(data)
            fits = facts.bands == n_bands and (facts.size_px == expected.size_px or allow_size)
            if fits and is_plain_png(data):
                return data
    image = read_image(item.source)
    fault = None
    if image.dtype != np.uint8:
        fault, hint = f"pixels are {image.dtype}, not uint8", "write the prediction with 8 bits per band"
    elif image.shape[:2] != expected.size_px and not allow_size:
        is_px, expected_px = rules.format_px(image.shape[:2]), rules.format_px(expected.size_px)
        fault = f"{is_px} pixels instead of {expected_px} (height x width)"
        hint = f"translate at the size of {item.task}: the evaluation resamples others, at a cost in score"
    elif image.shape[2] != expected.bands:
        fault = f"{image.shape[2]} bands instead of {expected.bands}"
        hint = f"write the predictions of {item.task} with {expected.bands} band(s)"
    if fault:
        raise ImageError(fault, where=item.source, next_step=hint)
    stored = image.astype(np.uint8, copy=False)
    if bands == "rgb" and stored.shape[2] == 1:
        stored = np.repeat(stored, 3, axis=2)
    return encode_png(stored, DEFAULT_COMPRESSION if compression is None else compression)
