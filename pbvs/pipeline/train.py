"""Trains the trainable nodes of a task: data, model and run folder put together for the loop."""

from __future__ import annotations

import itertools
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric

import pbvs
from pbvs.archives.layouts import BANDS
from pbvs.core.errors import CheckpointError, UsageError, WeightsError
from pbvs.core.files import fingerprint, sha256_of_file, write_json
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pair_dataset import PairDataset
from pbvs.dataset.pairs import PairTable, RandomPairs
from pbvs.graph.graph import TaskGraph
from pbvs.graph.spec import Node, TaskSpec
from pbvs.graph.trained import Pix2PixHDParams
from pbvs.perceptual.metric_weights import METRIC_WEIGHT_FILES, WeightsKind, disclaimer, status
from pbvs.pipeline.init_weights import load_pretrained
from pbvs.pipeline.pair_table import pair_table
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.steps import code_version, differences
from pbvs.pipeline.validation import Validator
from pbvs.prepare.plan import PrepareRules
from pbvs.prepare.stretch import Uint16Rule
from pbvs.score.scorer import Scorer
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training import checkpoint
from pbvs.training.faults import check_batches
from pbvs.training.loop import Job, Outcome, Report, Trainer, Warn

RECORD, FIRST_WEIGHTS = "run.json", "first_weights.json"
_CODE = ("pixels.py", "models", "losses", "training", "data/pairs.py", "data/dataset.py", "data/index.py")

Mode = Literal["auto", "resume", "fresh"]


@dataclass(frozen=True)
class NodeTraining:
    """One node to train, and everything that decides its weights; `precision` is Fabric's word."""

    spec: TaskSpec
    node: Node
    prepared: Path
    runs: Runs
    metric_weights: WeightsKind
    precision: str = "32-true"

    @property
    def params(self) -> Pix2PixHDParams:
        """The node's settings."""
        assert isinstance(self.node.params, Pix2PixHDParams)
        return self.node.params

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.runs.node_folder(self.spec.task, self.node.name)

    @property
    def size_px(self) -> tuple[int, int]:
        """The size the network works at."""
        return working_size_px(self.spec, self.node)

    @property
    def metric_weights_needed(self) -> set[str]:
        """The judges' files that the training asks for, by its losses and to validate."""
        losses, validates = self.params.losses, self.spec.data.validate_images > 1
        names = {"vgg19"} if losses.vgg else set()
        names |= {"vgg16"} if losses.lpips or validates else set()
        return names | ({"inception"} if validates else set())

    @property
    def bands(self) -> tuple[int, int]:
        """Bands of source and target."""
        return BANDS[self.spec.source], BANDS[self.spec.target]

    def first_weights_file(self) -> Path | None:
        """The weights file that training starts from; None for fresh weights."""
        first = self.params.init_weights
        if first is None:
            return None
        if first.task is None:
            return first.official
        return self.runs.weights_file(first.task, first.node or self.node.name)

    def provenance(self) -> dict[str, str]:
        """Everything that decides the weights, by fingerprint."""
        first = self.first_weights_file()
        if first is not None and not first.is_file():
            raise self._no_first_weights(first)
        node = self.params.of_training
        settings = {**self.spec.resolved(), "nodes": None, "output": None, "node": node}
        return {
            "task settings": fingerprint(settings),
            "training data": PreparedData.open(self.prepared).fingerprint,
            "first weights": sha256_of_file(first) if first else "fresh",
            "judges' weights": self.metric_weights,
            "precision": self.precision,
            "code": code_version(*_CODE),
        }

    def _no_first_weights(self, file: Path) -> CheckpointError:
        assert self.params.init_weights is not None
        other, task = self.params.init_weights.task, self.spec.task
        if other is None:
            return CheckpointError(f"{task} starts from a file that is not there", where=file)
        return CheckpointError(
            f"{task} starts from {other}, which is not trained yet",
            where=file,
            next_step=f"train {other} first, or `pbvs run {task} ...`, which does so",
        )

    def outputs(self) -> list[Path]:
        """The files that a finished training leaves."""
        return [self.folder / checkpoint.BEST, self.folder / checkpoint.LAST]


@dataclass(frozen=True)
class NodeOutcome:
    """How training a node ended, for people: `told` is one line."""

    outcome: Outcome
    told: str


def train_node(
    training: NodeTraining,
    fabric: Fabric,
    report: Report,
    *,
    mode: Mode = "auto",
    data_workers: int = 0,
    warn: Warn | None = None,
) -> NodeOutcome:
    """Trains one node to the end of its schedule, or goes on with a run that was stopped.

    Args:
        mode: `auto` goes on if the run in the folder is made of the same things, and otherwise starts
            over, the old run being moved aside; `resume` goes on with changed settings too, as long as the
            networks fit; `fresh` starts over always.
        warn: told in a line what slows the run.

    Raises:
        CheckpointError, DataError, TrainingError, WeightsError: see the parts.
    """
    pairs = pair_table(training.spec, PreparedData.open(training.prepared))
    draws = pairs.train(
        draws_per_location=training.spec.data.draws_per_location, seed=training.params.training.seed
    )
    # Known before an earlier run is moved aside for this one.
    check_batches(training.params.training, len(draws), fabric.world_size)
    if fabric.is_global_zero:
        _begin(training, mode)
    fabric.barrier()
    job, started_from = _job(training, pairs, draws, fabric, data_workers)
    outcome = Trainer(job, fabric, report, warn).run()
    score = "no held-out location" if outcome.best_score is None else f"best score {outcome.best_score:.4f}"
    mark = f" ({disclaimer(training.metric_weights)})" if disclaimer(training.metric_weights) else ""
    told = f"{_took(outcome)}; {score}{mark}; {started_from}; {training.folder}"
    return NodeOutcome(outcome, told)


def _took(outcome: Outcome) -> str:
    more = "a larger training.patience" if outcome.ended_early else "more epochs in training.stages"
    if not outcome.images_now:
        return f"finished before, at {outcome.images_seen} images (to go on: {more}, and --resume)"
    took = f"{outcome.images_seen} images in {outcome.seconds:.0f} s"
    took += f", {outcome.waiting_share:.0%} of it waiting for data"
    return f"{took}, ended by its patience (to go on: {more}, and --resume)" if outcome.ended_early else took


def _begin(training: NodeTraining, mode: Mode) -> None:
    """Leaves a run folder to go on in, or a new one with its record written."""
    folder, record = training.folder, training.folder / RECORD
    provenance = training.provenance()
    if record.is_file():
        same = not differences(_made_of_run(training), provenance)
        if mode != "fresh" and (same or mode == "resume"):
            if not same:
                write_json(record, _record(training, provenance))
            return
    elif mode == "resume":
        raise CheckpointError("there is no run to resume", where=folder, next_step="leave out --resume")
    if folder.exists() and any(folder.iterdir()):
        _move_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, _record(training, provenance))


def _made_of_run(training: NodeTraining) -> dict[str, str]:
    """What the run in the folder is made of, as it was recorded when it began."""
    record = json.loads((training.folder / RECORD).read_text(encoding="utf-8"))
    provenance: dict[str, str] = record["made_of"]
    return provenance


def _move_aside(folder: Path) -> None:
    """Keeps a run beside the new one, as `<node>.previous-1`, `-2` ...; nothing is deleted."""
    names = (folder.with_name(f"{folder.name}.previous-{n}") for n in itertools.count(1))
    folder.rename(next(name for name in names if not name.exists()))


def _record(training: NodeTraining, provenance: dict[str, str]) -> dict[str, Any]:
    return {
        "schema": 1,
        "made_of": provenance,
        "task": training.spec.resolved(),
        "node": training.node.name,
        "size_px": list(training.size_px),
        "bands": list(training.bands),
        "prepared": training.prepared.name,
        **PreparedData.open(training.prepared).sixteen_bits(training.spec.family),
        "weights": training.metric_weights,
        "marked": disclaimer(training.metric_weights),
        "versions": {
            "pbvs": pbvs.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _job(
    training: NodeTraining, pairs: PairTable, draws: RandomPairs, fabric: Fabric, data_workers: int
) -> tuple[Job, str]:
    params = training.params
    dataset = PairDataset(
        draws,
        size_px=training.size_px,
        crop_px=params.training.crop_px,
        flips=params.training.flips,
        seed=params.training.seed,
    )
    model = Pix2PixHD(
        params.generator,
        params.discriminator,
        training.bands,
        params.losses,
        params.training.betas,
        params.training.seed,
        training.metric_weights,
        pool_size=params.training.pool_size,
        fix_global_epochs=params.training.fix_global_epochs,
    )
    record = training.folder / FIRST_WEIGHTS if fabric.is_global_zero else None
    started_from = load_pretrained(
        model, params.init_weights, training.runs, training.node.name, training.bands, record
    )
    header = {
        "task": training.spec.task,
        "node": training.node.name,
        "size_px": list(training.size_px),
        "bands": list(training.bands),
        "params": params.of_training,
        "made_of": _made_of_run(training),
        # For inputs to translate.
        **PreparedData.open(training.prepared).sixteen_bits(training.spec.family),
        "weights": training.metric_weights,
        "marked": disclaimer(training.metric_weights),
    }
    job = Job(
        training.folder,
        header,
        model,
        params.training,
        dataset,
        len(draws),
        _validator(training, pairs, fabric),
        data_workers,
    )
    return job, started_from


def _validator(training: NodeTraining, pairs: PairTable, fabric: Fabric) -> Validator | None:
    """The validator, or None when too little is held out or wanted; at least two images make an FID."""
    n_images = min(training.spec.data.validate_images, len(pairs.locations("heldout")))
    if n_images < 2:
        return None  # `best` is then the last, and the outcome says so
    dataset = PairDataset(pairs.heldout(), size_px=training.size_px, crop_px=None, flips=False, seed=0)
    judge = Scorer(training.metric_weights, device=fabric.device)
    return Validator(dataset, n_images, judge, training.folder / "samples")


def working_size_px(spec: TaskSpec, node: Node) -> tuple[int, int]:
    """The size that a trained node works at: its own, else what its task writes."""
    assert isinstance(node.params, Pix2PixHDParams)
    return node.params.size_px or spec.size_px


def grid_size_px(graph: TaskGraph) -> tuple[int, int]:
    """The size to prepare a task's captures at: what its networks work at, or what it writes without any."""
    sizes = [working_size_px(graph.spec, node) for node in graph.trainable]
    return max(sizes, default=graph.spec.size_px)


def prepare_rules(
    specs: Sequence[TaskSpec],
    *,
    uint16: Uint16Rule | None = None,
    min_overlap: float | None = None,
    register: bool | None = None,
) -> PrepareRules:
    """The rules to prepare one folder by for several tasks; what is given stands over what the tasks say.

    Of the tasks, the smallest `min_overlap` keeps the captures of each; SAR is registered if any wants it.

    Raises:
        UsageError: the tasks want 16-bit images made 8-bit by different rules.
    """
    wanted = {(uint16 or spec.data.uint16, spec.data.uint16_percent) for spec in specs}
    if len({rule if rule == "full" else (rule, percent) for rule, percent in wanted}) > 1:
        told = "; ".join(f"{s.task}: {s.data.uint16}, {s.data.uint16_percent}" for s in specs)
        raise UsageError(
            f"the tasks have different 16-bit rules ({told})", next_step="prepare a folder for each"
        )
    rule, percent = min(wanted)
    least = min(spec.data.min_overlap for spec in specs) if min_overlap is None else min_overlap
    registered = any(spec.data.register_sar for spec in specs) if register is None else register
    return PrepareRules(rule, percent, least, registered)


def check_metric_weights(names: set[str], kind: WeightsKind) -> None:
    """Fails before any work when official weights are not there.

    Raises:
        WeightsError: a file is missing or wrong; says what to do.
    """
    bad = [row for row in status(sorted(names)) if row.state != "ok"] if kind == "official" and names else []
    if bad:
        raise WeightsError(
            "official weights are not there: "
            + ", ".join(
                f"{row.file.name} ({METRIC_WEIGHT_FILES[row.name].used_for}; {row.state})" for row in bad
            ),
            where=bad[0].file.parent,
            next_step=f"`pbvs weights fetch {' '.join(row.name for row in bad)}`; without network, "
            "`pbvs weights pack` on a machine that has them and `pbvs weights unpack` here; or "
            "`--weights standin`, whose numbers are not comparable",
        )
