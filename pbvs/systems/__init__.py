"""One folder per trainable system, and the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def from_official(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The network of a published code that `state` is of, as a module of ours.

    Args:
        name: the system, as task files name it (`pix2pixhd`).
        config: arguments of the official constructor; what is left out follows from `state` where it can.
        state: the official state dict; names and shapes must match exactly.

    Raises:
        UsageError: no such system, or it has no published code.
        CheckpointError: an argument is unknown, or a name or shape does not match.
    """
    from pbvs.systems.registry import system_named

    return system_named(name).load().from_official(config, state)
