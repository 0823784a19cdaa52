"""Weights of one task as the first weights of another whose bands differ.

The rule: what has the same name and shape is taken as it is. A convolution that reads other bands gets,
in each new band, the mean over the old bands scaled by old / new, so that an image with equal bands gives
the same response as before. A convolution that writes other bands writes the mean of the old bands in each
new one. SAR2RGB started from SAR2EO therefore begins by painting SAR2EO's gray in all three bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pbvs.errors import CheckpointError
from pbvs.models.pix2pixhd import Discriminator, Generator


@dataclass
class Adaptation:
    """What became of each parameter: taken as it was, adapted to other bands, or left fresh."""

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        words = f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted, {len(self.fresh)} fresh"
        named = [*self.adapted, *self.fresh]
        return f"{words} ({', '.join(named)})" if named else words


def adapt_generator(network: Generator, state: Mapping[str, Tensor]) -> Adaptation:
    """Loads a generator's `state` into one with other bands by the rule above, in place.

    Raises:
        CheckpointError: the networks differ in more than their bands.
    """
    first, last = network.ends()
    reads = {id(conv.weight) for conv in first}
    writes = {id(last.weight), id(last.bias)}
    new: dict[str, Tensor] = {}
    told = Adaptation()
    for name, parameter in network.state_dict(keep_vars=True).items():
        old = _found(state, name)
        if old.shape == parameter.shape:
            new[name] = old
        elif id(parameter) in reads and old.shape[0] == parameter.shape[0]:
            new[name] = read_bands(old, parameter.shape[1])
        elif id(parameter) in writes and old.shape[1:] == parameter.shape[1:]:
            new[name] = written_bands(old, parameter.shape[0])
        else:
            raise _unlike(name, old, parameter)
        (told.loaded if new[name] is old else told.adapted).append(name)
    network.load_state_dict(new, strict=True)
    return told


def adapt_discriminator(
    network: Discriminator, state: Mapping[str, Tensor], old_source_bands: int, source_bands: int
) -> Adaptation:
    """Loads a discriminator's `state` into one over other bands, in place.

    Source and target bands are adapted apart, as both stand in one input: the source's first.
    """
    new: dict[str, Tensor] = {}
    told = Adaptation()
    for name, parameter in network.state_dict(keep_vars=True).items():
        old = _found(state, name)
        if old.shape == parameter.shape:
            new[name] = old
            told.loaded.append(name)
        elif name.endswith("layer0.0.weight") and old.shape[0] == parameter.shape[0]:
            source, target = old[:, :old_source_bands], old[:, old_source_bands:]
            target_bands = parameter.shape[1] - source_bands
            new[name] = torch.cat([read_bands(source, source_bands), read_bands(target, target_bands)], dim=1)
            told.adapted.append(name)
        else:
            raise _unlike(name, old, parameter)
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
