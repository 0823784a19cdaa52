"""The training loop: set up, resume, step, report, validate, save.

It knows phases, not losses: a model hands it named phases with the terms that each lowers. The order of
the data depends only on the seed and the number of images seen, so a run that was stopped goes on with
the same batches and ends with the same weights as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pbvs import pixels
from pbvs.data.dataset import from_worker
from pbvs.errors import PbvsError, TrainingError, UsageError
from pbvs.training import checkpoint
from pbvs.training.curves import Curves
from pbvs.training.gan import Batch, Pix2PixHD
from pbvs.training.interrupt import Interrupted, StopRequest, stop_request
from pbvs.training.schedule import TrainingConfig
from pbvs.training.validation import Validator

_CHECKPOINT_SECONDS = 300.0
_LOG_EVERY_STEPS = 20

Report = Callable[[int, int, Mapping[str, float]], None]


@dataclass
class Job:
    """Everything a run is made of.

    `header` goes into every weights file; `images_per_epoch` is the number of draws of `dataset`, which
    takes any number from 0 to the last image of the last epoch.
    """

    folder: Path
    header: dict[str, Any]
    model: Pix2PixHD
    config: TrainingConfig
    dataset: Dataset
    images_per_epoch: int
    validator: Validator | None
    data_workers: int = 0

    @property
    def total_images(self) -> int:
        """Images of the whole schedule, in whole batches."""
        return self.images_per_epoch * self.config.epochs // self.config.batch_size * self.config.batch_size


@dataclass
class Outcome:
    """How a run ended: images seen in all and now, best score (none: nothing was held out), seconds."""

    images_seen: int
    images_now: int
    best_score: float | None
    seconds: float
    waiting_share: float


@dataclass(frozen=True)
class Positions:
    """The batches of one rank as global positions: of each start, `share` of them from `offset` on."""

    starts: range
    offset: int
    share: int

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            yield list(range(start + self.offset, start + self.offset + self.share))

    def __len__(self) -> int:
        return len(self.starts)


class Trainer:
    """One run of one job on one Fabric."""

    def __init__(self, job: Job, fabric: Fabric, report: Report):
        self.job, self.fabric, self.report = job, fabric, report
        _check_batches(job, fabric.world_size)
        job.model.setup(fabric)
        self.images_seen, self.steps_in_sums = 0, 0
        self.term_sums: dict[str, Tensor] = {}
        self.best_score: float | None = None
        self.seconds, self.waiting_seconds = 0.0, 0.0
        self._resume()

    def run(self) -> Outcome:
        """Trains to the end of the schedule.

        Raises:
            TrainingError: a loss is not finite; the last good checkpoint stays.
            Interrupted: a signal asked to stop; a checkpoint was written.
        """
        started = saved = time.monotonic()
        before, images_before = self.seconds, self.images_seen
        with stop_request() as stop, self._curves() as curves:
            for batch in self._batches():
                self._step(batch)
                self.seconds = before + time.monotonic() - started
                self._log(curves)
                due = self._validate(curves) or time.monotonic() - saved > _CHECKPOINT_SECONDS
                if due or self._crossed(self.job.config.checkpoint_every_images) or stop.signal_number:
                    self._save()
                    saved = time.monotonic()
                self._obey(stop)
            self._save()
        self._finish()
        share = self.waiting_seconds / max(1e-9, time.monotonic() - started)
        return Outcome(
            self.images_seen, self.images_seen - images_before, self.best_score, self.seconds, share
        )

    def _curves(self) -> AbstractContextManager[Curves | None]:
        """The curves, which one of several processes writes."""
        return Curves(self.job.folder, self.images_seen) if self.fabric.is_global_zero else nullcontext()

    def _batches(self) -> Iterator[Batch]:
        """The batches that are left, on the device; counts the seconds spent waiting for them."""
        job, fabric = self.job, self.fabric
        starts = range(self.images_seen, job.total_images, job.config.batch_size)
        share = job.config.batch_size // fabric.world_size
        loader: DataLoader = DataLoader(
            job.dataset,
            batch_sampler=Positions(starts, fabric.global_rank * share, share),
            num_workers=job.data_workers,
            pin_memory=fabric.device.type == "cuda",
        )
        items = iter(loader)
        while True:
            asked = time.monotonic()
            try:
                item = next(items, None)
            except PbvsError as error:
                raise from_worker(error) from None  # a worker's error comes wrapped in its traceback
            self.waiting_seconds += time.monotonic() - asked
            if item is None:
                return
            yield model_batch(item, fabric.device)

    def _step(self, batch: Batch) -> None:
        rate = self.job.config.learning_rate(self.images_seen, self.job.images_per_epoch)
        for phase in self.job.model.phases():
            terms = phase.terms(batch)
            total = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(total):
                raise _not_finite(terms, batch, self.job.folder)
            optimizer = self.job.model.optimizers[phase.name]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(total)
            optimizer.step()
            for name, value in terms.items():
                self.term_sums[name] = self.term_sums.get(name, torch.zeros(())) + value.detach().cpu()
        self.steps_in_sums += 1
        self.images_seen += self.job.config.batch_size

    def _log(self, curves: Curves | None) -> None:
        if self.steps_in_sums < _LOG_EVERY_STEPS and self.images_seen < self.job.total_images:
            return
        rate = self.job.config.learning_rate(self.images_seen, self.job.images_per_epoch)
        means = {name: float(value) / self.steps_in_sums for name, value in self.term_sums.items()}
        self.term_sums, self.steps_in_sums = {}, 0
        if curves is not None:
            curves.add("training", self.images_seen, {"learning_rate": rate, **means})
        self.report(self.images_seen, self.job.total_images, means)

    def _crossed(self, every_images: int) -> bool:
        """Whether the last step passed a multiple of `every_images`."""
        before = self.images_seen - self.job.config.batch_size
        return self.images_seen // every_images > before // every_images

    def _validate(self, curves: Curves | None) -> bool:
        every = self.job.config.validate_every_epochs * self.job.images_per_epoch
        due = self._crossed(every) or self.images_seen >= self.job.total_images
        if self.job.validator is None or not due:
            return False
        if curves is not None:
            values = self.job.validator.score(self.job.model.networks["G"], self.images_seen)
            curves.add("validation", self.images_seen, values)
            if self.best_score is None or values["score"] < self.best_score:
                self.best_score = values["score"]
                self._save_weights(checkpoint.BEST)
        self.fabric.barrier()
        return True

    def _save_weights(self, name: str) -> None:
        header = {**self.job.header, "images_seen": self.images_seen, "best_score": self.best_score}
        networks = {k: _plain(v) for k, v in self.job.model.networks.items()}
        checkpoint.save_weights(self.job.folder / name, networks, header)

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        model = self.job.model
        state = {
            "images_seen": self.images_seen,
            "networks": {k: _plain(v).state_dict() for k, v in model.networks.items()},
            "optimizers": {k: v.state_dict() for k, v in model.optimizers.items()},
            "best_score": self.best_score,
            "term_sums": self.term_sums,
            "steps_in_sums": self.steps_in_sums,
            "seconds": self.seconds,
        }
        checkpoint.save_state(self.job.folder / checkpoint.STATE, state)

    def _resume(self) -> None:
        path = self.job.folder / checkpoint.STATE
        if not path.is_file():
            return
        state = checkpoint.load_state(path)
        for name, network in self.job.model.networks.items():
            _plain(network).load_state_dict(state["networks"][name])
            self.job.model.optimizers[name].load_state_dict(state["optimizers"][name])
        for part in ("images_seen", "best_score", "term_sums", "steps_in_sums", "seconds"):
            setattr(self, part, state[part])

    def _obey(self, stop: StopRequest) -> None:
        if stop.signal_number is not None:
            raise Interrupted(stop.signal_number, f"a checkpoint was written at {self.images_seen} images")

    def _finish(self) -> None:
        if self.fabric.is_global_zero:
            self._save_weights(checkpoint.LAST)
            if self.best_score is None:  # nothing was held out: the last weights are all there is
                self._save_weights(checkpoint.BEST)
        self.fabric.barrier()


def model_batch(item: Mapping[str, Any], device: torch.device) -> Batch:
    """What the data loader gives (`source`, `target` uint8, `mask` bool, `name`) as a batch on `device`."""
    source, target = (item[k].to(device, non_blocking=True) for k in ("source", "target"))
    return Batch(
        pixels.model_from_levels(source),
        pixels.model_from_levels(target),
        item["mask"].to(device, non_blocking=True),
        tuple(item["name"]),
    )


def _plain(network: Any) -> torch.nn.Module:
    """The network without Fabric's and DDP's wrapping."""
    module: torch.nn.Module = getattr(network, "module", network)
    return module


def _check_batches(job: Job, world_size: int) -> None:
    if job.config.batch_size % world_size:
        raise UsageError(
            f"a batch of {job.config.batch_size} cannot be shared by {world_size} devices",
            where="training.batch_size",
            next_step=f"set a multiple of {world_size}",
        )
    if job.total_images == 0:
        raise TrainingError(
            f"{job.images_per_epoch} images an epoch over {job.config.epochs} epochs do not fill one batch "
            f"of {job.config.batch_size}",
            next_step="lower training.batch_size or raise data.draws_per_location",
        )


def _not_finite(terms: Mapping[str, Tensor], batch: Batch, folder: Path) -> TrainingError:
    wrong = ", ".join(name for name, value in terms.items() if not torch.isfinite(value))
    return TrainingError(
        f"the loss is not finite: {wrong or 'the sum of the terms'}",
        where=f"images {', '.join(batch.names)}",
        next_step=f"the last good checkpoint stays in {folder}; look at these images, or lower the rate",
    )
