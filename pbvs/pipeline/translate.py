"""Runs a task's graph over a folder of test inputs: as many images out as in, their stems kept."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pbvs.core import pixels
from pbvs.core.errors import DataError, ImageError, PbvsError, UsageError
from pbvs.core.files import files_fingerprint, write_json
from pbvs.core.geotiff import read_georeference, write_geotiff
from pbvs.core.lookahead import submit_ahead
from pbvs.core.pixels import no_georeference_warnings
from pbvs.core.process_group import SINGLE_PROCESS, ProcessGroup
from pbvs.core.types import Image8, Progress
from pbvs.pipeline.translation_record import RECORD, mean_seconds, record_provenance
from pbvs.pipeline.translator import Translator

Format = Literal["png", "tiff"]
_N_THREADS = min(4, os.cpu_count() or 1)  # that read and write images while networks compute
_N_NAMED = 10


@dataclass(frozen=True)
class Translated:
    """The result of a translation.

    Attributes:
        images: in all; `new_images` of them were translated now.
        seconds_per_image: from read to written.
        weights: a line about the trained weights in use and how many images they come from; may be empty.
    """

    images: int
    new_images: int
    seconds_per_image: float
    weights: str


def translate_folder(
    translator: Translator,
    inputs: Path,
    out: Path,
    *,
    overwrite: bool,
    batch: int = 1,
    format: Format = "png",
    progress: Progress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Translated:
    """Translates every image of `inputs` into `out/<stem>.png`.

    A translation that was stopped resumes, when inputs, task and weights are the same. Other images in
    `out` are an error, or with `overwrite` deleted. An input that cannot be translated stops no other: it
    is reported when all are done.

    Args:
        batch: images that go through the networks together.
        format: `png`, or `tiff`, which keeps an input's georeference.
        progress: called with images done and images in all, of this process's part.
        group: this process among several that call this alike.

    Raises:
        DataError: no inputs, or two with one stem.
        ImageError: inputs cannot be read, or have other bands than the task's source; the rest is done.
        UsageError: `out` holds something else and `overwrite` is not given, or lies in `inputs`.
    """
    sources = input_images(inputs)
    if out.resolve().is_relative_to(inputs.resolve()):
        raise UsageError(
            "the folder for the images lies in that of the inputs",
            where=out,
            next_step="choose one beside it: an output must not be taken for an input",
        )
    provenance = {**translator.provenance(), "format": format, "inputs": files_fingerprint(sources)}
    stems = {path.stem for path in sources}
    record = _on_first_process(group, lambda: _begin(out, provenance, overwrite, stems))
    mine = group.of(sources)
    todo = [path for path in mine if not (out / f"{path.stem}.{format}").is_file()]
    failed: list[tuple[str, ImageError]] = []
    n_new, started = 0, time.perf_counter()
    # Filters of warnings are shared by all threads, so this one stands around them.
    with no_georeference_warnings(), ThreadPoolExecutor(_N_THREADS) as pool:
        read = _read_ahead(pool, todo, translator, failed)
        writing: deque[Future[None]] = deque()
        while images := list(islice(read, batch)):
            preds = translator.stored_together([image for _, image in images])
            for (path, _), pred in zip(images, preds, strict=True):
                writing.append(pool.submit(_write, out / f"{path.stem}.{format}", pred, path, format))
            while len(writing) > 2 * batch:  # so many wait in memory
                writing.popleft().result()
            n_new += len(images)
            if group.rank == 0:  # with each batch: a run that is killed keeps its times
                write_json(out / RECORD, _extended(record, n_new, time.perf_counter() - started))
            if progress:
                progress(len(mine) - len(todo) + n_new, len(mine))
        for future in writing:
            future.result()
    parts = group.gather((n_new, time.perf_counter() - started, [(p, e.what) for p, e in failed]))
    n_all_new = sum(n for n, _, _ in parts)
    # In parallel: the seconds of one image in one process.
    record = _extended(record, n_all_new, sum(seconds for _, seconds, _ in parts))
    if group.rank == 0:
        write_json(out / RECORD, record)
    all_failed = sorted(chain.from_iterable(errors for _, _, errors in parts))
    if len(all_failed) == 1 == len(failed):
        raise failed[0][1]
    if all_failed:
        listed = "".join(f"\n  - {where}: {what}" for where, what in all_failed[:_N_NAMED])
        more = f"\n  and {len(all_failed) - _N_NAMED} more" if len(all_failed) > _N_NAMED else ""
        raise ImageError(
            f"{len(all_failed)} of {len(sources)} inputs could not be translated, the others are done:"
            f"{listed}{more}",
            where=out,
            next_step="repair or replace them and repeat the command: it goes on with what is missing",
        )
    return Translated(len(sources), n_all_new, mean_seconds(record), translator.weights_used())


def _read_ahead(
    pool: ThreadPoolExecutor, paths: list[Path], translator: Translator, failed: list[tuple[str, ImageError]]
) -> Iterator[tuple[Path, Image8]]:
    """The images that can be read, in order, read a few ahead; the errors of the others go to `failed`."""
    futures = submit_ahead(pool, read_source, ((path, translator) for path in paths), _N_THREADS + 1)
    for path, future in zip(paths, futures, strict=True):
        try:
            yield path, future.result()
        except ImageError as error:
            failed.append((str(error.where), error))


def _write(path: Path, image: Image8, source: Path, format: Format) -> None:
    if format == "tiff":
        write_geotiff(path, image, read_georeference(source))
    else:
        pixels.write_png(path, image)


def _on_first_process(group: ProcessGroup, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the first process's `work` returns, or its error in all of them."""
    found: dict[str, Any] | None = None
    failed: PbvsError | None = None
    if group.rank == 0:
        try:
            found = work()
        except PbvsError as error:
            failed = error
    record, problem = group.gather((found, failed and (failed.what, failed.where)))[0]
    if failed is not None:
        raise failed
    if problem is not None:
        raise UsageError(f"the first process: {problem[0]}", where=problem[1])
    assert record is not None
    return dict(record)


def _extended(record: dict[str, Any], n_images: int, seconds: float) -> dict[str, Any]:
    """A record with more images in it."""
    more = {"seconds": record["seconds"] + seconds, "timed_images": record["timed_images"] + n_images}
    return record | more


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


def read_source(path: Path, translator: Translator) -> Image8:
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
        return pixels.to_uint8(image)
    return pixels.to_uint8(image, *translator.uint16_scaling.stretch_of(path))


def _begin(out: Path, provenance: dict[str, str], overwrite: bool, stems: set[str]) -> dict[str, Any]:
    """The record of a translation into `out`: a stopped one's to resume, or a new one."""
    path = out / RECORD
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record_provenance(record) == provenance:
            for extra in [image for image in pixels.list_images(out) if image.stem not in stems]:
                extra.unlink()
            return record
    out.mkdir(parents=True, exist_ok=True)
    existing = pixels.list_images(out)
    if existing and not overwrite:
        raise UsageError(
            f"{len(existing)} other images are there already",
            where=out,
            next_step="choose another folder, or give --overwrite",
        )
    for image in existing:
        image.unlink()
    record = {"provenance": provenance, "seconds": 0.0, "timed_images": 0}
    write_json(path, record)
    return record
