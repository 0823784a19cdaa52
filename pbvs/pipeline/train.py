"""Trains the trained nodes of a task: data, system and run folder put together for the loop."""

from __future__ import annotations

import itertools
import platform
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from torch import Tensor

import pbvs
from pbvs.core.errors import CheckpointError
from pbvs.core.files import fingerprint, write_json
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pair_dataset import Derive, PairDataset
from pbvs.dataset.pairs import PairTable
from pbvs.perceptual.metric_weight_files import disclaimer
from pbvs.pipeline.node_training import NodeTraining, validation_size_px
from pbvs.pipeline.pair_table import heldout_pairs, pair_table
from pbvs.pipeline.steps import differences
from pbvs.pipeline.validation import Validator
from pbvs.score.scorer import Scorer
from pbvs.training.faults import check_batches
from pbvs.training.loop import Job, Outcome, Report, Trainer, Warn
from pbvs.training.run_record import OLD_CODE, RECORD, RunRecord
from pbvs.training.system import System, SystemContext

INIT_WEIGHTS = "init_weights.json"

Mode = Literal["auto", "resume", "fresh"]


@dataclass(frozen=True)
class NodeOutcome:
    """How training a node ended; `summary` is one line for people."""

    outcome: Outcome
    summary: str


def train_node(
    training: NodeTraining,
    fabric: Fabric,
    report: Report,
    *,
    mode: Mode = "auto",
    data_workers: int = 0,
    warn: Warn | None = None,
) -> NodeOutcome:
    """Trains one node to the end of its schedule, or resumes a run that was stopped.

    Args:
        mode: `auto` resumes if the run in the folder has the same provenance, and otherwise starts over,
            with the old run moved aside; `resume` resumes with changed settings too, as long as the networks
            fit; `fresh` always starts over.
        warn: called with a line about what slows the run, or about a run that is moved aside.

    Raises:
        CheckpointError, DataError, TrainingError, WeightsError: see the parts.
    """
    config, prepared = training.node.config, PreparedData.open(training.prepared)
    pairs = pair_table(training.spec, prepared)
    sampler = pairs.train(draws_per_location=training.spec.data.draws_per_location, seed=config.training.seed)
    # Found out before an earlier run is moved aside for this one.
    check_batches(config.training, len(sampler), fabric.world_size)
    if fabric.is_global_zero:
        _begin(training, prepared, mode, warn or (lambda line: None))
    fabric.barrier()
    derived = training.derived.make(pairs, report, fabric)
    dataset = PairDataset(
        sampler,
        size_px=training.size_px,
        crop_px=config.training.crop_px,
        flips=config.training.flips,
        seed=config.training.seed,
        views=training.views,
        paired=config.paired,
        derived=derived,
    )
    bands = training.graph.view_bands(training.node)
    context = SystemContext(bands, config.training.seed, training.metric_weights)
    system = training.system.load()(config, context)
    started_from = _init_weights(training, system, fabric.is_global_zero)
    job = Job(
        training.folder,
        RunRecord.read(training.folder),
        system,
        config.training,
        dataset,
        len(sampler),
        _validator(training, pairs, derived, fabric, warn),
        data_workers,
    )
    outcome = Trainer(job, fabric, report, warn).run()
    score = "no held-out location" if outcome.best_score is None else f"best score {outcome.best_score:.4f}"
    said = disclaimer(training.metric_weights)
    summary = f"{_took(outcome)}; {score}{f' ({said})' if said else ''}; {started_from}; {training.folder}"
    return NodeOutcome(outcome, summary)


def _took(outcome: Outcome) -> str:
    more = "a larger training.patience" if outcome.ended_early else "more epochs in training.stages"
    if not outcome.images_now:
        return f"finished before, at {outcome.images_seen} images (to go on: {more}, and --resume)"
    took = f"{outcome.images_seen} images in {outcome.seconds:.0f} s"
    took += f", {outcome.waiting_share:.0%} of it waiting for data"
    return f"{took}, ended by its patience (to go on: {more}, and --resume)" if outcome.ended_early else took


def _begin(training: NodeTraining, prepared: PreparedData, mode: Mode, warn: Warn) -> None:
    """Leaves a run folder to resume in, or a new one with its record written."""
    folder, provenance = training.folder, training.provenance()
    if (folder / RECORD).is_file():
        before = RunRecord.read(folder)
        changes = differences(comparable_provenance(before, training, provenance), provenance)
        if mode != "fresh" and (not changes or mode == "resume"):
            if OLD_CODE in before.provenance:
                warn(f"{training.name}: resumes a run begun by pbvs 0.1.0; its code hash is accepted once")
            replace(_record(training, prepared, provenance), versions=before.versions).write(folder)
            return
        why = "; ".join(changes) if changes else "--fresh"
        warn(f"{training.name}: the run in {folder} is out of date ({why}); it is moved aside for a new one")
    elif mode == "resume":
        raise CheckpointError("there is no run to resume", where=folder, next_step="leave out --resume")
    if folder.exists() and any(folder.iterdir()):
        # Kept beside the new run as `<node>.previous-1`, `-2` ...; nothing is deleted.
        names = (folder.with_name(f"{folder.name}.previous-{n}") for n in itertools.count(1))
        folder.rename(next(name for name in names if not name.exists()))
    folder.mkdir(parents=True, exist_ok=True)
    _record(training, prepared, provenance).write(folder)


def comparable_provenance(
    before: RunRecord, training: NodeTraining, provenance: dict[str, str]
) -> dict[str, str]:
    """The provenance of a record, as it compares with today's.

    What 0.1.0 wrote has a hash of source text, which is accepted once, and its settings under other keys.
    """
    old = before.provenance
    if OLD_CODE not in old:
        return old
    config = training.system.config.model_validate(before.config).of_training()
    today = training.settings()
    settings = {**before.settings, "nodes": None, "output": None, "inputs": today["inputs"], "node": config}
    return {
        "task settings": fingerprint(settings),
        "training data": old["training data"],
        "validation data": provenance["validation data"],
        "init weights": old["init weights"],
        "metric weights": old["metric weights"],
        "precision": old["precision"],
        "system": f"{before.system} version {before.version}",
        "training": "version 1",
    }


def _record(training: NodeTraining, prepared: PreparedData, provenance: dict[str, str]) -> RunRecord:
    return RunRecord(
        system=training.node.use,
        version=training.system.version,
        task=training.spec.task,
        node=training.node.name,
        size_px=training.size_px,
        bands=training.graph.view_bands(training.node),
        config=training.node.config.of_training(),
        settings=training.spec.resolved(),
        provenance=provenance,
        data=training.prepared.name,
        **prepared.sixteen_bits(training.spec.family),
        metric_weights=training.metric_weights,
        disclaimer=disclaimer(training.metric_weights),
        versions={
            "pbvs": pbvs.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _init_weights(training: NodeTraining, system: System, is_first: bool) -> str:
    """Loads trained weights into the fresh system, where the task file names some; a line for people.

    What became of each tensor is written to `init_weights.json`.
    """
    origin = training.node.config.init_from
    if origin is None:
        translating = [system.networks[name] for name in system.translators]
        n_weights = sum(p.numel() for net in translating for p in net.parameters() if p.requires_grad)
        return f"from fresh weights ({n_weights / 1e6:.1f} M parameters that translate)"
    bands: dict[str, int] | None = None
    states: dict[str, Any]
    if origin.task is not None:
        name = f"{origin.task}.{origin.node}" if origin.node else origin.task
        record, states = training.runs.load(origin.task, origin.node or training.node.name)
        if record.system != training.node.use:
            raise CheckpointError(
                f"{training.name} is a {training.node.use}; the weights of {name} are a {record.system}'s",
                where=training.init_file(),
                next_step="name a node of the same system in init_from",
            )
        bands = record.bands
    else:
        assert origin.official is not None
        name, states = origin.official.name, system.read_official(origin.official)
    report: dict[str, dict[str, Tensor]] = system.load_pretrained(states, origin.bands, bands)
    if is_first:
        write_json(training.folder / INIT_WEIGHTS, {"from": name, **report})
    return f"from {name}: {'; '.join(str(part['summary']) for part in report.values())}"


def _validator(
    training: NodeTraining,
    pairs: PairTable,
    derived: dict[str, Derive],
    fabric: Fabric,
    warn: Warn | None,
) -> Validator | None:
    """The validator, or None when too little is held out or wanted; at least two images make an FID."""
    spec, locations = training.spec, pairs.locations("heldout")
    n_images = min(spec.data.validate_images, len(locations))
    if n_images < 2:
        return None  # `best` is then the last, and the outcome says so
    views = training.views
    size_px = validation_size_px(training)
    if training.validation is not None:
        sampler = heldout_pairs(spec, PreparedData.open(training.validation), locations)
        n_images = min(n_images, len(sampler))
    else:
        sampler = pairs.heldout()
    if training.validates_at_task_size and size_px != spec.size_px and warn is not None:
        warn(
            f"{training.name}: validated at {size_px[0]} x {size_px[1]} px, the prepared size; the task's is "
            f"{spec.size_px[0]} x {spec.size_px[1]}: --validation-data names a folder prepared at that size"
        )
    dataset = PairDataset(
        sampler,
        size_px=size_px,
        flips=False,
        views={name: view.model_copy(update={"degraded": False}) for name, view in views.items()},
        derived=derived,
        source_size_px=training.size_px,
    )
    scorer = Scorer(training.metric_weights, device=fabric.device)
    return Validator(dataset, n_images, scorer, training.folder / "samples", size_px)
