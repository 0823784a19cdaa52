"""Ctrl-C and SIGTERM ask a run to stop; it stops at a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pbvs.errors import PbvsError


class Interrupted(PbvsError):
    """The run was asked to stop by a signal; `exit_code` is 130 or 143, as a shell has it."""

    def __init__(self, signal_number: int, what_is_kept: str):
        name = signal.Signals(signal_number).name
        super().__init__(
            f"stopped by {name}; {what_is_kept}", next_step="the same command goes on from there"
        )
        self.exit_code = 128 + signal_number


class StopRequest:
    """Whether a signal has asked the run to stop, and which."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def receive(self, signal_number: int, frame: FrameType | None) -> None:
        """Notes the signal; a second one stops at once, without a checkpoint."""
        if self.signal_number is not None:
            raise Interrupted(signal_number, "the last checkpoint stays")
        self.signal_number = signal_number


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block, SIGINT and SIGTERM are noted, not obeyed; outside the main thread nothing changes."""
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
