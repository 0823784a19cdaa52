"""One task's graph with its weights loaded: stored images in, stored images out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pbvs.archives.layouts import BANDS
from pbvs.core import pixels
from pbvs.core.files import fingerprint, sha256_of_file
from pbvs.core.types import Image8
from pbvs.core.versions import TRANSLATE
from pbvs.dataset.views import SOURCE
from pbvs.graph.node import InferenceOptions, Operator
from pbvs.graph.nodes.channel_sums import apply_lut, lut_of
from pbvs.graph.nodes.whole_task import WholeTaskParams
from pbvs.graph.picture import Picture, Sources
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.runs import BEST, Runs
from pbvs.pipeline.uint16_scaling import Uint16Scaling, resolve_scaling

if TYPE_CHECKING:
    from torch import Tensor

    from pbvs.training.run_record import RunRecord


class Translator:
    """One task, or a part of its graph, with its weights loaded.

    Args:
        tasks: the task, and those it depends on.
        task: its name.
        runs: where trained weights lie.
        device: where networks run.
        part: the nodes to run, in order; None for all.
        options: how networks compute.

    Attributes:
        weights: the weights files in use, by the names of the trained nodes.
        images_seen: from how many training images these come, by the same names.

    Raises:
        CheckpointError: weights are missing or belong to another task.
    """

    def __init__(
        self,
        tasks: TaskSet,
        task: str,
        runs: Runs,
        device: torch.device,
        part: Sequence[str] | None = None,
        options: InferenceOptions | None = None,
    ):
        self.graph = tasks.graph(task)
        self.part = tuple(part or self.graph.order)
        self.tasks, self.runs, self.device = tasks, runs, device
        self.options = options or InferenceOptions()
        self.weights: dict[str, Path] = {}
        self.images_seen: dict[str, int] = {}
        self._scalings: dict[str, Uint16Scaling] = {}  # that networks were trained with, by their names
        spec = self.graph.spec
        self._settings = {f"task {spec.task}": fingerprint([spec.resolved(), list(self.part)])}
        nodes = spec.nodes
        self._operators = {
            name: nodes[name].kind.prepare(nodes[name].params, _Context(self, name)) for name in self.part
        }
        self._lut_start = self._find_lut_start()
        self._lut: Image8 | None = None
        if self._lut_start is not None:
            tail = self.part[self._lut_start :]
            self._lut = lut_of(
                lambda images: self.graph.run(_Exact(images), self._operators, tail, picture=_Exact)
            )

    @property
    def bands_in(self) -> int:
        """Bands that the images given must have."""
        node = self.graph.spec.nodes[self.part[0]]
        return BANDS[self.graph.spec.source] if node.inputs[0] == SOURCE else self.graph.bands[node.inputs[0]]

    def stored(self, source: Image8) -> Image8:
        """An image `H,W,C uint8` of any size, translated: `h,w,C uint8` of the task's size."""
        return self.stored_together([source])[0]

    def stored_together(self, sources: Sequence[Image8]) -> list[Image8]:
        """As `stored`, several images in one pass of the networks.

        Each is resampled once, in whole numbers, straight to the size that a network works at, as in
        training; what a network gives is resampled to the task's size before it is rounded.
        """
        size_px, head = self.graph.spec.size_px, self.part[: self._lut_start]
        if head or self._lut is None:
            images = pixels.resize_float255(self.graph.run(Sources(sources), self._operators, head), size_px)
            stored = [pixels.stored_from_float255(image[None]) for image in images]
        else:
            stored = [pixels.resize(source, size_px) for source in sources]
        return stored if self._lut is None else [apply_lut(image, self._lut) for image in stored]

    def unresized(self, sources: Sequence[Image8]) -> list[Image8]:
        """As `stored_together`, each at the size that the last node gives it."""
        images = self.graph.run(Sources(sources), self._operators, self.part)
        return [pixels.stored_from_float255(image[None]) for image in images]

    @property
    def uint16_scaling(self) -> Uint16Scaling:
        """How a 16-bit input becomes 8-bit: as in the training of the networks, else by the task's rule.

        Raises:
            CheckpointError: two networks were trained with different numbers.
        """
        data = self.graph.spec.data
        return resolve_scaling(self._scalings, Uint16Scaling(data.uint16, data.uint16_percent))

    def provenance(self) -> dict[str, str]:
        """What decides the output besides the input, by fingerprint or version: task, weights, precision."""
        weights = {f"weights of {name}": sha256_of_file(path) for name, path in sorted(self.weights.items())}
        options = fingerprint(asdict(self.options))
        return {**self._settings, **weights, "computing": options, "translate": f"version {TRANSLATE}"}

    def weights_used(self) -> str:
        """A line for people: which weights of how many images are in use; empty without any."""
        return "; ".join(
            f"{name}: {path.stem} weights from {self.images_seen[name]} training images"
            for name, path in sorted(self.weights.items())
        )

    def note_training(self, name: str, path: Path, record: RunRecord) -> None:
        """Keeps what a trained network's record says of its training."""
        self.weights[name], self.images_seen[name] = path, record.images_seen
        if scaling := Uint16Scaling.of_record(record, self.graph.spec.source):
            self._scalings[name] = scaling

    def embed(self, task: str) -> Operator:
        """Another whole task as an operator; its settings and weights count among this one's."""
        inner = Translator(self.tasks, task, self.runs, self.device, options=self.options)
        self._settings |= inner._settings
        self.weights |= inner.weights
        self.images_seen |= inner.images_seen
        if inner.graph.spec.source == self.graph.spec.source:
            self._scalings |= inner._scalings

        def operator(pictures: list[Picture]) -> Tensor:
            images = inner.stored_together(pictures[0].stored(None))
            return torch.cat([pixels.float255_from_stored(image) for image in images])

        return operator

    def _find_lut_start(self) -> int | None:
        """Where in `part` a tail begins that is one table of channel sums; None without one.

        Such a tail reads whole numbers of three bands, takes their sum, and goes on pixel by pixel.
        """
        nodes = [self.graph.spec.nodes[name] for name in self.part]
        first = next((i for i, node in enumerate(nodes) if node.kind.reads == "sum"), None)
        if first is None:
            return None
        is_whole = first == 0
        if first > 0 and isinstance(before := nodes[first - 1].params, WholeTaskParams):
            # Its image is what that task would write, if nothing resizes it here.
            is_whole = self.tasks.spec(before.task).size_px == self.graph.spec.size_px
        linked = all(node.inputs == (before.name,) for before, node in pairwise(nodes[max(0, first - 1) :]))
        pixelwise = all(node.kind.reads == "pixel" for node in nodes[first + 1 :])
        return first if is_whole and linked and pixelwise else None


class _Exact:
    """float255 images that are read as they are, at whatever size is asked for."""

    def __init__(self, images: Tensor):
        self.images = images

    def float255(self, size_px: tuple[int, int]) -> Tensor:
        return self.images

    def stored(self, size_px: tuple[int, int] | None) -> list[Image8]:
        return [pixels.stored_from_float255(image[None]) for image in self.images]


@dataclass(frozen=True)
class _Context:
    """What a node of a translator may ask for; see `pbvs.graph.node.NodeContext`."""

    owner: Translator
    node: str

    @property
    def device(self) -> torch.device:
        return self.owner.device

    @property
    def options(self) -> InferenceOptions:
        return self.owner.options

    @property
    def size_px(self) -> tuple[int, int]:
        return self.owner.graph.spec.size_px

    def trained(self, which: str = BEST) -> tuple[RunRecord, dict[str, dict[str, Tensor]]]:
        task = self.owner.graph.spec.task
        name = f"{task}.{self.node}" if which == BEST else f"{task}.{self.node} ({which})"
        record, states = self.owner.runs.load(task, self.node, which)
        self.owner.note_training(name, self.owner.runs.weights_file(task, self.node, which), record)
        return record, states

    def translator(self, task: str) -> Operator:
        return self.owner.embed(task)
