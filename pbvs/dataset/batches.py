"""The batches of a run: which images each process takes, and how long it waits for them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pbvs.core import pixels
from pbvs.core.errors import PbvsError, TrainingError
from pbvs.dataset.pair_dataset import from_worker


@dataclass(frozen=True)
class Batch:
    """One batch in model floats.

    Attributes:
        views: by name, `source` and `target` among them; each `N,C,H,W` in [-1,1].
        mask: `N,1,H,W` bool at the target's size, true where both source and target hold an image.
        names: of the N pairs.
    """

    views: Mapping[str, Tensor]
    mask: Tensor
    names: tuple[str, ...]

    @property
    def source(self) -> Tensor:
        """What the network is given."""
        return self.views["source"]

    @property
    def target(self) -> Tensor:
        """What it is to make of that."""
        return self.views["target"]

    def split(self, parts: int) -> list[Batch]:
        """As many batches of equal size; `parts` divides N."""
        share, rest = divmod(len(self.names), parts)
        assert rest == 0, f"{len(self.names)} images in {parts} parts"
        spans = [slice(i * share, (i + 1) * share) for i in range(parts)]
        return [
            Batch({name: view[s] for name, view in self.views.items()}, self.mask[s], self.names[s])
            for s in spans
        ]


@dataclass(frozen=True)
class BatchSampler:
    """The global positions of one process's images, one list per step.

    A step takes `batch_size` images from `start` on in `parts` parts, one after another; of each part every
    process takes as many neighbouring ones. So a step's images are the same however it is divided.
    """

    starts: range
    batch_size: int
    parts: int = 1
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // (self.parts * self.processes)
        for start in self.starts:
            firsts = [start + (j * self.processes + self.rank) * share for j in range(self.parts)]
            yield [first + i for first in firsts for i in range(share)]

    def __len__(self) -> int:
        return len(self.starts)


class Batches:
    """Batches of `dataset` at `positions`, on `device`, read once.

    Attributes:
        waiting_seconds: spent waiting for images so far.
    """

    def __init__(self, dataset: Dataset, positions: BatchSampler, device: torch.device, data_workers: int):
        self.device, self.waiting_seconds = device, 0.0
        self._loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=positions,
            num_workers=data_workers,
            worker_init_fn=_ignore_signals if data_workers else None,
            pin_memory=device.type == "cuda",
        )

    def __iter__(self) -> Iterator[Batch]:
        """Raises the errors of the data as they were raised in a worker."""
        items = iter(self._loader)
        while True:
            asked = time.monotonic()
            try:
                item = next(items, None)
            except PbvsError as error:
                raise from_worker(error) from None  # a worker's error comes wrapped in its traceback
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                raise TrainingError(
                    f"a process that loads images died: {error}",
                    next_step="lower --data-workers: memory, or shared memory (/dev/shm), may have run out",
                ) from error
            self.waiting_seconds += time.monotonic() - asked
            if item is None:
                return
            yield model_batch(item, self.device)


def _ignore_signals(worker: int) -> None:
    """Keeps workers alive when a signal reaches the whole process group: the run needs them to stop in order.

    They end when the run tells them to, or when it is gone.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def model_batch(item: Mapping[str, Any], device: torch.device) -> Batch:
    """A collated item of the data loader (uint8 views, `mask`, `name`) as a batch on `device`."""
    views = {
        name: pixels.normalize(value.to(device, non_blocking=True))
        for name, value in item.items()
        if name not in ("mask", "name")
    }
    return Batch(views, item["mask"].to(device, non_blocking=True), tuple(item["name"]))
