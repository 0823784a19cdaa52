"""Decodes and encodes images in threads, a few ahead of the reader."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

from pbvs.core.lookahead import submit_ahead
from pbvs.core.pixels import no_georeference_warnings

T = TypeVar("T")
N_THREADS = 2


def map_ahead(
    function: Callable[..., T], arguments: Iterable[tuple[Any, ...]], n_ahead: int, *, tiffs: bool = True
) -> Generator[Future[T], None, None]:
    """As `submit_ahead`, in threads of its own; rasterio is not imported where there are no `tiffs`."""
    quiet = no_georeference_warnings() if tiffs else nullcontext()
    with quiet, ThreadPoolExecutor(N_THREADS) as pool:
        yield from submit_ahead(pool, function, arguments, n_ahead)
