"""The pairs that a factor is calibrated on: colour as the grayscale node reads it, and the target."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import numpy as np

from pbvs.core.errors import UsageError
from pbvs.core.types import Image8, Mask
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pair_dataset import PairDataset
from pbvs.dataset.pairs import Location
from pbvs.dataset.views import SOURCE
from pbvs.graph.graph import TaskGraph
from pbvs.graph.spec import Node
from pbvs.pipeline.pair_table import pair_table
from pbvs.pipeline.translator import Translator


class ToneTail(NamedTuple):
    """The two last nodes of a task that can be calibrated."""

    grayscale: Node
    intensity: Node


def tone_tail(graph: TaskGraph) -> ToneTail:
    """The grayscale and intensity nodes at the end of a task.

    Raises:
        UsageError: the task ends otherwise.
    """
    nodes = graph.spec.nodes
    last = nodes[graph.spec.output]
    before = nodes.get(last.inputs[0])
    if last.use != "intensity" or before is None or before.use != "grayscale":
        raise UsageError(
            f"{graph.spec.task} does not end in grayscale and intensity: it has no factor to calibrate",
            next_step="calibrate rgb2ir or sar2ir",
        )
    return ToneTail(before, last)


def nodes_before(graph: TaskGraph, tail: ToneTail) -> tuple[str, ...] | None:
    """The nodes that compute the colour image; None where it is the source itself."""
    feeds = tail.grayscale.inputs[0]
    return None if feeds == SOURCE else graph.part(end=feeds)


class Pair(NamedTuple):
    """Colour `H,W,3`, target `H,W,1`, and where both are valid, `H,W`."""

    location: Location
    name: str
    rgb: Image8
    target: Image8
    valid: Mask


class Pairs:
    """The training pairs of a task at its size: every source capture once, with a target of its location.

    Args:
        graph: of the task.
        prepared: the data.
        before: computes the colour image from the source; None where that is the source itself.
    """

    def __init__(self, graph: TaskGraph, prepared: PreparedData, before: Translator | None = None):
        spec = graph.spec
        table = pair_table(spec, prepared)
        self._sampler, self._before = table.every_source(), before
        self._dataset = PairDataset(self._sampler, size_px=spec.size_px, flips=False)
        self.indices = np.arange(len(self._sampler))

    def some(self, n_most: int) -> Pairs:
        """At most `n_most` of these, spread evenly."""
        fewer = copy(self)
        n = len(self.indices)
        fewer.indices = self.indices[np.unique(np.linspace(0, n - 1, min(n, n_most)).round().astype(int))]
        return fewer

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Pair]:
        """The pairs that have a valid pixel, in a fixed order."""
        for n in self.indices:
            item = self._dataset[int(n)]
            valid = item["mask"][0].numpy()
            if valid.any():
                source = np.ascontiguousarray(item["source"].permute(1, 2, 0).numpy())
                rgb = source if self._before is None else self._before.stored(source)
                target = np.ascontiguousarray(item["target"].permute(1, 2, 0).numpy())
                yield Pair(self._sampler.pair_at(int(n)).location, item["name"], rgb, target, valid)
