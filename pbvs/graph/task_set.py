"""A set of tasks: every task that a command deals with, read, checked, and joined to the others."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbvs.archives.layouts import Modality
from pbvs.core.errors import TaskError, UsageError, did_you_mean
from pbvs.graph.graph import TaskGraph, WeightEdge
from pbvs.graph.nodes.whole_task import WholeTaskParams
from pbvs.graph.spec import Problems, TaskSpec, read_task
from pbvs.graph.task_files import parse_override, task_names, tasks_folder
from pbvs.systems.config import TrainedConfig


class TaskSet:
    """Tasks by name; reading one reads and checks all it depends on.

    Args:
        folder: of task files; none is that of the default solution.
        overrides: task name to its dotted keys and values.
    """

    def __init__(self, folder: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None):
        self.folder = folder or tasks_folder()
        self.names = task_names(self.folder)
        if not self.names:
            raise UsageError("no task files (*.toml) there", where=self.folder)
        self.overrides = dict(overrides or {})
        self._graphs: dict[str, TaskGraph] = {}
        self._specs: dict[str, TaskSpec] = {}
        for name in self.overrides:
            self._check_known(name, "--set")

    def with_overrides(self, task: str, overrides: Mapping[str, Any]) -> TaskSet:
        """The same set with further values set in one task."""
        own = {**self.overrides.get(task, {}), **overrides}
        return TaskSet(self.folder, {**self.overrides, task: own})

    def spec(self, name: str) -> TaskSpec:
        """One task as its file has it, read once.

        Raises:
            UsageError: no such task.
            TaskError: anything wrong with its file.
        """
        if name not in self._specs:
            self._check_known(name, None)
            path = self.folder / f"{name}.toml"
            spec = read_task(path, self.overrides.get(name, {}))
            if spec.task != name:
                raise TaskError(
                    f"the file names its task {spec.task!r}", where=path, next_step="name both alike"
                )
            self._specs[name] = spec
        return self._specs[name]

    def graph(self, name: str) -> TaskGraph:
        """One task's graph, checked, with all tasks it depends on read and checked too."""
        if name not in self._graphs:
            self._check_no_cycle(name)
            spec = self.spec(name)
            problems = Problems(spec.file)
            self._check_references(spec, problems)
            modalities: dict[str, tuple[Modality, Modality]] = {}
            for other in self.embedded(spec):
                if other in self.names:
                    modalities[other] = self.spec(other).source, self.spec(other).target
            graph = TaskGraph.checked(spec, modalities, self.weight_edges(spec), problems)
            problems.raise_any()
            for needed in self.needs(spec):
                self.graph(needed)
            self._graphs[name] = graph
        return self._graphs[name]

    def in_order(self, names: Iterable[str]) -> list[str]:
        """`names` and all tasks they depend on, those depended on first."""
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        todo = list(names)
        seen: set[str] = set()
        while todo:
            name = todo.pop(0)
            if name not in seen:
                seen.add(name)
                needed = self.needs(self.graph(name).spec)
                sorter.add(name, *needed)
                todo += needed
        return list(sorter.static_order())

    def needs(self, spec: TaskSpec) -> list[str]:
        """The tasks that `spec` depends on directly, by weights or as a node."""
        return sorted({edge.from_task for edge in self.weight_edges(spec)} - {spec.task})

    @staticmethod
    def embedded(spec: TaskSpec) -> list[str]:
        """The tasks that are nodes of `spec`'s graph."""
        return [n.params.task for n in spec.nodes.values() if isinstance(n.params, WholeTaskParams)]

    @staticmethod
    def weight_edges(spec: TaskSpec) -> list[WeightEdge]:
        """Every node of `spec` whose weights come from a task, with that task."""
        edges = []
        for node in spec.nodes.values():
            if isinstance(node.params, WholeTaskParams):
                edges.append(WeightEdge(node.params.task, node.name, None))
            elif isinstance(node.params, TrainedConfig) and node.params.init_from:
                origin = node.params.init_from
                if origin.task is not None:
                    edges.append(WeightEdge(origin.task, node.name, origin.node or node.name))
        return edges

    def _check_known(self, name: str, where: str | None) -> None:
        if name not in self.names:
            raise UsageError(
                f"unknown task {name!r}; {did_you_mean(name, self.names)}",
                where=where or self.folder,
                next_step="`pbvs tasks list` shows the tasks",
            )

    def _check_references(self, spec: TaskSpec, problems: Problems) -> None:
        for edge in self.weight_edges(spec):
            table = f"nodes.{edge.to_node}" if edge.from_node is None else f"nodes.{edge.to_node}.init_from"
            if edge.from_task not in self.names:
                hint = did_you_mean(edge.from_task, self.names)
                problems.add(f"{table}.task", f"unknown task {edge.from_task!r}; {hint}")
            elif edge.from_node is not None:
                trained = [n.name for n in self.spec(edge.from_task).nodes.values() if n.trained]
                if edge.from_node not in trained:
                    message = f"{edge.from_task} trains no node {edge.from_node!r}"
                    problems.add(f"{table}.node", f"{message}; {did_you_mean(edge.from_node, trained)}")

    def _check_no_cycle(self, name: str) -> None:
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        todo, seen = [name], set()
        while todo:
            at = todo.pop()
            if at in seen or at not in self.names:
                continue
            seen.add(at)
            needed = self.needs(self.spec(at))
            sorter.add(at, *needed)
            todo += needed
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            raise TaskError(
                f"the tasks' dependencies have a cycle: {' -> '.join(error.args[1])}",
                where=self.folder,
                next_step="delete one of these init_from tables or task nodes",
            ) from error


def task_set_with(folder: Path, task: str, texts: Iterable[str] | None) -> TaskSet:
    """The tasks for a command over one of them, with that command's `KEY=VALUE` arguments set in it.

    Raises:
        UsageError: an argument is not KEY=VALUE.
    """
    overrides = dict(parse_override(text) for text in texts or ())
    return TaskSet(folder, {task: overrides} if overrides else None)
