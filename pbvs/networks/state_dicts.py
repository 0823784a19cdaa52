"""State dicts: whether one fits a network, and the error where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pbvs.core.errors import CheckpointError
from pbvs.networks.layers import RUNNING_STATS


def shape_text(tensor: Tensor) -> str:
    """`6x1x7x7`, or `one number` for a scalar."""
    return "x".join(str(n) for n in tensor.shape) or "one number"


def mismatches(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Every difference between `state` and the tensors of `network`, by name: empty when it fits.

    The network's names come first, in its order, then those that only `state` has.
    """
    own: Mapping[str, Tensor] = network.state_dict()
    diffs: list[str] = []
    for name, tensor in own.items():
        if name not in state:
            diffs.append(f"{name}: not in the weights, {shape_text(tensor)} in this network")
        elif state[name].shape != tensor.shape:
            there, here = shape_text(state[name]), shape_text(tensor)
            diffs.append(f"{name}: {there} in the weights, {here} in this network")
    extra = {name: tensor for name, tensor in state.items() if name not in own}
    return diffs + [f"{k}: {shape_text(v)} in the weights, not in this network" for k, v in extra.items()]


def load_strictly(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: Path | str | None = None,
    next_step: str = "use the settings that the weights were trained with",
) -> None:
    """Loads `state` into `network` in place, all of it or nothing.

    Raises:
        CheckpointError: a name or shape differs; lists every one with both shapes.
    """
    if diffs := mismatches(network, state):
        raise mismatch_error(diffs, where, next_step)
    network.load_state_dict(dict(state), strict=True)


def without_stale(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the unused running statistics that PyTorch before 0.4 saved for instance norms."""
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.InstanceNorm2d)]
    stale = {f"{norm}.{part}" for norm in norms for part in RUNNING_STATS}
    return {name: tensor for name, tensor in state.items() if name not in stale}


def mismatch_error(diffs: list[str], where: Path | str | None, next_step: str) -> CheckpointError:
    """The error for weights of another network; `diffs` has one line per difference."""
    lines = "".join(f"\n    {line}" for line in diffs)
    return CheckpointError(
        f"the weights are of another network, {len(diffs)} of its tensors differ:{lines}",
        where=where,
        next_step=next_step,
    )
