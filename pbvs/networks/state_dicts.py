"""State dicts: whether one fits a network, and what to say where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pbvs.core.errors import CheckpointError

_AVERAGES = ("running_mean", "running_var", "num_batches_tracked")


def shape_words(tensor: Tensor) -> str:
    """`6x1x7x7`, or `one number` for a scalar."""
    return "x".join(str(n) for n in tensor.shape) or "one number"


def mismatches(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Every difference between `state` and what `network` holds, by name: empty when it fits.

    The network's names come first, in its order, then those that only `state` has.
    """
    own: Mapping[str, Tensor] = network.state_dict()
    told: list[str] = []
    for name, tensor in own.items():
        if name not in state:
            told.append(f"{name}: not in the weights, {shape_words(tensor)} in this network")
        elif state[name].shape != tensor.shape:
            there, here = shape_words(state[name]), shape_words(tensor)
            told.append(f"{name}: {there} in the weights, {here} in this network")
    extra = [f"{k}: {shape_words(v)} in the weights, not in this network" for k, v in state.items()]
    return told + [words for words, name in zip(extra, state, strict=True) if name not in own]


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
    told = mismatches(network, state)
    if told:
        raise unlike(told, where, next_step)
    network.load_state_dict(dict(state), strict=True)


def without_stale(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the running averages that PyTorch before 0.4 saved for instance norms, to no use."""
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.InstanceNorm2d)]
    stale = {f"{norm}.{part}" for norm in norms for part in _AVERAGES}
    return {name: tensor for name, tensor in state.items() if name not in stale}


def unlike(told: list[str], where: Path | str | None, next_step: str) -> CheckpointError:
    """The error for weights of another network; `told` has a line for every difference."""
    lines = "".join(f"\n    {line}" for line in told)
    return CheckpointError(
        f"the weights are of another network, {len(told)} of its tensors differ:{lines}",
        where=where,
        next_step=next_step,
    )
