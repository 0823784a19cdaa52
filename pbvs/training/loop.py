"""The training loop: set up, resume, step, report, validate, save.

It knows phases and named stages, not systems or losses (see `pbvs.training.system`). The order of the data
and everything random depend only on the seed, the process and the number of images seen, so a run that was
stopped resumes with the same batches and ends with the same weights as one that was not.

With several processes the first one alone validates, writes checkpoints and logs; the others wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pbvs.core.errors import CheckpointError
from pbvs.dataset.batches import Batch, Batches, BatchSampler
from pbvs.training import checkpoint, faults
from pbvs.training.curves import Curves
from pbvs.training.ema import EMA
from pbvs.training.interrupt import Interrupted, StopRequest, stop_request
from pbvs.training.memory_format import apply_memory_format, in_plain_format
from pbvs.training.meter import Meter
from pbvs.training.run_record import RunRecord
from pbvs.training.schedule import TrainingConfig
from pbvs.training.step import scalers_for, train_step
from pbvs.training.system import SchedulePoint, System, Translation, unwrap

_CHECKPOINT_SECONDS = 300.0
_LOG_EVERY_STEPS = 20
# What the trainer itself must take over a restart, by the names of `STATE_PARTS`.
_NUMBERS = ("images_seen", "validated_at", "best_score", "validations_since_best", "validation_px")

Report = Callable[[int, int, Mapping[str, float]], None]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Validation:
    """The result of a validation: values by the names of their curves, and a grid of pictures, `H,W,3`."""

    values: dict[str, float]
    grid: NDArray[np.uint8]


class Validates(Protocol):
    """What the loop asks of a validator; `pbvs.pipeline.validation.Validator` is one."""

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Height and width at which it scores: scores of other sizes do not compare."""

    def score(self, translation: Translation, images_seen: int) -> Validation:
        """Values, `score` (lower is better) among them, and pictures."""


@dataclass
class Job:
    """Everything a run is made of.

    `record` goes into every weights file; `images_per_epoch` is the number of pairs of `dataset`, which
    takes any number from 0 to the last image of the last epoch.
    """

    folder: Path
    record: RunRecord
    system: System
    config: TrainingConfig
    dataset: Dataset
    images_per_epoch: int
    validator: Validates | None
    data_workers: int = 0

    @property
    def total_images(self) -> int:
        """Images of the whole schedule, in whole batches."""
        return self.images_per_epoch * self.config.epochs // self.config.batch_size * self.config.batch_size


@dataclass
class Outcome:
    """How a run ended: images seen in all and now, best score (none: nothing was held out), seconds.

    `ended_early`: it ran out of patience before the end of its schedule.
    """

    images_seen: int
    images_now: int
    best_score: float | None
    seconds: float
    waiting_share: float
    ended_early: bool = False


class Trainer:
    """One run of one job on one Fabric.

    Args:
        job: what to train.
        fabric: of `pbvs.core.device.make_fabric`.
        report: called now and then with images done, images in all, and some numbers; first process only.
        warn: called with a line about what slows the run.

    Raises:
        UsageError, TrainingError: the batches do not fit; see `pbvs.training.faults.check_batches`.
        CheckpointError: the state in the folder is corrupt or of other networks.
    """

    def __init__(self, job: Job, fabric: Fabric, report: Report, warn: Warn | None = None):
        self.job, self.fabric, self.config = job, fabric, job.config
        self.report, self.warn = report, warn
        faults.check_batches(job.config, job.images_per_epoch, fabric.world_size)
        apply_memory_format(job.system, job.config, fabric.device)
        job.system.setup(fabric)
        self.networks = {name: unwrap(network) for name, network in job.system.networks.items()}
        self.scalers = scalers_for(job.system, fabric)
        followed = {name: self.networks[name] for name in job.system.translators if job.config.ema}
        self.averages = EMA(followed, job.config.ema or 0.0)
        self.meter = Meter()
        self.images_seen, self.validated_at, self.validations_since_best = 0, 0, 0
        self.best_score: float | None = None
        self.validation_px = job.validator.size_px if job.validator else None
        self._resume()
        if fabric.broadcast(self.images_seen) != self.images_seen:
            raise CheckpointError(
                "the processes find different checkpoints",
                where=job.folder,
                next_step="put the run folder where all machines see it",
            )
        starts = range(self.images_seen, job.total_images, job.config.batch_size)
        positions = BatchSampler(
            starts, job.config.batch_size, job.config.accumulate, fabric.global_rank, fabric.world_size
        )
        self.batches = Batches(job.dataset, positions, fabric.device, job.data_workers)

    def run(self) -> Outcome:
        """Trains to the end of the schedule, or until patience ends.

        Raises:
            TrainingError: a loss is not finite, or memory ran out; the last good checkpoint stays.
            CheckpointError: a checkpoint could not be written; the one before it stays.
            Interrupted: a signal asked to stop; a checkpoint was written.
        """
        job, images_before = self.job, self.images_seen
        with faults.translate_errors(job.config, job.record, self.fabric, job.folder), stop_request() as stop:
            with self._curves() as curves:
                self._train(stop, curves)
            if self.best_score is None:  # nothing was held out: the last weights are all there is
                self._save_weights(checkpoint.BEST)
            self.fabric.barrier()
        return Outcome(
            images_seen=self.images_seen,
            images_now=self.images_seen - images_before,
            best_score=self.best_score,
            seconds=self.meter.seconds,
            waiting_share=self.meter.waiting_share(self.batches.waiting_seconds),
            ended_early=self.images_seen < job.total_images,
        )

    def _train(self, stop: StopRequest, curves: Curves | None) -> None:
        """Steps until the end; makes up first for the validation that a killed run missed."""
        self._validate_if_due(curves)
        saved = time.monotonic()
        for batch in () if self._out_of_patience() else self.batches:
            self._step(batch)
            self._log(curves)
            signal_number = stop.agreed()
            late = time.monotonic() - saved > _CHECKPOINT_SECONDS
            if late or signal_number or self._crossed(self.config.checkpoint_every_images):
                self._save()
                saved = time.monotonic()
            if signal_number:
                self.fabric.barrier()  # a launcher ends all processes when one ends
                raise Interrupted(signal_number, f"a checkpoint was written at {self.images_seen} images")
            self._validate_if_due(curves)
            if self._out_of_patience():
                break
        self._save()

    def _curves(self) -> AbstractContextManager[Curves | None]:
        if not self.fabric.is_global_zero:
            return nullcontext()
        return Curves(self.job.folder, {"validation": self.validated_at}, self.images_seen)

    def _step(self, batch: Batch) -> None:
        began, config, per_epoch = time.monotonic(), self.config, self.job.images_per_epoch
        rng = np.random.SeedSequence([config.seed, self.fabric.global_rank, self.images_seen])
        torch.manual_seed(int(rng.generate_state(1, np.uint64)[0]))
        previous = max(0, self.images_seen - config.batch_size)
        stage, _ = config.stage_at(self.images_seen, per_epoch)
        point = SchedulePoint(stage.name, self.images_seen // per_epoch, previous // per_epoch)
        self.job.system.begin_step(point)
        losses = train_step(
            self.job.system,
            batch,
            self.fabric,
            self._learning_rates(),
            point=point,
            accumulate=config.accumulate,
            clip_norm=config.clip_norm,
            scalers=self.scalers,
        )
        self.images_seen += config.batch_size
        self.averages.update(self.images_seen, config.batch_size)
        self.meter.add(losses, config.batch_size, time.monotonic() - began)

    def _learning_rates(self) -> dict[str, float]:
        phases = list(self.job.system.optimizers)
        return self.config.learning_rates(self.images_seen, self.job.images_per_epoch, phases)

    def _log(self, curves: Curves | None) -> None:
        if self.meter.steps < _LOG_EVERY_STEPS and self.images_seen < self.job.total_images:
            return
        means, waiting = self.meter.means(), self.batches.waiting_seconds
        times = self.meter.times(waiting)
        if curves is not None:
            rates = self._learning_rates()
            named = {"learning_rate": next(iter(rates.values()))}
            if any(isinstance(stage.learning_rate, dict) for stage in self.config.stages):
                named = {f"learning_rate_{phase}": rate for phase, rate in rates.items()}
            curves.add("training", self.images_seen, {**named, **means})
            curves.add("times", self.images_seen, times)
            left = self.meter.seconds_left(self.job.total_images - self.images_seen)
            speed = {"images/s": times["images_per_second"], "minutes left": left / 60}
            self.report(self.images_seen, self.job.total_images, {**speed, **means})
        warning = self.meter.warning(waiting)
        if warning and self.warn is not None:
            self.warn(warning)

    def _crossed(self, every_images: int) -> bool:
        """Whether the last step passed a multiple of `every_images`."""
        before = self.images_seen - self.config.batch_size
        return self.images_seen // every_images > before // every_images

    def _out_of_patience(self) -> bool:
        return self.config.patience is not None and self.validations_since_best >= self.config.patience

    def _validate_if_due(self, curves: Curves | None) -> None:
        due = self._crossed(self.config.validation_images(self.job.images_per_epoch))
        due = due or self.images_seen >= self.job.total_images
        if self.job.validator is None or not due or self.validated_at >= self.images_seen:
            return
        self._save()  # a scheduler may kill a run that does not end in time, and a validation can be long
        score = float("nan")
        if curves is not None:
            result = self.job.validator.score(self._translation(), self.images_seen)
            score = result.values["score"]
            curves.add("validation", self.images_seen, result.values)
            curves.add_picture(self.images_seen, result.grid)
        score = self.fabric.broadcast(score)
        self.validated_at = self.images_seen
        self.validations_since_best += 1
        if self.best_score is None or score < self.best_score:
            self.best_score, self.validations_since_best = score, 0
            self._save_weights(checkpoint.BEST)
        self._save()

    def _translation(self) -> Translation:
        """The networks as inference will run them: averages where there are any, without any switch."""
        names = self.job.system.translators
        networks = {name: self.averages.networks.get(name, self.networks[name]) for name in names}
        if self.config.channels_last or self.config.compile:
            networks = {name: in_plain_format(network) for name, network in networks.items()}
        return Translation(type(self.job.system), networks)

    def _save_weights(self, name: str) -> None:
        if not self.fabric.is_global_zero:
            return
        averages = {k + checkpoint.AVERAGE: v for k, v in self.averages.networks.items()}
        record = self.job.record.at(self.images_seen, self.best_score)
        checkpoint.save_weights(self.job.folder / name, self.networks | averages, record)

    def _save(self) -> None:
        """Writes the training state, and the weights as they are: an interrupted run can translate too."""
        if not self.fabric.is_global_zero:
            return
        faults.check_finite(self.networks.values(), self.job.folder)
        state = {
            "networks": {k: v.state_dict() for k, v in self.networks.items()},
            "averages": self.averages.state(),
            "optimizers": {k: v.state_dict() for k, v in self.job.system.optimizers.items()},
            "scalers": {k: v.state_dict() for k, v in self.scalers.items()},
            "model": self.job.system.state(),
            **self.meter.state(),
            **{part: getattr(self, part) for part in _NUMBERS},
        }
        checkpoint.save_state(self.job.folder / checkpoint.STATE, state)
        self._save_weights(checkpoint.LAST)

    def _resume(self) -> None:
        path = self.job.folder / checkpoint.STATE
        if not path.is_file():
            return
        state = checkpoint.load_state(path)
        faults.check_networks(self.networks, state["networks"], path)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.job.system.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scaler in self.scalers.items():
            if state["scalers"][name]:  # empty where the run was begun in another precision
                scaler.load_state_dict(state["scalers"][name])
        self.averages.load_state(state["averages"])
        self.job.system.load_state(state["model"])
        self.meter.load_state(state, self.fabric.device)
        validation_px = self.validation_px
        for part in _NUMBERS:
            setattr(self, part, state[part])
        before = state["validation_px"] or self.job.record.size_px  # 0.1.0 scored at the working size
        if validation_px is not None and tuple(before) != tuple(validation_px):
            self.best_score, self.validations_since_best = None, 0
        self.validation_px = validation_px
