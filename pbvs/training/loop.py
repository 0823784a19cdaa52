"""The training loop: set up, resume, step, report, validate, save.

It knows phases, not losses (see `pbvs.training.system`). The order of the data and everything drawn at
random depend only on the seed, the process and the number of images seen, so a run that was stopped goes
on with the same batches and ends with the same weights as one that was not.

With several processes the first one alone validates, writes checkpoints and logs; the others wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import Dataset

from pbvs.core.errors import CheckpointError
from pbvs.dataset.batches import Batches, BatchSampler
from pbvs.pipeline.validation import Validation
from pbvs.training import checkpoint, faults
from pbvs.training.curves import Curves
from pbvs.training.ema import EMA
from pbvs.training.interrupt import Interrupted, StopRequest, stop_request
from pbvs.training.memory_format import apply_memory_format, as_plain
from pbvs.training.meter import Meter
from pbvs.training.schedule import TrainingConfig
from pbvs.training.step import scalers_for, train_step
from pbvs.training.system import Batch, TrainedModel, unwrap

_CHECKPOINT_SECONDS = 300.0
_LOG_EVERY_STEPS = 20
# What the trainer itself must take over a restart, by the names of `STATE_PARTS`.
_NUMBERS = ("images_seen", "validated_at", "best_score", "validations_since_best")

Report = Callable[[int, int, Mapping[str, float]], None]
Warn = Callable[[str], None]


class Validates(Protocol):
    """What the loop asks of a validator; `pbvs.pipeline.validation.Validator` is one."""

    def score(self, network: nn.Module, images_seen: int) -> Validation:
        """Values by the names of their curves, `score` (lower is better) among them, and pictures."""


@dataclass
class Job:
    """Everything a run is made of.

    `header` goes into every weights file; `images_per_epoch` is the number of draws of `dataset`, which
    takes any number from 0 to the last image of the last epoch.
    """

    folder: Path
    header: dict[str, Any]
    model: TrainedModel
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
        fabric: of `pbvs.core.fabric.make_fabric`.
        report: told now and then how many images are done, of how many, and some numbers; first process only.
        warn: told in a line what slows the run; None: nobody.

    Raises:
        UsageError, TrainingError: the batches do not fit; see `pbvs.training.faults.check_batches`.
        CheckpointError: the state in the folder is torn or of other networks.
    """

    def __init__(self, job: Job, fabric: Fabric, report: Report, warn: Warn | None = None):
        self.job, self.fabric, self.config = job, fabric, job.config
        self.report, self.warn = report, warn
        faults.check_batches(job.config, job.images_per_epoch, fabric.world_size)
        apply_memory_format(job.model, job.config, fabric.device)
        job.model.setup(fabric)
        self.networks = {name: unwrap(network) for name, network in job.model.networks.items()}
        self.scalers = scalers_for(job.model, fabric)
        followed = {name: self.networks[name] for name in job.model.ensemble_mean if job.config.ema}
        self.averages = EMA(followed, job.config.ema or 0.0)
        self.meter = Meter()
        self.images_seen, self.validated_at, self.validations_since_best = 0, 0, 0
        self.best_score: float | None = None
        self._resume()
        self._check_same()
        self.batches = Batches(job.dataset, self._positions(), fabric.device, job.data_workers)

    def run(self) -> Outcome:
        """Trains to the end of the schedule, or until patience ends.

        Raises:
            TrainingError: a loss is not finite, or memory ran out; the last good checkpoint stays.
            CheckpointError: a checkpoint could not be written; the one before it stays.
            Interrupted: a signal asked to stop; a checkpoint was written.
        """
        job, images_before = self.job, self.images_seen
        with faults.translate_errors(job.config, job.header, self.fabric, job.folder), stop_request() as stop:
            with self._curves() as curves:
                self._train(stop, curves)
            self._finish()
        return Outcome(
            images_seen=self.images_seen,
            images_now=self.images_seen - images_before,
            best_score=self.best_score,
            seconds=self.meter.seconds,
            waiting_share=self.meter.waiting_share(self.batches.waiting_seconds),
            ended_early=self.images_seen < job.total_images,
        )

    def _train(self, stop: StopRequest, curves: Curves | None) -> None:
        """Steps until the end; a killed run's validation is made up for first."""
        self._validate_if_due(curves)
        if self._out_of_patience():
            return
        saved = time.monotonic()
        for batch in self.batches:
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

    def _positions(self) -> BatchSampler:
        config, fabric = self.config, self.fabric
        starts = range(self.images_seen, self.job.total_images, config.batch_size)
        return BatchSampler(
            starts, config.batch_size, config.accumulate, fabric.global_rank, fabric.world_size
        )

    def _step(self, batch: Batch) -> None:
        began, config, per_epoch = time.monotonic(), self.config, self.job.images_per_epoch
        rng = np.random.SeedSequence([config.seed, self.fabric.global_rank, self.images_seen])
        torch.manual_seed(int(rng.generate_state(1, np.uint64)[0]))
        last = max(0, self.images_seen - config.batch_size)
        self.job.model.begin_step(self.images_seen // per_epoch, last // per_epoch)
        losses = train_step(
            self.job.model,
            batch,
            self.fabric,
            config.learning_rate(self.images_seen, per_epoch),
            accumulate=config.accumulate,
            clip_norm=config.clip_norm,
            scalers=self.scalers,
        )
        self.images_seen += config.batch_size
        self.averages.update(self.images_seen, config.batch_size)
        self.meter.add(losses, config.batch_size, time.monotonic() - began)

    def _log(self, curves: Curves | None) -> None:
        if self.meter.steps < _LOG_EVERY_STEPS and self.images_seen < self.job.total_images:
            return
        means, waiting = self.meter.means(), self.batches.waiting_seconds
        times = self.meter.times(waiting)
        if curves is not None:
            rate = self.config.learning_rate(self.images_seen, self.job.images_per_epoch)
            curves.add("training", self.images_seen, {"learning_rate": rate, **means})
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
            found = self.job.validator.score(self._network_for_use(), self.images_seen)
            score = found.values["score"]
            curves.add("validation", self.images_seen, found.values)
            curves.add_picture(self.images_seen, found.grid)
        score = self.fabric.broadcast(score)
        self.validated_at = self.images_seen
        self.validations_since_best += 1
        if self.best_score is None or score < self.best_score:
            self.best_score, self.validations_since_best = score, 0
            self._save_weights(checkpoint.BEST)
        self._save()

    def _network_for_use(self) -> nn.Module:
        """The network as translation will run it: its average where there is one, without any switch."""
        name = self.job.model.translating
        network = self.averages.networks.get(name, self.networks[name])
        return as_plain(network) if self.config.channels_last or self.config.compile else network

    def _save_weights(self, name: str) -> None:
        if not self.fabric.is_global_zero:
            return
        averages = {k + checkpoint.AVERAGE: v for k, v in self.averages.networks.items()}
        header = {**self.job.header, "images_seen": self.images_seen, "best_score": self.best_score}
        checkpoint.save_weights(self.job.folder / name, self.networks | averages, header)

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        faults.check_finite(self.networks.values(), self.job.folder)
        state = {
            "networks": {k: v.state_dict() for k, v in self.networks.items()},
            "averages": self.averages.state(),
            "optimizers": {k: v.state_dict() for k, v in self.job.model.optimizers.items()},
            "scalers": {k: v.state_dict() for k, v in self.scalers.items()},
            "model": self.job.model.state(),
            **self.meter.state(),
            **{part: getattr(self, part) for part in _NUMBERS},
        }
        checkpoint.save_state(self.job.folder / checkpoint.STATE, state)

    def _resume(self) -> None:
        path = self.job.folder / checkpoint.STATE
        if not path.is_file():
            return
        state = checkpoint.load_state(path)
        faults.check_networks(self.networks, state["networks"], path)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.job.model.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scaler in self.scalers.items():
            if state["scalers"][name]:  # empty where the run was begun in another precision
                scaler.load_state_dict(state["scalers"][name])
        self.averages.load_state(state["averages"])
        self.job.model.load_state(state["model"])
        self.meter.load_state(state, self.fabric.device)
        for part in _NUMBERS:
            setattr(self, part, state[part])

    def _check_same(self) -> None:
        """Whether all processes found the same state."""
        if self.fabric.broadcast(self.images_seen) != self.images_seen:
            raise CheckpointError(
                "the processes find different checkpoints",
                where=self.job.folder,
                next_step="put the run folder where all machines see it",
            )

    def _finish(self) -> None:
        self._save_weights(checkpoint.LAST)
        if self.best_score is None:  # nothing was held out: the last weights are all there is
            self._save_weights(checkpoint.BEST)
        self.fabric.barrier()
