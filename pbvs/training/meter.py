"""Progress of a run: mean losses, speed, time left, and the shares of waiting and computing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# A larger share of waiting for data is reported, after this many steps.
_MUCH_WAITING = 0.2
_WARN_AFTER_STEPS = 100


class Meter:
    """Sums of the losses since the last report, which survive a restart, and this process's times.

    Attributes:
        images, step_seconds: of all steps of this process.
    """

    def __init__(self) -> None:
        self.loss_sums: dict[str, Tensor] = {}
        self.steps = 0
        self.images, self.step_seconds = 0, 0.0
        self._all_steps, self._checked = 0, False
        self._start, self._seconds_before = time.monotonic(), 0.0
        self._reported = (0, 0.0, 0.0)  # images, seconds of steps and of waiting at the last report

    def add(self, losses: Mapping[str, Tensor], images: int, seconds: float) -> None:
        """Adds the losses of one step over `images` images, without waiting for the device."""
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, torch.zeros_like(value)) + value
        self.steps += 1
        self._all_steps += 1
        self.images += images
        self.step_seconds += seconds

    def means(self) -> dict[str, float]:
        """The mean losses since the last call."""
        means = {name: float(value) / self.steps for name, value in self.loss_sums.items()}
        self.loss_sums, self.steps = {}, 0
        return means

    def times(self, waiting_seconds: float) -> dict[str, float]:
        """Since the last call: images per second, and seconds per image for data and for the step.

        Args:
            waiting_seconds: for data, of the whole process.
        """
        now = (self.images, self.step_seconds, waiting_seconds)
        images, step, waiting = (new - old for new, old in zip(now, self._reported, strict=True))
        self._reported, images = now, max(1, images)
        return {
            "images_per_second": images / max(1e-9, step + waiting),
            "data_seconds_per_image": waiting / images,
            "step_seconds_per_image": step / images,
        }

    def seconds_left(self, images_left: int) -> float:
        """At this process's mean speed so far, validation included."""
        return (time.monotonic() - self._start) / max(1, self.images) * images_left

    def waiting_share(self, waiting_seconds: float) -> float:
        """The fraction of this process's time for steps and data that was spent waiting for data."""
        return waiting_seconds / max(1e-9, self.step_seconds + waiting_seconds)

    def warning(self, waiting_seconds: float) -> str | None:
        """A line about too much waiting for data; checked once per process, after its first steps."""
        if self._checked or self._all_steps < _WARN_AFTER_STEPS:
            return None
        self._checked, share = True, self.waiting_share(waiting_seconds)
        if share <= _MUCH_WAITING:
            return None
        return f"{share:.0%} of the time goes into waiting for data: raise --data-workers"

    @property
    def seconds(self) -> float:
        """Of the run so far, over all restarts."""
        return self._seconds_before + time.monotonic() - self._start

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {"term_sums": dict(self.loss_sums), "steps_in_sums": self.steps, "seconds": self.seconds}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restores `state`."""
        self.loss_sums = {name: value.to(device) for name, value in state["term_sums"].items()}
        self.steps, self._seconds_before = int(state["steps_in_sums"]), float(state["seconds"])
