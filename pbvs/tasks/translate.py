"""Runs a task's graph over a folder of test inputs: as many images out as in, their stems kept."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbvs import pixels
from pbvs.data.layouts import BANDS
from pbvs.errors import DataError, ImageError, UsageError
from pbvs.files import fingerprint, sha256_of_file, write_json
from pbvs.modules.node import Operator
from pbvs.modules.registry import NODE_KINDS
from pbvs.tasks.book import TaskBook
from pbvs.tasks.runs import Runs
from pbvs.tasks.sixteen_bits import SixteenBits, one_rule

RECORD = ".translate.json"  # hidden, so that it is no image and no part of a submission
Progress = Callable[[int, int], None]


class Translator:
    """One task, or a part of its graph, with its weights loaded.

    Raises:
        CheckpointError: weights are missing or belong to another task.
    """

    def __init__(
        self, book: TaskBook, task: str, runs: Runs, device: torch.device, part: Sequence[str] | None = None
    ):
        self.graph = book.graph(task)
        self.part = tuple(part or self.graph.order)
        self.book, self.runs, self.device = book, runs, device
        self.weights: dict[str, Path] = {}
        self._sixteen_bits: dict[str, SixteenBits] = {}  # that networks were trained with, by their names
        self._operators = {name: self._operator(name) for name in self.part}

    @property
    def bands_in(self) -> int:
        """Bands that the images given must have."""
        node = self.graph.spec.nodes[self.part[0]]
        return (
            BANDS[self.graph.spec.source] if node.inputs[0] == "source" else self.graph.bands[node.inputs[0]]
        )

    def levels(self, source: Tensor) -> Tensor:
        """Source levels `1,C,H,W` of any size to levels `1,C,h,w` of the task's size, not rounded."""
        at_size = pixels.resize_levels(source, self.graph.spec.size_px)
        return self.graph.run(at_size, self._operators, self.part)

    def stored(self, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A stored image `H,W,C uint8` of any size, translated: `h,w,C uint8` of the task's size."""
        return pixels.stored_from_levels(self.levels(pixels.levels_from_stored(source)))

    @property
    def sixteen_bits(self) -> SixteenBits:
        """How a 16-bit input becomes 8-bit: as in the training of the networks, else by the task's rule.

        Raises:
            CheckpointError: two networks were trained with different numbers.
        """
        data = self.graph.spec.data
        return one_rule(self._sixteen_bits, SixteenBits(data.uint16, data.uint16_percent))

    def made_of(self) -> dict[str, str]:
        """What decides the output besides the input: the task and every weights file, by fingerprint."""
        spec = self.graph.spec
        parts = {f"task {spec.task}": fingerprint([spec.resolved(), list(self.part)])}
        for name, path in sorted(self.weights.items()):
            parts[f"weights of {name}"] = sha256_of_file(path)
        return parts

    def note_training(self, node: str, header: Mapping[str, Any]) -> None:
        """Takes from a trained network's header what it was trained with."""
        spec = self.graph.spec
        if told := SixteenBits.of_header(header, spec.source):
            self._sixteen_bits[f"{spec.task}.{node}"] = told

    def _operator(self, name: str) -> Operator:
        node = self.graph.spec.nodes[name]
        return NODE_KINDS[node.use].prepare(node.params, _Surroundings(self, name))

    def inner(self, task: str) -> Operator:
        """Another whole task as an operator; its weights count among this one's."""
        inside = Translator(self.book, task, self.runs, self.device)
        self.weights |= inside.weights
        if inside.graph.spec.source == self.graph.spec.source:
            self._sixteen_bits |= inside._sixteen_bits

        def operator(images: list[Tensor]) -> Tensor:
            size_px = (images[0].shape[2], images[0].shape[3])
            whole = inside.levels(images[0]).clamp(0.0, pixels.WHITE).round()
            return pixels.resize_levels(whole, size_px)

        return operator


@dataclass(frozen=True)
class _Surroundings:
    """What a node of a translator may ask for; see `pbvs.modules.node.Surroundings`."""

    owner: Translator
    node: str

    @property
    def device(self) -> torch.device:
        return self.owner.device

    def trained(self, network: str) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
        task = self.owner.graph.spec.task
        self.owner.weights[f"{task}.{self.node}"] = self.owner.runs.weights_file(task, self.node)
        header, state = self.owner.runs.load(task, self.node, network)
        self.owner.note_training(self.node, header)
        return header, state

    def translator(self, task: str) -> Operator:
        return self.owner.inner(task)


@dataclass(frozen=True)
class Translated:
    """What a translation made: images in all, images made now, seconds for one (read to written)."""

    images: int
    made_now: int
    seconds_per_image: float


def translate_folder(
    translator: Translator, inputs: Path, out: Path, *, overwrite: bool, progress: Progress | None = None
) -> Translated:
    """Translates every image of `inputs` into `out/<stem>.png`.

    A run that was stopped goes on where it was, when inputs, task and weights are the same. Other images in
    `out` are an error, or with `overwrite` taken away.

    Raises:
        DataError: no inputs, or two with one stem.
        ImageError: an input cannot be read, or has other bands than the task's source.
        UsageError: `out` holds something else and `overwrite` is not given.
    """
    sources = input_images(inputs)
    made_of = {**translator.made_of(), "inputs": folder_fingerprint(sources)}
    record = _begun(out, made_of, overwrite)
    stems = {path.stem for path in sources}
    for extra in [p for p in pixels.list_images(out) if p.stem not in stems]:
        extra.unlink()
    todo = [path for path in sources if not (out / f"{path.stem}.png").is_file()]
    for done, path in enumerate(todo, start=len(sources) - len(todo) + 1):
        started = time.perf_counter()
        image = read_source(path, translator)
        pixels.write_png(out / f"{path.stem}.png", translator.stored(image))
        record["seconds"] += time.perf_counter() - started
        record["timed_images"] += 1
        write_json(out / RECORD, record)  # with each image: a run that is killed keeps the times it took
        if progress:
            progress(done, len(sources))
    return Translated(len(sources), len(todo), _mean_seconds(record))


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


def folder_fingerprint(images: Sequence[Path]) -> str:
    """A fingerprint of images by name and contents."""
    return fingerprint([[path.name, sha256_of_file(path)] for path in images])


def seconds_per_image(folder: Path) -> float:
    """The measured time of one image, from the record that a translation left in its folder.

    Raises:
        DataError: the folder was not written by a translation.
    """
    path = folder / RECORD
    if not path.is_file():
        raise DataError(
            "no record of a translation there", where=path, next_step="translate with pbvs, or give --runtime"
        )
    record = json.loads(path.read_text(encoding="utf-8"))
    return _mean_seconds(record)


def _mean_seconds(record: Mapping[str, Any]) -> float:
    return float(record["seconds"]) / max(1, int(record["timed_images"]))


def _begun(out: Path, made_of: dict[str, str], overwrite: bool) -> dict[str, Any]:
    """The record of a translation into `out`: a stopped one's to go on with, or a new one."""
    path = out / RECORD
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["made_of"] == made_of:
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
    record = {"made_of": made_of, "seconds": 0.0, "timed_images": 0}
    write_json(path, record)
    return record


def mean_seconds_per_image(folders: Sequence[Path]) -> float:
    """The measured time of one image over several folders of translations.

    Raises:
        DataError: a folder was not written by a translation.
    """
    counts = [len(pixels.list_images(folder)) for folder in folders]
    seconds = [seconds_per_image(folder) for folder in folders]
    return sum(n * s for n, s in zip(counts, seconds, strict=True)) / max(1, sum(counts))
