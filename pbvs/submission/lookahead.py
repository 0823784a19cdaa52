"""Decodes and encodes images in threads, a few ahead of the reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

from pbvs.core.pixels import no_georeference_warnings

T = TypeVar("T")
N_THREADS = 2


def map_ahead(
    function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], n_ahead: int, *, tiffs: bool = True
) -> Generator[Future[T], None, None]:
    """Yields the future of `function(*args)` for each of `arguments`, in their order.

    At most `n_ahead` calls are pending, so at most as many images are in memory. Without `tiffs` among the
    images, rasterio is not imported.
    """
    pending: deque[Future[T]] = deque()
    quiet = no_georeference_warnings() if tiffs else nullcontext()
    with quiet, ThreadPoolExecutor(N_THREADS) as pool:
        for args in arguments:
            pending.append(pool.submit(function, *args))
            if len(pending) >= n_ahead:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
