"""A task's graph: checked before it runs, run in dependency order, whole or in part."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pbvs.archives.layouts import BANDS, Modality
from pbvs.core.errors import UsageError, did_you_mean
from pbvs.dataset.views import SOURCE, TARGET
from pbvs.graph.node import Operator
from pbvs.graph.nodes.whole_task import WholeTaskParams
from pbvs.graph.spec import Node, Problems, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

    from pbvs.graph.picture import Picture


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

        `embedded`: source and target modality of each task that is a node.
        """
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        for node in spec.nodes.values():
            for name in node.inputs:
                if name != SOURCE and name not in spec.nodes:
                    known = [SOURCE, *(n for n in spec.nodes if n != node.name)]
                    problems.add(
                        f"nodes.{node.name}.inputs", f"no node {name!r}; {did_you_mean(name, known)}"
                    )
            sorter.add(node.name, *(i for i in node.inputs if i in spec.nodes))
        order: tuple[str, ...] = ()
        try:
            order = tuple(sorter.static_order())
        except graphlib.CycleError as error:
            problems.add("nodes", f"the graph has a cycle: {' -> '.join(error.args[1])}")
        _check_inputs(spec, problems)
        bands = _bands(spec, order, embedded, problems) if not problems.found else {}
        graph = cls(spec, order, bands, tuple(weight_edges))
        if not problems.found:
            try:
                graph.trained  # noqa: B018 - asked for its order
            except graphlib.CycleError as error:
                problems.add("nodes", f"init_from and inputs have a cycle: {' -> '.join(error.args[1])}")
        return graph

    @property
    def image_edges(self) -> list[tuple[str, str]]:
        """Every edge that images flow along, in order."""
        return [(i, name) for name in self.order for i in self.spec.nodes[name].inputs]

    @property
    def trained(self) -> list[Node]:
        """The nodes with weights of their own, each after those that it reads or begins at."""
        nodes = [self.spec.nodes[name] for name in self.order if self.spec.nodes[name].trained]
        names = {node.name for node in nodes}
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        for node in nodes:
            begins_at = {
                edge.from_node
                for edge in self.weight_edges
                if (edge.from_task, edge.to_node) == (self.spec.task, node.name)
            }
            sorter.add(
                node.name,
                *sorted((names & begins_at) | (names & set(self.part(end=node.name))) - {node.name}),
            )
        return [self.spec.nodes[name] for name in sorter.static_order()]

    def upstream(self, node: Node) -> tuple[str, ...]:
        """The nodes that a trained node's views are of, besides the task's source and target; sorted."""
        views = node.system.views_of(node.config)
        return tuple(sorted({view_of(view.of, node) for view in views.values()} - {SOURCE, TARGET}))

    def view_bands(self, node: Node) -> dict[str, int]:
        """Bands of each view of a trained node, by name."""
        views = node.system.views_of(node.config)
        return {name: view.bands(self.bands[view_of(view.of, node)]) for name, view in views.items()}

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
        wanted, todo = set(), [end or self.spec.output]
        while todo:  # all that `end` depends on
            name = todo.pop()
            if name != SOURCE and name not in wanted:
                wanted.add(name)
                todo += self.spec.nodes[name].inputs
        if start is not None:
            downstream = {start}
            for name in self.order:
                if downstream & set(self.spec.nodes[name].inputs):
                    downstream.add(name)
            wanted &= downstream
        if not wanted:
            raise UsageError(f"{end!r} does not depend on {start!r} in {self.spec.task}")
        return tuple(name for name in self.order if name in wanted)

    def run(
        self,
        source: Picture,
        operators: Mapping[str, Operator],
        part: Sequence[str],
        picture: Callable[[Tensor], Picture] | None = None,
    ) -> Tensor:
        """Sends `source` through the nodes of `part`, in order; gives the last one's float255 `N,C,h,w`.

        Inputs that lie outside the part are taken to be `source`: the images given stand in for them.
        `picture` decides how a node's image is read by others; by default at any size they ask for.
        """
        from pbvs.graph.picture import Computed

        images: dict[str, Tensor] = {}
        pictures: dict[str, Picture] = {}
        for name in part:
            images[name] = operators[name]([pictures.get(i, source) for i in self.spec.nodes[name].inputs])
            pictures[name] = (picture or Computed)(images[name])
        return images[part[-1]]

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
                    "trainable": n.trained,
                    "bands": self.bands[n.name],
                    "settings": n.params.model_dump(mode="json"),
                    **({"system_version": n.system.version, "views": _views(n)} if n.trained else {}),
                }
                for n in nodes
            ],
            "image_edges": [list(edge) for edge in self.image_edges],
            "weight_edges": [[edge.from_task, edge.to_node] for edge in self.weight_edges],
            "order": list(self.order),
            "data": self.spec.data.model_dump(mode="json"),
        }


def view_of(of: str, node: Node) -> str:
    """What a view of `of` is of: a node that reads another node is shown that node's image as its source."""
    return node.inputs[0] if of == SOURCE else of


def _views(node: Node) -> dict[str, str]:
    views = node.system.views_of(node.config)
    return {
        name: view.model_copy(update={"of": view_of(view.of, node)}).described for name, view in views.items()
    }


def _check_inputs(spec: TaskSpec, problems: Problems) -> None:
    """Output, number of inputs, unused nodes, and the views of trained nodes."""
    if spec.output not in spec.nodes:
        problems.add("output", f"no node {spec.output!r}; {did_you_mean(spec.output, list(spec.nodes))}")
    used = {name for node in spec.nodes.values() for name in node.inputs} | {spec.output}
    for node in spec.nodes.values():
        low, high = node.kind.n_inputs
        if not low <= len(node.inputs) <= high:
            allowed = str(low) if low == high else f"{low} to {high}"
            problems.add(f"nodes.{node.name}.inputs", f"{node.use} takes {allowed}, not {len(node.inputs)}")
        if node.name not in used:
            problems.add(f"nodes.{node.name}", "no node takes its image; make it an input, or delete it")
        if not node.trained:
            continue
        views, scale = node.system.views_of(node.config), node.system.scale(node.config)
        for name in node.config.views:
            if name not in node.system.views:
                known = did_you_mean(name, sorted(node.system.views))
                problems.add(f"nodes.{node.name}.views", f"{node.use} has no view {name!r}; {known}")
        for name, view in views.items():
            # A view of another node than the one that is read would be trained on and never translated.
            if view.of not in (SOURCE, TARGET, *node.inputs):
                known = did_you_mean(view.of, [SOURCE, TARGET, *node.inputs])
                problems.add(f"nodes.{node.name}.views.{name}.of", f"no input {view.of!r}; {known}")
        if views[SOURCE].low != scale * views[TARGET].low:
            problems.add(
                f"nodes.{node.name}.views",
                f"the source is reduced by {views[SOURCE].low} and the target by {views[TARGET].low}, "
                f"but {node.use} makes images {scale} times larger",
            )


def _bands(
    spec: TaskSpec,
    order: Sequence[str],
    embedded: Mapping[str, tuple[Modality, Modality]],
    problems: Problems,
) -> dict[str, int]:
    bands = {SOURCE: BANDS[spec.source], TARGET: BANDS[spec.target]}
    for name in order:
        node = spec.nodes[name]
        try:
            if node.trained:
                target = node.system.views_of(node.config)[TARGET]
                bands[name] = target.bands(bands[view_of(target.of, node)])
            elif isinstance(node.params, WholeTaskParams):
                bands[name] = _whole_task_bands(node, bands[node.inputs[0]], spec, embedded)
            else:
                assert node.kind.bands is not None
                bands[name] = node.kind.bands(node.params, [bands[i] for i in node.inputs])
        except ValueError as error:
            problems.add(f"nodes.{name}", str(error))
            return bands
    if bands[spec.output] != BANDS[spec.target]:
        problems.add(
            "output",
            f"{spec.output} gives {bands[spec.output]} band(s), {spec.target} has {BANDS[spec.target]}",
        )
    return bands


def _whole_task_bands(
    node: Node, n_bands: int, spec: TaskSpec, embedded: Mapping[str, tuple[Modality, Modality]]
) -> int:
    assert isinstance(node.params, WholeTaskParams)
    source, target = embedded[node.params.task]
    from_source = node.inputs == (SOURCE,)
    if BANDS[source] != n_bands or (from_source and source != spec.source):
        given = spec.source if from_source else f"{n_bands} band(s)"
        raise ValueError(f"{node.params.task} translates {source}, its input is {given}")
    return BANDS[target]
