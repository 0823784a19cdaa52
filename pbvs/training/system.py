"""What the loop knows of a system: named phases, each with an optimiser; never which losses or networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pbvs.core.errors import UsageError
from pbvs.dataset.batches import Batch


@dataclass(frozen=True)
class Phase:
    """One optimiser's part of a step.

    Attributes:
        name: of the phase and of its optimiser; the optimiser's parameters are those it changes.
        losses: the terms whose sum it minimises, each a scalar that is a mean over the batch's images.
        frozen: parameters of the optimiser that keep their values in this step.
        retain_graph: whether a later phase walks the graph of these losses again.
    """

    name: str
    losses: Callable[[Batch], dict[str, Tensor]]
    frozen: tuple[nn.Parameter, ...] = ()
    retain_graph: bool = False


@dataclass(frozen=True)
class SchedulePoint:
    """Where in its schedule a run stands before a step: the named stage, and epochs counted over all stages.

    `previous_epoch` is the epoch of the step before (0 at the first).
    """

    stage: str
    epoch: int
    previous_epoch: int


@dataclass(frozen=True)
class SystemContext:
    """What a system is built for.

    Attributes:
        bands: number of bands of each view, `source` and `target` among them.
        seed: of the initial weights and of everything random in the system.
        metric_weights: `official` or `standin`, for losses that use a metric's network.
    """

    bands: Mapping[str, int]
    seed: int
    metric_weights: Any = "official"


class System(ABC):
    """Networks, optimisers and phases of one trainable system.

    The constructor takes the system's config and a `SystemContext`, and sets `networks` and `optimizers`.

    Attributes:
        networks: by the names under which a checkpoint keeps them.
        optimizers: by the names of the phases; their learning rates are set by the loop.
        translators: names of the networks that `translate` uses. A moving average is kept of these, where
            one is asked for, and they alone are loaded for inference.
        simultaneous: whether the gradients of all phases are taken before any weight changes (the order of
            the published pix2pixHD); else each phase steps before the next one's losses are computed.
    """

    translators: ClassVar[tuple[str, ...]]
    simultaneous: ClassVar[bool] = False

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    @abstractmethod
    def __init__(self, config: Any, context: SystemContext) -> None: ...

    @classmethod
    @abstractmethod
    def inference_networks(cls, config: Any, bands: Mapping[str, int]) -> dict[str, nn.Module]:
        """The networks named in `translators`, with any weights, by these names; for trained ones."""

    @classmethod
    @abstractmethod
    def translate(cls, networks: Mapping[str, nn.Module], source: Tensor) -> Tensor:
        """Source `N,C,H,W` in [-1,1] to the translated `N,C',s*H,s*W` in [-1,1], s being the system's scale.

        `networks` holds those of `translators`. Deterministic: the same input gives the same output.
        """

    @classmethod
    def translate_in_strips(cls, networks: Mapping[str, nn.Module], source: Tensor) -> Tensor:
        """As `translate`, in memory that does not grow with the image; on the CPU.

        Raises:
            UsageError: the system has no such way.
        """
        raise UsageError(f"{cls.__name__} cannot translate in strips", next_step="leave out --strips")

    @abstractmethod
    def phases(self, point: SchedulePoint) -> tuple[Phase, ...]:
        """The phases of this step, in order."""

    def setup(self, fabric: Fabric) -> None:
        """Moves everything to the device, and wraps each network apart for distribution and precision."""
        for name, network in self.networks.items():
            self.networks[name] = fabric.setup_module(network)
        for name, optimizer in self.optimizers.items():
            self.optimizers[name] = fabric.setup_optimizers(optimizer)  # type: ignore[assignment]

    def begin_step(self, point: SchedulePoint) -> None:  # noqa: B027 - most systems need nothing here
        """Called before each step."""

    def state(self) -> dict[str, Any]:
        """What must survive a restart beside networks and optimisers: tensors, numbers, lists, dicts."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - the counterpart of an empty state
        """Restores what `state` returned."""

    # ---- weights from elsewhere, and for others

    def load_pretrained(
        self, states: Mapping[str, Mapping[str, Tensor]], rule: Any, bands: Mapping[str, int] | None
    ) -> dict[str, Any]:
        """Loads trained weights into the fresh networks, in place.

        Args:
            states: state dicts by network name; networks that are missing here keep their initial weights.
            rule: how weights are fitted to other bands, where the system can do that.
            bands: of the views that these weights were trained on; None where that is not known.

        Returns:
            What became of each network's tensors, JSON-like, each with a `summary` line.

        Raises:
            CheckpointError: the weights do not fit.
        """
        from pbvs.networks.state_dicts import load_strictly

        report: dict[str, Any] = {}
        for name, network in self.networks.items():
            if states.get(name):
                load_strictly(network, states[name])
                report[name] = {"summary": f"{name} {len(states[name])} tensors loaded"}
        return report

    @classmethod
    def read_official(cls, path: Path) -> dict[str, Mapping[str, Tensor]]:
        """State dicts by network name from a file of the published code, and those that lie beside it.

        Raises:
            UsageError: the system knows no such files.
            CheckpointError: the file is missing, corrupt or of another network.
        """
        raise UsageError(f"{cls.__name__} has no files of a published code", where=path)

    @classmethod
    def from_official(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
        """The network that an official state dict is of; `config` holds the official constructor's arguments.

        Raises:
            UsageError: the system knows no such files.
            CheckpointError: an argument, name or shape does not match.
        """
        raise UsageError(f"{cls.__name__} has no files of a published code")

    @classmethod
    def export(
        cls,
        config: Any,
        bands: Mapping[str, int],
        states: Mapping[str, Mapping[str, Tensor]],
        folder: Path,
        *,
        overwrite: bool,
    ) -> dict[Path, str]:
        """Writes trained weights in the form of the published code.

        Returns:
            The files written, each with a line about what it holds.

        Raises:
            UsageError: the system has no such form, or a file exists and `overwrite` is false.
        """
        raise UsageError(f"{cls.__name__} has no files of a published code", where=folder)


@dataclass(frozen=True)
class Translation:
    """A system's networks at work: a callable from source to translated, both `N,C,H,W` in [-1,1]."""

    system: type[System]
    networks: Mapping[str, nn.Module]

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return next(next(iter(self.networks.values())).parameters()).device

    def __call__(self, source: Tensor) -> Tensor:
        """Translates a batch on the networks' device."""
        return self.system.translate(self.networks, source)

    def in_strips(self, source: Tensor) -> Tensor:
        """As a call, in bounded memory; see `System.translate_in_strips`."""
        return self.system.translate_in_strips(self.networks, source)

    def eval(self) -> Self:
        """With the networks in evaluation mode."""
        for network in self.networks.values():
            network.eval()
        return self


def unwrap(network: Any) -> nn.Module:
    """The network without Fabric's and DDP's wrapping."""
    module: nn.Module = getattr(network, "module", network)
    return module
