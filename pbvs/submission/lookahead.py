"""Decodes and encodes images in threads, a few ahead of the reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pbvs.core.pixels import no_georeference_warnings

T = TypeVar("T")
N_THREADS = 2


def map_ahead(
    function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], n_ahead: int
) -> Generator[Future[T], None, None]:
    """Yields the future of `function(*args)` for each of `arguments`, in their order.

    At most `n_ahead` calls are pending, so at most as many images are in memory.
    """
    pending: deque[Future[T]] = deque()
    with no_georeference_warnings(), ThreadPoolExecutor(N_THREADS) as pool:
        for args in arguments:
            pending.append(pool.submit(function, *args))
            if len(pending) >= n_ahead:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
