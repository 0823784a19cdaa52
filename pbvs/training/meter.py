"""What a run tells while it goes on: mean terms, speed, time left, and what the time went into."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# A share of waiting for data above this is worth a word to the user, once there is enough to tell by.
_MUCH_WAITING = 0.2
_WARN_AFTER_STEPS = 100


class Meter:
    """Sums of the terms since they were last told, which survive a restart, and this process's times.

    Attributes:
        images, step_seconds: of the steps since this process began.
    """

    def __init__(self) -> None:
        self.term_sums: dict[str, Tensor] = {}
        self.steps = 0
        self.images, self.step_seconds = 0, 0.0
        self._all_steps, self._judged = 0, False
        self._began, self._seconds_before = time.monotonic(), 0.0
        self._told = (0, 0.0, 0.0)  # images, seconds of steps and of waiting when times were last told

    def add(self, losses: Mapping[str, Tensor], images: int, seconds: float) -> None:
        """Takes the terms of one step over `images` images; nothing waits for the device."""
        for name, value in losses.items():
            self.term_sums[name] = self.term_sums.get(name, torch.zeros_like(value)) + value
        self.steps += 1
        self._all_steps += 1
        self.images += images
        self.step_seconds += seconds

    def means(self) -> dict[str, float]:
        """The mean terms since they were last asked for; begins new ones."""
        means = {name: float(value) / self.steps for name, value in self.term_sums.items()}
        self.term_sums, self.steps = {}, 0
        return means

    def times(self, waiting_seconds: float) -> dict[str, float]:
        """Since they were last asked for: images a second, and seconds an image for data and for the step.

        Args:
            waiting_seconds: for data, in all.
        """
        now = (self.images, self.step_seconds, waiting_seconds)
        images, step, waiting = (new - old for new, old in zip(now, self._told, strict=True))
        self._told, images = now, max(1, images)
        return {
            "images_per_second": images / max(1e-9, step + waiting),
            "data_seconds_per_image": waiting / images,
            "step_seconds_per_image": step / images,
        }

    def seconds_left(self, images_left: int) -> float:
        """At this process's mean speed so far, validation and all."""
        return (time.monotonic() - self._began) / max(1, self.images) * images_left

    def waiting_share(self, waiting_seconds: float) -> float:
        """The part of this process's time for steps and data that went into waiting for data."""
        return waiting_seconds / max(1e-9, self.step_seconds + waiting_seconds)

    def warning(self, waiting_seconds: float) -> str | None:
        """Once a run, after its first steps: a line about too much waiting, if there is."""
        if self._judged or self._all_steps < _WARN_AFTER_STEPS:
            return None
        self._judged, share = True, self.waiting_share(waiting_seconds)
        if share <= _MUCH_WAITING:
            return None
        return f"{share:.0%} of the time goes into waiting for data: raise --data-workers"

    @property
    def seconds(self) -> float:
        """Of the run so far, restarts and all."""
        return self._seconds_before + time.monotonic() - self._began

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {"term_sums": dict(self.term_sums), "steps_in_sums": self.steps, "seconds": self.seconds}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Takes back what `state` gave."""
        self.term_sums = {name: value.to(device) for name, value in state["term_sums"].items()}
        self.steps, self._seconds_before = int(state["steps_in_sums"]), float(state["seconds"])
