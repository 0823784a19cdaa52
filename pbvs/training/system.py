"""What the loop knows of a model: named phases, each with an optimiser; never which losses or networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """One batch in model floats: source and target `N,C,H,W` in [-1,1], mask `N,1,H,W` bool."""

    source: Tensor
    target: Tensor
    mask: Tensor
    names: tuple[str, ...]

    def split(self, parts: int) -> list[Batch]:
        """As many batches of equal size; `parts` divides N."""
        share, rest = divmod(len(self.names), parts)
        assert rest == 0, f"{len(self.names)} images in {parts} parts"
        spans = [slice(i * share, (i + 1) * share) for i in range(parts)]
        return [Batch(self.source[s], self.target[s], self.mask[s], self.names[s]) for s in spans]


@dataclass(frozen=True)
class Phase:
    """One optimiser's part of a step.

    Attributes:
        name: of the phase and of its optimiser; the optimiser's parameters are those it changes.
        losses: the terms whose sum it lowers, each a scalar that is a mean over the batch's images.
        frozen: parameters of the optimiser that stay as they are in this step.
        retain_graph: whether a later phase walks the graph of these terms again.
    """

    name: str
    losses: Callable[[Batch], dict[str, Tensor]]
    frozen: tuple[nn.Parameter, ...] = ()
    retain_graph: bool = False


class TrainedModel(Protocol):
    """Anything that the loop can train.

    Attributes:
        networks: by the names under which a checkpoint keeps them.
        optimizers: by the names of the phases.
        simultaneous: whether the gradients of all phases are taken before any weights change (the
            order of the published pix2pixHD); else each phase steps before the next one's terms are taken.
        translating: the network that turns a source into a target, which is validated.
        ensemble_mean: the networks of which a moving average is kept, where one is asked for.
    """

    @property
    def networks(self) -> dict[str, nn.Module]:
        """See the class."""

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """See the class."""

    @property
    def simultaneous(self) -> bool:
        """See the class."""

    @property
    def translating(self) -> str:
        """See the class."""

    @property
    def ensemble_mean(self) -> tuple[str, ...]:
        """See the class."""

    def setup(self, fabric: Fabric) -> None:
        """Moves everything to the device; wraps each network apart for distribution and precision."""

    def begin_step(self, epoch: int, epoch_before: int) -> None:
        """Told before each step which epoch it and the step before it belong to."""

    def phases(self) -> tuple[Phase, ...]:
        """The phases of this step, in order."""

    def state(self) -> dict[str, Any]:
        """What must survive a restart beside networks and optimisers: tensors, numbers, lists, dicts."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""


def unwrap(network: Any) -> nn.Module:
    """The network without Fabric's and DDP's wrapping."""
    module: nn.Module = getattr(network, "module", network)
    return module
