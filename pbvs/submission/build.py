"""Predictions in, a zip out that has already passed the check."""

from __future__ import annotations

import stat
import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from pbvs.core.errors import ImageError, SubmissionError, UsageError
from pbvs.core.files import atomic_write, sha256_of_file
from pbvs.core.pixels import encode_png, read_image
from pbvs.submission import rules
from pbvs.submission.check import check
from pbvs.submission.image_facts import is_plain_png, png_facts
from pbvs.submission.plan import Item, plan
from pbvs.submission.readme import ReadmeFields
from pbvs.submission.rules import Expected
from pbvs.submission.tiff_guard import NotAnImage

DEFAULT_COMPRESSION = 6
"""zlib's level of PNGs that are written. On satellite images of 1024 x 1024 x 3 level 6 leaves 60.4 % of the
raw size; 9 leaves 59.9 % in five times the time, and 1 leaves 62.6 % in half the time."""

Bands = Literal["task", "rgb"]
_WORKERS = 2
_AHEAD = 2 * _WORKERS  # images in memory at a time
_MOST_FAULTS_TOLD = 10
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can hold

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BuiltZip:
    """A zip that was built and passed the check.

    Attributes:
        path: where it lies.
        n_bytes: its size.
        sha256: of the whole file, in hex. The same files and readme give the same bytes.
        images: the number of images of each task in it.
        warnings: what breaks no rule but should be known before the upload.
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
    """Packs task folders of images into one zip as the platform asks for it.

    Every image is decoded and compared with what its task asks for. A plain PNG goes into the zip as it is,
    byte for byte; all else is written again as PNG. The zip is written aside, checked, and only then given
    its name.

    Args:
        predictions: a folder with one folder of PNG or TIFF images for each task that is attempted.
        out: the zip to make.
        readme: the contents of the zip's readme.
        expected: size and bands of each task's images; they must be met exactly, in uint8, but for what
            `allow_size` says.
        inputs: the root of the test inputs, to check the ids against; None leaves that out.
        overwrite: replace an existing `out`.
        compression: zlib's level, 0..9, to write all PNGs again with; None keeps them.
        bands: `rgb` repeats the band of one-band tasks to three, which the platform takes too.
        force_large: build a zip of over 1 GB all the same; the platform is known to fail on such.
        allow_constant: take images that are one value all over.
        allow_size: take images of another size, which the evaluation resamples, at a cost in score.
        progress: told (images packed, images in all).

    Raises:
        UsageError: `out` exists already, `predictions` does not exist, or the compression is not 0..9.
        SubmissionError: the predictions do not make up a good zip; nothing is left under `out`'s name.
    """
    _check_arguments(out, overwrite, compression)
    items = plan(predictions, out, expected)
    asked = {
        rules.KIND_LARGE: force_large,
        rules.KIND_CONSTANT: allow_constant,
        rules.KIND_SIZE: allow_size,
    }
    allow = {kind for kind, on in asked.items() if on}
    writing = _Writing(compression, bands, allow_size)
    try:
        with atomic_write(out) as beside:
            _write(beside, items, readme, expected, writing, force_large, progress)
            notes = _checked(beside, out, expected, inputs, allow)
    except OSError as error:
        next_step = "free some space, or choose another place"
        raise SubmissionError(
            f"the zip cannot be written: {error}", where=out, next_step=next_step
        ) from error
    images = dict(Counter(item.task for item in items))
    return BuiltZip(out, out.stat().st_size, sha256_of_file(out), images, notes)


@dataclass(frozen=True)
class _Writing:
    """How images go into the zip; see `build`."""

    compression: int | None
    bands: Bands
    allow_size: bool


def _check_arguments(out: Path, overwrite: bool, compression: int | None) -> None:
    if out.is_dir():
        raise UsageError("the zip's name is that of a folder", where=out, next_step="add a file name")
    if out.exists() and not overwrite:
        raise UsageError("the zip exists already", where=out, next_step="choose another name, or --overwrite")
    if compression is not None and compression not in range(10):
        raise UsageError(f"compression {compression} is not 0..9", next_step="6 is usual, 9 the smallest")


def _write(
    zip_path: Path,
    items: list[Item],
    readme: ReadmeFields,
    expected: Mapping[str, Expected],
    writing: _Writing,
    force_large: bool,
    progress: Progress | None,
) -> None:
    """Writes the zip; faults of images are collected and told together once all have been looked at."""
    faults: list[ImageError] = []
    encoded = _encoded(items, expected, writing)
    with closing(encoded), zipfile.ZipFile(zip_path, "w") as archive:
        _add(archive, rules.README_NAME, readme.text().encode(), zipfile.ZIP_DEFLATED)
        for done, (item, job) in enumerate(encoded, 1):
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
            if not force_large:
                _refuse_large(archive.start_dir)
    if faults:
        raise _told(faults)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    """Adds one entry whose bytes depend on name and data alone: no date, one set of permissions."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, on every machine
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = method
    archive.writestr(info, data)


def _encoded(
    items: list[Item], expected: Mapping[str, Expected], writing: _Writing
) -> Generator[tuple[Item, Future[bytes]], None, None]:
    """The items in order, each with its PNG in the making; only a few are ahead of the reader."""
    waiting: deque[tuple[Item, Future[bytes]]] = deque()
    # Filters of warnings belong to the process, not to the thread: set once around all readers of TIFFs.
    with warnings.catch_warnings(), ThreadPoolExecutor(_WORKERS) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for item in items:
            waiting.append((item, pool.submit(_encode, item, expected[item.task], writing)))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _encode(item: Item, expected: Expected, writing: _Writing) -> bytes:
    """One prediction as PNG bytes, once it is what its task asks for."""
    as_it_is = _as_it_is(item, expected, writing)
    if as_it_is is not None:
        return as_it_is
    image = read_image(item.source)
    fault = None
    if image.dtype != np.uint8:
        fault, cure = f"pixels are {image.dtype}, not uint8", "write the prediction with 8 bits a band"
    elif image.shape[:2] != expected.size_px and not writing.allow_size:
        is_px, asked_px = rules.told_px(image.shape[:2]), rules.told_px(expected.size_px)
        fault = f"{is_px} pixels instead of {asked_px} (height x width)"
        cure = f"translate at the size of {item.task}: the evaluation resamples others, at a cost in score"
    elif image.shape[2] != expected.bands:
        fault = f"{image.shape[2]} bands instead of {expected.bands}"
        cure = f"write the predictions of {item.task} with {expected.bands} band(s)"
    if fault:
        raise ImageError(fault, where=item.source, next_step=cure)
    stored = image.astype(np.uint8, copy=False)
    if writing.bands == "rgb" and stored.shape[2] == 1:
        stored = np.repeat(stored, 3, axis=2)
    level = DEFAULT_COMPRESSION if writing.compression is None else writing.compression
    return encode_png(stored, level)


def _as_it_is(item: Item, expected: Expected, writing: _Writing) -> bytes | None:
    """The bytes of a plain PNG of the right size and bands; None for all else.

    It is not decoded here: the check of the finished zip does that with every image.
    """
    if writing.compression is not None or item.source.suffix.lower() != ".png":
        return None
    try:
        data = item.source.read_bytes()
        facts = png_facts(data)
    except (OSError, NotAnImage):
        return None  # whoever decodes it says what is wrong
    wanted = 3 if writing.bands == "rgb" else expected.bands
    fits = facts.bands == wanted and (facts.size_px == expected.size_px or writing.allow_size)
    return data if fits and is_plain_png(data) else None


def _refuse_large(n_bytes: int) -> None:
    """Stops as soon as the zip grows over what the platform takes."""
    problem = rules.size_problem(n_bytes)
    if problem:
        most = rules.told_size(rules.TOO_LARGE_BYTES)
        what = f"the zip grows over {most}; such uploads fail without a message"
        raise SubmissionError(what, next_step=f"{problem.cure}, or force it")


def _told(faults: list[ImageError]) -> SubmissionError:
    """All faulty images in one error, the first few by name."""
    lines = [f"{fault.where}: {fault.what}" for fault in faults[:_MOST_FAULTS_TOLD]]
    more = len(faults) - len(lines)
    rest = [f"and {more} more"] if more else []
    what = f"{len(faults)} of the predictions cannot go into a zip:\n  " + "\n  ".join(lines + rest)
    return SubmissionError(what, where=faults[0].where, next_step=faults[0].next_step)


def _checked(
    beside: Path, out: Path, expected: Mapping[str, Expected], inputs: Path | None, allow: set[str]
) -> list[str]:
    """The notes on a zip that passes the check; an error for one that does not."""
    report = check(beside, expected, inputs, allow=allow)
    if report.problems:
        raise SubmissionError(
            f"the zip would not pass the check:\n{report.text()}",
            where=out,
            next_step="put these right and build again",
        )
    return report.notes
