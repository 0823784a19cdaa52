"""One node to train: what it is trained on, and everything that decides its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbvs.core.errors import CheckpointError, UsageError, WeightsError
from pbvs.core.files import fingerprint, sha256_of_file
from pbvs.core.versions import TRAINING
from pbvs.dataset.index import PreparedData
from pbvs.dataset.views import TARGET, View
from pbvs.graph.graph import TaskGraph, view_of
from pbvs.graph.spec import Node, TaskSpec
from pbvs.graph.task_set import TaskSet
from pbvs.perceptual.metric_weight_files import METRIC_WEIGHT_FILES, WeightsKind, status
from pbvs.pipeline.derived import DerivedCaptures
from pbvs.pipeline.runs import Runs
from pbvs.prepare.plan import PrepareRules
from pbvs.prepare.stretch import Uint16Rule
from pbvs.systems.registry import SystemRecord
from pbvs.training import checkpoint


@dataclass(frozen=True)
class NodeTraining:
    """One node to train, and everything that decides its weights.

    Attributes:
        tasks: the task, and those it depends on.
        task: its name.
        node: one of its trained nodes.
        prepared: the folder of captures to train on.
        runs: where trained nodes lie.
        metric_weights: kind of the metrics' weights.
        precision: Fabric's name for the numbers to compute in.
        validation: a folder that holds the held-out locations at the task's size; None: `prepared`.
    """

    tasks: TaskSet
    task: str
    node: Node
    prepared: Path
    runs: Runs
    metric_weights: WeightsKind
    precision: str = "32-true"
    validation: Path | None = None

    @property
    def graph(self) -> TaskGraph:
        """The task's graph."""
        return self.tasks.graph(self.task)

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        return self.graph.spec

    @property
    def name(self) -> str:
        """`task.node`."""
        return f"{self.task}.{self.node.name}"

    @property
    def system(self) -> SystemRecord:
        """What trains the node."""
        return self.node.system

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.runs.node_folder(self.spec.task, self.node.name)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the node's image while training."""
        return working_size_px(self.spec, self.node)

    @property
    def views(self) -> dict[str, View]:
        """The node's views by name, each `of` an image of the dataset."""
        views = self.system.views_of(self.node.config)
        return {
            name: view.model_copy(update={"of": view_of(view.of, self.node)}) for name, view in views.items()
        }

    @property
    def metric_weights_needed(self) -> set[str]:
        """The metrics' weight files that the training needs, for its losses and to validate."""
        validates = self.spec.data.validate_images > 1
        return self.system.metric_weights(self.node.config) | ({"vgg16", "inception"} if validates else set())

    @property
    def validates_at_task_size(self) -> bool:
        """Whether the node is validated against the task's own target, at the task's size."""
        target = self.views[TARGET]
        return self.spec.data.validate_images > 1 and target.of == TARGET and not target.gray

    def init_file(self) -> Path | None:
        """The weights file that training starts from; None for fresh weights."""
        origin = self.node.config.init_from
        if origin is None:
            return None
        if origin.task is None:
            return origin.official
        return self.runs.weights_file(origin.task, origin.node or self.node.name, validated=True)

    def settings(self) -> dict[str, Any]:
        """Everything in the task file that decides the weights, JSON-like."""
        return {
            **self.spec.resolved(),
            "nodes": None,
            "output": None,
            "inputs": list(self.node.inputs),
            "node": self.node.config.of_training(),
        }

    def provenance(self) -> dict[str, str]:
        """Everything that decides the weights, by fingerprint or version."""
        init = self.init_file()
        if init is not None and not init.is_file():
            raise self._no_init_weights(init)
        data = PreparedData.open(self.prepared).fingerprint
        return {
            "task settings": fingerprint(self.settings()),
            "training data": data,
            "validation data": PreparedData.open(self.validation).fingerprint if self.validation else data,
            "init weights": sha256_of_file(init) if init else "fresh",
            "metric weights": self.metric_weights,
            "precision": self.precision,
            "system": f"{self.node.use} version {self.system.version}",
            "training": f"version {TRAINING}",
            **self.derived.provenance(),
        }

    @property
    def derived(self) -> DerivedCaptures:
        """What upstream nodes make of the training captures."""
        upstream = self.graph.upstream(self.node)
        return DerivedCaptures(self.tasks, self.task, upstream, self.runs, self.folder)

    def _no_init_weights(self, file: Path) -> CheckpointError:
        origin, task = self.node.config.init_from, self.spec.task
        assert origin is not None
        if origin.task is None:
            return CheckpointError(f"{task} starts from a file that does not exist", where=file)
        return CheckpointError(
            f"{task} starts from {origin.task}, which is not trained yet",
            where=file,
            next_step=f"train {origin.task} first, or `pbvs run {task} ...`, which does so",
        )

    def outputs(self) -> list[Path]:
        """The files that a finished training leaves."""
        return [self.folder / checkpoint.BEST, self.folder / checkpoint.LAST]


def validation_size_px(training: NodeTraining) -> tuple[int, int]:
    """The size that a node is validated at: the task's, as far as the prepared data has it.

    A node that learns something else than the task's target is validated at its own size.
    """
    if not training.validates_at_task_size:
        return training.size_px
    about = PreparedData.open(training.validation or training.prepared).about
    stored = about["size_px"]
    if training.spec.family == "eo_sar" or stored is None:  # kept as they are
        return training.spec.size_px
    return min(training.spec.size_px, (int(stored[0]), int(stored[1])))


def working_size_px(spec: TaskSpec, node: Node) -> tuple[int, int]:
    """The size of a trained node's image in training: its own, else what its task writes."""
    return node.config.size_px or spec.size_px


def grid_size_px(graph: TaskGraph) -> tuple[int, int]:
    """The size to prepare a task's captures at: what its networks work at, or what it writes without any."""
    sizes = [working_size_px(graph.spec, node) for node in graph.trained]
    return max(sizes, default=graph.spec.size_px)


def prepare_rules(
    specs: Sequence[TaskSpec],
    *,
    uint16: Uint16Rule | None = None,
    min_overlap: float | None = None,
    register: bool | None = None,
) -> PrepareRules:
    """The rules to prepare one folder by for several tasks; what is given takes precedence over the tasks.

    Of the tasks, the smallest `min_overlap` keeps the captures of each; SAR is registered if any wants it.

    Raises:
        UsageError: the tasks have different rules for 16-bit images.
    """
    wanted = {(uint16 or spec.data.uint16, spec.data.uint16_percent) for spec in specs}
    if len({rule if rule == "full" else (rule, percent) for rule, percent in wanted}) > 1:
        rules = "; ".join(f"{s.task}: {s.data.uint16}, {s.data.uint16_percent}" for s in specs)
        raise UsageError(
            f"the tasks have different 16-bit rules ({rules})", next_step="prepare a folder for each"
        )
    rule, percent = min(wanted)
    least = min(spec.data.min_overlap for spec in specs) if min_overlap is None else min_overlap
    registered = any(spec.data.register_sar for spec in specs) if register is None else register
    return PrepareRules(rule, percent, least, registered)


def check_metric_weights(names: set[str], kind: WeightsKind) -> None:
    """Fails before any work when official weights are missing.

    Raises:
        WeightsError: a file is missing or wrong; says what to do.
    """
    bad = [row for row in status(sorted(names)) if row.state != "ok"] if kind == "official" and names else []
    if bad:
        used_for = {row.name: METRIC_WEIGHT_FILES[row.name].used_for for row in bad}
        raise WeightsError(
            "official weights are missing: "
            + ", ".join(f"{row.file.name} ({used_for[row.name]}; {row.state})" for row in bad),
            where=bad[0].file.parent,
            next_step=f"`pbvs weights fetch {' '.join(row.name for row in bad)}`; without network, "
            "`pbvs weights pack` on a machine that has them and `pbvs weights unpack` here; or "
            "`--weights standin`, whose numbers are not comparable",
        )
