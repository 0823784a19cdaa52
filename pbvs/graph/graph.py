"""A task's graph: checked before it runs, run in dependency order, whole or in part."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pbvs.archives.layouts import BANDS, Modality
from pbvs.core.errors import UsageError, did_you_mean
from pbvs.graph.node import Operator
from pbvs.graph.node_kinds import NODE_KINDS
from pbvs.graph.nodes.whole_task import WholeTaskParams
from pbvs.graph.spec import Node, Problems, TaskSpec

SOURCE = "source"


@dataclass(frozen=True)
class WeightEdge:
    """Weights that go from another task to a node; `from_node` none: all that the task has."""

    from_task: str
    to_node: str
    from_node: str | None


@dataclass(frozen=True)
class TaskGraph:
    """A checked task: its spec, the order of its nodes, the bands that each gives."""

    spec: TaskSpec
    order: tuple[str, ...]
    bands: dict[str, int]
    weight_edges: tuple[WeightEdge, ...]

    @classmethod
    def checked(
        cls,
        spec: TaskSpec,
        embedded: Mapping[str, tuple[Modality, Modality]],
        weight_edges: Sequence[WeightEdge],
        problems: Problems,
    ) -> TaskGraph:
        """Makes the graph and adds everything wrong with it to `problems`.

        `embedded`: source and target modality of each task that stands as a node.
        """
        order = _order(spec, problems)
        _check_use(spec, problems)
        bands = _bands(spec, order, embedded, problems) if not problems.found else {}
        return cls(spec, order, bands, tuple(weight_edges))

    @property
    def image_edges(self) -> list[tuple[str, str]]:
        """Every edge that images flow along, in order."""
        return [(i, name) for name in self.order for i in self.spec.nodes[name].inputs]

    @property
    def trainable(self) -> list[Node]:
        """The nodes with weights of their own, in order."""
        return [self.spec.nodes[name] for name in self.order if self.spec.nodes[name].trainable]

    def part(self, start: str | None = None, end: str | None = None) -> tuple[str, ...]:
        """The nodes from `start` on (all that depend on it, itself included) up to `end`, in order.

        Raises:
            UsageError: no such node, or nothing lies between the two.
        """
        for name in (start, end):
            if name is not None and name not in self.spec.nodes:
                raise UsageError(
                    f"{self.spec.task} has no node {name!r}; {did_you_mean(name, list(self.order))}",
                    next_step=f"`pbvs tasks show {self.spec.task}` shows its nodes",
                )
        wanted = self._upstream(end or self.spec.output)
        if start is not None:
            wanted &= self._downstream(start)
        if not wanted:
            raise UsageError(f"{end!r} does not depend on {start!r} in {self.spec.task}")
        return tuple(name for name in self.order if name in wanted)

    def run(
        self, source: Tensor, operators: Mapping[str, Operator], part: Sequence[str] | None = None
    ) -> Tensor:
        """Sends source levels `N,C,H,W` through `part` (default: all); gives its last node's levels.

        Inputs that lie outside the part are taken to be `source`: the images given stand in for them.
        """
        names = self.order if part is None else part
        images: dict[str, Tensor] = {}
        for name in names:
            images[name] = operators[name]([images.get(i, source) for i in self.spec.nodes[name].inputs])
        return images[names[-1]]

    def described(self) -> dict[str, Any]:
        """The graph as `pbvs tasks show --json` gives it."""
        nodes = [self.spec.nodes[name] for name in self.order]
        return {
            "task": self.spec.task,
            "source": self.spec.source,
            "target": self.spec.target,
            "size_px": list(self.spec.size_px),
            "nodes": [
                {
                    "name": n.name,
                    "use": n.use,
                    "inputs": list(n.inputs),
                    "trainable": n.trainable,
                    "bands": self.bands[n.name],
                    "settings": n.params.model_dump(mode="json"),
                }
                for n in nodes
            ],
            "image_edges": [list(edge) for edge in self.image_edges],
            "weight_edges": [[edge.from_task, edge.to_node] for edge in self.weight_edges],
            "order": list(self.order),
            "data": self.spec.data.model_dump(mode="json"),
        }

    def _upstream(self, end: str) -> set[str]:
        wanted, todo = set(), [end]
        while todo:
            name = todo.pop()
            if name != SOURCE and name not in wanted:
                wanted.add(name)
                todo += self.spec.nodes[name].inputs
        return wanted

    def _downstream(self, start: str) -> set[str]:
        wanted = {start}
        for name in self.order:
            if wanted & set(self.spec.nodes[name].inputs):
                wanted.add(name)
        return wanted


def _order(spec: TaskSpec, problems: Problems) -> tuple[str, ...]:
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for node in spec.nodes.values():
        for name in node.inputs:
            if name != SOURCE and name not in spec.nodes:
                known = [SOURCE, *(n for n in spec.nodes if n != node.name)]
                problems.add(f"nodes.{node.name}.inputs", f"no node {name!r}; {did_you_mean(name, known)}")
        sorter.add(node.name, *(i for i in node.inputs if i in spec.nodes))
    try:
        return tuple(sorter.static_order())
    except graphlib.CycleError as error:
        problems.add("nodes", f"the graph goes in a circle: {' -> '.join(error.args[1])}")
        return ()


def _check_use(spec: TaskSpec, problems: Problems) -> None:
    if spec.output not in spec.nodes:
        problems.add("output", f"no node {spec.output!r}; {did_you_mean(spec.output, list(spec.nodes))}")
    used = {name for node in spec.nodes.values() for name in node.inputs} | {spec.output}
    for node in spec.nodes.values():
        low, high = NODE_KINDS[node.use].n_inputs
        if not low <= len(node.inputs) <= high:
            allowed = str(low) if low == high else f"{low} to {high}"
            problems.add(f"nodes.{node.name}.inputs", f"{node.use} takes {allowed}, not {len(node.inputs)}")
        if node.name not in used:
            problems.add(f"nodes.{node.name}", "nothing takes its image; make it an input, or take it out")
        if node.trainable and node.inputs != (SOURCE,):
            problems.add(
                f"nodes.{node.name}.inputs", 'a trainable node reads the source: inputs = ["source"]'
            )


def _bands(
    spec: TaskSpec,
    order: Sequence[str],
    embedded: Mapping[str, tuple[Modality, Modality]],
    problems: Problems,
) -> dict[str, int]:
    bands = {SOURCE: BANDS[spec.source]}
    for name in order:
        node = spec.nodes[name]
        try:
            bands[name] = _node_bands(node, [bands[i] for i in node.inputs], spec, embedded)
        except ValueError as error:
            problems.add(f"nodes.{name}", str(error))
            return bands
    if bands[spec.output] != BANDS[spec.target]:
        problems.add(
            "output",
            f"{spec.output} gives {bands[spec.output]} band(s), {spec.target} has {BANDS[spec.target]}",
        )
    return bands


def _node_bands(
    node: Node, inputs: list[int], spec: TaskSpec, embedded: Mapping[str, tuple[Modality, Modality]]
) -> int:
    if not isinstance(node.params, WholeTaskParams):
        return NODE_KINDS[node.use].bands(node.params, inputs, BANDS[spec.target])
    source, target = embedded[node.params.task]
    from_source = node.inputs == (SOURCE,)
    if BANDS[source] != inputs[0] or (from_source and source != spec.source):
        given = spec.source if from_source else f"{inputs[0]} band(s)"
        raise ValueError(f"{node.params.task} translates {source}, its input is {given}")
    return BANDS[target]
