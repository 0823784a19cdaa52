"""Weights of one task as the first weights of another whose bands differ.

The rule: what has the same name and shape is taken as it is. A convolution that reads other bands gets,
in each new band, the mean over the old bands scaled by old / new, so that an image with equal bands gives
the same response as before. A convolution that writes other bands writes the mean of the old bands in each
new one. SAR2RGB started from SAR2EO therefore begins by painting SAR2EO's gray in all three bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pbvs.errors import CheckpointError
from pbvs.models.pix2pixhd import Discriminator, Generator


@dataclass
class Adaptation:
    """What became of each parameter: taken as it was, or adapted to other bands; none is left fresh."""

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        words = f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted, none fresh"
        return f"{words} ({', '.join(self.adapted)})" if self.adapted else words


def adapt_generator(network: Generator, state: Mapping[str, Tensor]) -> Adaptation:
    """Loads a generator's `state` into one with other bands by the rule above, in place.

    Raises:
        CheckpointError: the networks differ in more than their bands.
    """
    first, last = network.ends()
    reads = {id(conv.weight) for conv in first}
    writes = {id(last.weight), id(last.bias)}

    def adapted(name: str, old: Tensor, parameter: Tensor) -> Tensor | None:
        if id(parameter) in reads and old.shape[0] == parameter.shape[0]:
            return read_bands(old, parameter.shape[1])
        if id(parameter) in writes and old.shape[1:] == parameter.shape[1:]:
            return written_bands(old, parameter.shape[0])
        return None

    return _adapt(network, state, adapted)


def adapt_discriminator(
    network: Discriminator, state: Mapping[str, Tensor], old_source_bands: int, source_bands: int
) -> Adaptation:
    """Loads a discriminator's `state` into one over other bands, in place.

    Source and target bands are adapted apart, as both stand in one input: the source's first.
    """

    def adapted(name: str, old: Tensor, parameter: Tensor) -> Tensor | None:
        if not name.endswith("layer0.0.weight") or old.shape[0] != parameter.shape[0]:
            return None
        source, target = old[:, :old_source_bands], old[:, old_source_bands:]
        target_bands = parameter.shape[1] - source_bands
        return torch.cat([read_bands(source, source_bands), read_bands(target, target_bands)], dim=1)

    return _adapt(network, state, adapted)


def _adapt(
    network: nn.Module,
    state: Mapping[str, Tensor],
    adapted: Callable[[str, Tensor, Tensor], Tensor | None],
) -> Adaptation:
    """Loads `state`; where a shape differs, `adapted` gives the new tensor, or None without a rule for it."""
    new: dict[str, Tensor] = {}
    told = Adaptation()
    for name, parameter in network.state_dict(keep_vars=True).items():
        old = _found(state, name)
        if old.shape == parameter.shape:
            new[name] = old
            told.loaded.append(name)
            continue
        fitting = adapted(name, old, parameter)
        if fitting is None:
            raise _unlike(name, old, parameter)
        new[name] = fitting
        told.adapted.append(name)
    network.load_state_dict(new, strict=True)
    return told


def read_bands(weight: Tensor, bands: int) -> Tensor:
    """A convolution's weight `out,in,k,k` for `bands` input bands; equal bands give the same response."""
    old_bands = weight.shape[1]
    if old_bands == bands:
        return weight
    return weight.mean(dim=1, keepdim=True).expand(-1, bands, -1, -1) * (old_bands / bands)


def written_bands(tensor: Tensor, bands: int) -> Tensor:
    """A last convolution's weight `out,in,k,k` or bias `out` for `bands` outputs, each the old mean."""
    return tensor.mean(dim=0, keepdim=True).expand(bands, *tensor.shape[1:]).clone()


def _found(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CheckpointError(
            f"the first weights have no {name}",
            next_step="start from a task whose network has the same kind, channels and blocks",
        )
    return state[name]


def _unlike(name: str, old: Tensor, parameter: Tensor | nn.Parameter) -> CheckpointError:
    return CheckpointError(
        f"the first weights differ in more than their bands: {name} is {tuple(old.shape)}, "
        f"this network has {tuple(parameter.shape)}",
        next_step="give both tasks the same network settings, or leave out first_weights",
    )
