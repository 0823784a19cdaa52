"""The trainable systems that a task file may name after `use`; torch is imported with a system's code.

A system of another package registers itself as an entry point of the group `pbvs.systems`: its name, and a
`SystemRecord`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pbvs.core.errors import UsageError, did_you_mean
from pbvs.dataset.views import PAIR, View
from pbvs.systems.config import TrainedConfig
from pbvs.systems.pix2pixhd.config import Pix2PixHDConfig, pix2pixhd_metric_weights

if TYPE_CHECKING:
    from pbvs.training.system import System


@dataclass(frozen=True)
class SystemRecord:
    """One trainable system.

    Attributes:
        version: raised by hand when the same settings train other weights or translate to other images;
            runs of another version are out of date.
        config: the model of its settings in a task file.
        code: `module:class` of its `pbvs.training.system.System`, imported when it is first used.
        phases: the names of its phases and optimisers under a config.
        metric_weights: the metrics' weight files that its losses need under a config.
        views: the views that it is trained on; a task file may choose others under the same names.
        scale: how many times larger than its source its image is, under a config.
    """

    version: int
    config: type[TrainedConfig]
    code: str
    phases: Callable[[Any], tuple[str, ...]]
    metric_weights: Callable[[Any], set[str]] = lambda config: set()
    views: Mapping[str, View] = field(default_factory=lambda: PAIR)
    scale: Callable[[Any], int] = lambda config: 1

    def load(self) -> type[System]:
        """The system's code."""
        module, _, name = self.code.partition(":")
        system: type[System] = getattr(import_module(module), name)
        return system

    def views_of(self, config: TrainedConfig) -> dict[str, View]:
        """The views by name under a config."""
        return {**self.views, **config.views}


SYSTEMS: dict[str, SystemRecord] = {
    "pix2pixhd": SystemRecord(
        version=1,
        config=Pix2PixHDConfig,
        code="pbvs.systems.pix2pixhd.system:Pix2PixHD",
        phases=lambda config: ("D", "G") if config.losses.adversarial else ("G",),
        metric_weights=pix2pixhd_metric_weights,
    ),
}


@cache
def installed_systems() -> dict[str, SystemRecord]:
    """The systems of other packages, by name."""
    return {point.name: point.load() for point in entry_points(group="pbvs.systems")}


def find_system(name: str) -> SystemRecord | None:
    """The system of this name; None where there is none."""
    return SYSTEMS.get(name) or installed_systems().get(name)


def system_named(name: str) -> SystemRecord:
    """The system of this name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    record = find_system(name)
    if record is None:
        known = sorted({*SYSTEMS, *installed_systems()})
        raise UsageError(f"unknown system {name!r}; {did_you_mean(name, known)}")
    return record
