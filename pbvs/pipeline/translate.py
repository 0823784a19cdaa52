"""Runs a task's graph over a folder of test inputs: as many images out as in, their stems kept."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from pbvs.core import pixels
from pbvs.core.errors import DataError, ImageError, PbvsError, UsageError
from pbvs.core.files import files_fingerprint, write_json
from pbvs.core.geotiff import place_of, write_geotiff
from pbvs.core.process_group import SINGLE_PROCESS, ProcessGroup
from pbvs.pipeline.translation_record import RECORD, mean_seconds
from pbvs.pipeline.translator import Translator

Progress = Callable[[int, int], None]
Format = Literal["png", "tiff"]
_N_THREADS = min(4, os.cpu_count() or 1)  # that read and write images while networks compute
_N_NAMED = 10
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Translated:
    """What a translation made: images in all, images made now, seconds for one (read to written)."""

    images: int
    made_now: int
    seconds_per_image: float


def translate_folder(
    translator: Translator,
    inputs: Path,
    out: Path,
    *,
    overwrite: bool,
    batch: int = 1,
    format: Format = "png",
    progress: Progress | None = None,
    share: ProcessGroup = SINGLE_PROCESS,
) -> Translated:
    """Translates every image of `inputs` into `out/<stem>.png`.

    A run that was stopped goes on where it was, when inputs, task and weights are the same. Other images in
    `out` are an error, or with `overwrite` taken away. An input that cannot be translated stops no other:
    it is told of when all are done.

    Args:
        batch: images that go through the networks together.
        format: `png`, or `tiff`, which keeps an input's place on Earth.
        progress: told (images done, images in all), of this process's share.
        share: this process among several that call this alike.

    Raises:
        DataError: no inputs, or two with one stem.
        ImageError: inputs cannot be read, or have other bands than the task's source; the rest is done.
        UsageError: `out` holds something else and `overwrite` is not given, or lies in `inputs`.
    """
    sources = input_images(inputs)
    _check_apart(inputs, out)
    deciding = {**translator.provenance(), "format": format, "inputs": files_fingerprint(sources)}
    record = _together(share, lambda: _begun(out, deciding, overwrite, {path.stem for path in sources}))
    mine = share.of(sources)
    todo = [path for path in mine if not _place_in(out, path, format).is_file()]
    failed: list[ImageError] = []
    n_made, started = 0, time.perf_counter()
    with warnings.catch_warnings(), ThreadPoolExecutor(_N_THREADS) as pool:
        # Around all threads: what each of them does to the filters does not matter then.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        read = _ahead(pool, lambda path: _read_or_error(path, translator), todo)
        written: deque[Future[None]] = deque()
        readable = _readable(read, failed)
        while images := list(islice(readable, batch)):
            made = translator.stored_together([image for _, image in images])
            for (path, _), image in zip(images, made, strict=True):
                written.append(pool.submit(_write, _place_in(out, path, format), image, path, format))
            while len(written) > 2 * batch:  # so many wait in memory
                written.popleft().result()
            n_made += len(images)
            if share.rank == 0:  # with each batch: a run that is killed keeps the times it took
                write_json(out / RECORD, _longer(record, n_made, time.perf_counter() - started))
            if progress:
                progress(len(mine) - len(todo) + n_made, len(mine))
        for future in written:
            future.result()
    return _ended(out, record, share, len(sources), (n_made, time.perf_counter() - started, failed))


def _check_apart(inputs: Path, out: Path) -> None:
    if out.resolve().is_relative_to(inputs.resolve()):
        raise UsageError(
            "the folder for the images lies in that of the inputs",
            where=out,
            next_step="choose one beside it: what is made must not be taken for an input",
        )


def _place_in(out: Path, source: Path, format: Format) -> Path:
    return out / f"{source.stem}.{format}"


def _ahead(pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`work` of each item, in order, begun a few items ahead."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > _N_THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_or_error(path: Path, translator: Translator) -> tuple[Path, NDArray[np.uint8] | ImageError]:
    try:
        return path, read_source(path, translator)
    except ImageError as error:
        return path, error


def _readable(
    read: Iterable[tuple[Path, NDArray[np.uint8] | ImageError]], failed: list[ImageError]
) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """What could be read; the errors of the others go to `failed`."""
    for path, image in read:
        if isinstance(image, ImageError):
            failed.append(image)
        else:
            yield path, image


def _write(path: Path, image: NDArray[np.uint8], source: Path, format: Format) -> None:
    if format == "tiff":
        write_geotiff(path, image, place_of(source))
    else:
        pixels.write_png(path, image)


def _together(share: ProcessGroup, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the first process's `work` gives, or its error in all of them."""
    found: dict[str, Any] | None = None
    failed: PbvsError | None = None
    if share.rank == 0:
        try:
            found = work()
        except PbvsError as error:
            failed = error
    record, words = share.gather((found, failed and (failed.what, failed.where)))[0]
    if failed is not None:
        raise failed
    if words is not None:
        raise UsageError(f"the first process: {words[0]}", where=words[1])
    assert record is not None
    return dict(record)


def _longer(record: dict[str, Any], n_images: int, seconds: float) -> dict[str, Any]:
    """A record with more images in it."""
    more = {"seconds": record["seconds"] + seconds, "timed_images": record["timed_images"] + n_images}
    return record | more


def _ended(
    out: Path,
    before: dict[str, Any],
    share: ProcessGroup,
    n_all: int,
    mine: tuple[int, float, list[ImageError]],
) -> Translated:
    """Writes the record of all processes, and tells of what failed."""
    told = share.gather((mine[0], mine[1], [(str(e.where), e.what) for e in mine[2]]))
    n_made = sum(n for n, _, _ in told)
    # Side by side: the time of one image in one process.
    seconds = sum(s for _, s, _ in told)
    record = _longer(before, n_made, seconds)
    if share.rank == 0:
        write_json(out / RECORD, record)
    if failed := sorted(chain.from_iterable(f for _, _, f in told)):
        if len(failed) == 1 == len(mine[2]):
            raise mine[2][0]
        listed = "".join(f"\n  - {where}: {what}" for where, what in failed[:_N_NAMED])
        more = f"\n  and {len(failed) - _N_NAMED} more" if len(failed) > _N_NAMED else ""
        raise ImageError(
            f"{len(failed)} of {n_all} inputs could not be translated, the others are done:{listed}{more}",
            where=out,
            next_step="mend or replace them and repeat the command: it goes on with what is missing",
        )
    return Translated(n_all, n_made, mean_seconds(record))


def input_images(folder: Path) -> list[Path]:
    """The test inputs in `folder`, sorted.

    Raises:
        UsageError: no such folder.
        DataError: nothing in it, or two images with one stem.
    """
    if not folder.is_dir():
        raise UsageError("the folder of test inputs does not exist", where=folder)
    images = pixels.list_images(folder)
    if not images:
        raise DataError(
            "no PNG or TIFF images there", where=folder, next_step="name the folder of one task's inputs"
        )
    counts = Counter(path.stem for path in images)
    doubled = sorted(stem for stem, count in counts.items() if count > 1)
    if doubled:
        raise DataError(
            f"two inputs have one name: {', '.join(doubled[:10])}", where=folder, next_step="keep one of each"
        )
    return images


def read_source(path: Path, translator: Translator) -> NDArray[np.uint8]:
    """One test input `H,W,C uint8` with the bands the translator takes.

    Raises:
        ImageError: unreadable, other bands, or 16 bits under a rule that has no numbers for it.
        CheckpointError: 16 bits, and networks that were trained with different numbers.
    """
    image = pixels.read_image(path)
    if image.shape[2] != translator.bands_in:
        raise ImageError(
            f"the image has {image.shape[2]} band(s), not the {translator.bands_in} that the task takes",
            where=path,
            next_step="check that the inputs are those of this task",
        )
    if image.dtype == np.uint8:
        return pixels.eight_bits(image)
    return pixels.eight_bits(image, *translator.sixteen_bits.stretch_of(path))


def _begun(out: Path, provenance: dict[str, str], overwrite: bool, stems: set[str]) -> dict[str, Any]:
    """The record of a translation into `out`: a stopped one's to go on with, or a new one."""
    path = out / RECORD
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["made_of"] == provenance:
            for extra in [image for image in pixels.list_images(out) if image.stem not in stems]:
                extra.unlink()
            return record
    out.mkdir(parents=True, exist_ok=True)
    there = pixels.list_images(out)
    if there and not overwrite:
        raise UsageError(
            f"{len(there)} other images lie there already",
            where=out,
            next_step="choose another folder, or give --overwrite",
        )
    for image in there:
        image.unlink()
    record = {"made_of": provenance, "seconds": 0.0, "timed_images": 0}
    write_json(path, record)
    return record
