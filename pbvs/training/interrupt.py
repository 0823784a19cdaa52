"""Ctrl-C and SIGTERM stop a run at a checkpoint, all its processes at the same step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import distributed

from pbvs.core.errors import PbvsError

# A launcher forwards a signal that the terminal also sent to its processes: that is one request.
_ONE_REQUEST_SECONDS = 2.0


class Interrupted(PbvsError):
    """A signal stopped the run; `exit_code` is 130 or 143, the shell's convention."""

    def __init__(self, signal_number: int, kept: str):
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name}; {kept}", next_step="the same command goes on from there")
        self.exit_code = 128 + signal_number


class StopRequest:
    """The signal that stops the run, if one was received."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._received_at = 0.0
        # Each process receives signals at its own time. They agree over the CPU, without waiting for a GPU.
        self._group: distributed.ProcessGroup | None = None
        if distributed.is_available() and distributed.is_initialized():
            group = distributed.new_group(backend="gloo")
            assert isinstance(group, distributed.ProcessGroup)  # every process is in it
            self._group = group

    def receive(self, signal_number: int, frame: FrameType | None) -> None:
        """Stores the signal; a second one at least 2 s later stops at once, without a checkpoint."""
        if self.signal_number is None:
            self.signal_number, self._received_at = signal_number, time.monotonic()
        elif time.monotonic() - self._received_at > _ONE_REQUEST_SECONDS:
            raise Interrupted(signal_number, "the last checkpoint stays")

    def agreed(self) -> int | None:
        """The signal that any of the processes received; all of them call this after each step."""
        if self._group is None:
            return self.signal_number
        number = torch.tensor([self.signal_number or 0])
        distributed.all_reduce(number, op=distributed.ReduceOp.MAX, group=self._group)
        return int(number) or None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block, SIGINT and SIGTERM only set the request; outside the main thread nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    old = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
