"""One task's graph with its weights loaded: stored images in, stored images out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbvs.archives.layouts import BANDS
from pbvs.core import pixels
from pbvs.core.files import fingerprint, sha256_of_file
from pbvs.graph.graph import SOURCE
from pbvs.graph.node import InferenceOptions, Operator
from pbvs.graph.node_kinds import NODE_KINDS
from pbvs.graph.nodes.channel_sums import apply_lut, table_of
from pbvs.graph.nodes.whole_task import WholeTaskParams
from pbvs.graph.spec import Node
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.runs import BEST, Runs
from pbvs.pipeline.uint16_scaling import Uint16Scaling, resolve_scaling

Stored8 = NDArray[np.uint8]


class Translator:
    """One task, or a part of its graph, with its weights loaded.

    Args:
        book: tells the task, and those it stands on.
        task: its name.
        runs: where trained weights lie.
        device: where networks run.
        part: the nodes to run, in order; None for all.
        computing: how networks compute.

    Raises:
        CheckpointError: weights are missing or belong to another task.
    """

    def __init__(
        self,
        book: TaskSet,
        task: str,
        runs: Runs,
        device: torch.device,
        part: Sequence[str] | None = None,
        computing: InferenceOptions | None = None,
    ):
        self.graph = book.graph(task)
        self.part = tuple(part or self.graph.order)
        self.book, self.runs, self.device = book, runs, device
        self.computing = computing or InferenceOptions()
        self.weights: dict[str, Path] = {}
        self._sixteen_bits: dict[str, Uint16Scaling] = {}  # that networks were trained with, by their names
        self._operators = {name: self._operator(name) for name in self.part}
        self._table_from = self._first_of_table()
        self._table = None if self._table_from is None else self._tail_as_table(self._table_from)

    @property
    def bands_in(self) -> int:
        """Bands that the images given must have."""
        node = self.graph.spec.nodes[self.part[0]]
        return BANDS[self.graph.spec.source] if node.inputs[0] == SOURCE else self.graph.bands[node.inputs[0]]

    def stored(self, source: Stored8) -> Stored8:
        """A stored image `H,W,C` of any size, translated: `h,w,C` of the task's size."""
        return self.stored_together([source])[0]

    def stored_together(self, sources: Sequence[Stored8]) -> list[Stored8]:
        """As `stored`, several images in one pass of the networks.

        Each is first brought to the task's size by `pixels.resize`, in whole numbers, as training sees it.
        """
        at_size = [pixels.resize(source, self.graph.spec.size_px) for source in sources]
        before_table = self.part[: self._table_from]
        if before_table or self._table is None:
            levels = torch.cat([pixels.float255_from_stored(image) for image in at_size])
            made = self.graph.run(levels, self._operators, before_table)
            at_size = [pixels.stored_from_float255(image[None]) for image in made]
        if self._table is None:
            return at_size
        return [apply_lut(image, self._table) for image in at_size]

    @property
    def sixteen_bits(self) -> Uint16Scaling:
        """How a 16-bit input becomes 8-bit: as in the training of the networks, else by the task's rule.

        Raises:
            CheckpointError: two networks were trained with different numbers.
        """
        data = self.graph.spec.data
        return resolve_scaling(self._sixteen_bits, Uint16Scaling(data.uint16, data.uint16_percent))

    def provenance(self) -> dict[str, str]:
        """What decides the output besides the input: task, weights files and precision, by fingerprint."""
        spec = self.graph.spec
        parts = {f"task {spec.task}": fingerprint([spec.resolved(), list(self.part)])}
        for name, path in sorted(self.weights.items()):
            parts[f"weights of {name}"] = sha256_of_file(path)
        return {**parts, "computing": fingerprint(asdict(self.computing))}

    def note_training(self, name: str, header: Mapping[str, Any]) -> None:
        """Takes from a trained network's header what it was trained with."""
        if told := Uint16Scaling.of_header(header, self.graph.spec.source):
            self._sixteen_bits[name] = told

    def inner(self, task: str) -> Operator:
        """Another whole task as an operator; its weights count among this one's."""
        inside = Translator(self.book, task, self.runs, self.device, computing=self.computing)
        self.weights |= inside.weights
        if inside.graph.spec.source == self.graph.spec.source:
            self._sixteen_bits |= inside._sixteen_bits

        def operator(images: list[Tensor]) -> Tensor:
            size_px = (images[0].shape[2], images[0].shape[3])
            made = inside.stored_together([pixels.stored_from_float255(image[None]) for image in images[0]])
            whole = torch.cat([pixels.float255_from_stored(image) for image in made])
            return pixels.resize_float255(whole, size_px)

        return operator

    def _operator(self, name: str) -> Operator:
        node = self.graph.spec.nodes[name]
        return NODE_KINDS[node.use].prepare(node.params, _Surroundings(self, name))

    def _first_of_table(self) -> int | None:
        """Where in `part` a tail begins that is one table of channel sums; None without one.

        Such a tail reads whole numbers of three bands, takes their sum, and goes on pixel by pixel.
        """
        nodes = [self.graph.spec.nodes[name] for name in self.part]
        first = next((i for i, node in enumerate(nodes) if NODE_KINDS[node.use].reads == "sum"), None)
        if first is None:
            return None
        is_whole = first == 0 or self._writes_whole_numbers(nodes[first - 1])
        linked = all(node.inputs == (before.name,) for before, node in pairwise(nodes[max(0, first - 1) :]))
        pixelwise = all(NODE_KINDS[node.use].reads == "pixel" for node in nodes[first + 1 :])
        return first if is_whole and linked and pixelwise else None

    def _writes_whole_numbers(self, node: Node) -> bool:
        """Whether a node is another task at this one's size: its image is what that task would write."""
        params = node.params
        if not isinstance(params, WholeTaskParams):
            return False
        return self.book.spec(params.task).size_px == self.graph.spec.size_px

    def _tail_as_table(self, first: int) -> Stored8:
        return table_of(lambda levels: self.graph.run(levels, self._operators, self.part[first:]))


@dataclass(frozen=True)
class _Surroundings:
    """What a node of a translator may ask for; see `pbvs.graph.node.NodeContext`."""

    owner: Translator
    node: str

    @property
    def device(self) -> torch.device:
        return self.owner.device

    @property
    def computing(self) -> InferenceOptions:
        return self.owner.computing

    def trained(self, network: str, which: str = BEST) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
        task = self.owner.graph.spec.task
        name = f"{task}.{self.node}" if which == BEST else f"{task}.{self.node} ({which})"
        header, state = self.owner.runs.load(task, self.node, network, which)
        self.owner.weights[name] = self.owner.runs.weights_file(task, self.node, which)
        self.owner.note_training(name, header)
        return header, state

    def translator(self, task: str) -> Operator:
        return self.owner.inner(task)
