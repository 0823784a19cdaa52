"""Scoring shared by several processes: each takes every n-th pair, and all then know all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that score together.

    Attributes:
        rank, n_ranks: its number, from 0 on, and how many there are.
        gather: gives the values of all processes, by rank, to each of them.
    """

    rank: int
    n_ranks: int
    gather: Callable[[Any], list[Any]]

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of `items`."""
        return items[self.rank :: self.n_ranks]


SINGLE_PROCESS = ProcessGroup(0, 1, lambda value: [value])


def started_process_group() -> ProcessGroup:
    """Among the processes of the default group, as `torchrun` and Fabric start it; else alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return SINGLE_PROCESS
    n_ranks = distributed.get_world_size()

    def gather(value: Any) -> list[Any]:
        found: list[Any] = [None] * n_ranks
        distributed.all_gather_object(found, value)
        return found

    return ProcessGroup(distributed.get_rank(), n_ranks, gather)
