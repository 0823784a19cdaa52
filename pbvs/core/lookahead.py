"""Work in threads, begun a few items ahead of whoever reads the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def submit_ahead(
    pool: ThreadPoolExecutor, function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], n_ahead: int
) -> Generator[Future[T], None, None]:
    """Yields the future of `function(*args)` for each of `arguments`, in their order.

    At most `n_ahead` calls are pending, so at most as many results are in memory.
    """
    pending: deque[Future[T]] = deque()
    for args in arguments:
        pending.append(pool.submit(function, *args))
        if len(pending) >= n_ahead:
            yield pending.popleft()
    while pending:
        yield pending.popleft()
