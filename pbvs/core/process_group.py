"""Work split over several processes: each handles every n-th item, then all results are gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that work together.

    Attributes:
        rank, n_ranks: its index, from 0 on, and the number of processes.
        gather: returns the values of all processes, ordered by rank, on each of them.
    """

    rank: int
    n_ranks: int
    gather: Callable[[Any], list[Any]]

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of `items`."""
        return items[self.rank :: self.n_ranks]


SINGLE_PROCESS = ProcessGroup(0, 1, lambda value: [value])


def default_process_group() -> ProcessGroup:
    """The default group of torch.distributed, as started by `torchrun` or Fabric; else a single process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return SINGLE_PROCESS
    n_ranks = distributed.get_world_size()

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * n_ranks
        distributed.all_gather_object(values, value)
        return values

    return ProcessGroup(distributed.get_rank(), n_ranks, gather)
