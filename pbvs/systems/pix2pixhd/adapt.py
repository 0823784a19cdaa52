"""Weights of one network as the first weights of another: other bands, or a finer one.

What has the same name and shape is taken as it is. The convolutions at the ends are fitted to other bands
by one of two rules, see `pbvs.systems.config.BandRule`; under either, an image whose bands are equal gives
the same response as before. A finer generator may start from a coarser one, as pix2pixHD trains its local
enhancers (Wang et al. 2018, section 3.2): the new enhancers, and the scales that its discriminator has
more, stay as they were drawn. Anything else that differs is an error that lists all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pbvs.core.errors import CheckpointError
from pbvs.networks.state_dicts import mismatches, unlike, without_stale
from pbvs.systems.config import BandRule
from pbvs.systems.pix2pixhd.network import Discriminator, Generator
from pbvs.systems.pix2pixhd.official_config import arguments_of, is_generator, last_convolution

_NEXT_STEP = "give both networks the same settings but for bands and enhancers, or leave out init_from"
_Fit = Callable[[Tensor, Tensor], Tensor | None]
_Shape = tuple[int, ...]


@dataclass
class Adaptation:
    """What became of each tensor of a network, by name.

    `adapted` has the old and the new shape; `fresh` were left as drawn; `unused` are the weights' own,
    the last convolution of a coarser generator.
    """

    rule: BandRule
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, tuple[_Shape, _Shape]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        words = f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted"
        if self.adapted:
            words += f" by the {self.rule} of bands ({', '.join(self.adapted)})"
        words += f", {len(self.fresh) or 'none'} fresh"
        if self.fresh:
            words += f" ({', '.join(sorted({name.split('.')[0] for name in self.fresh}))})"
        return words + (f", {len(self.unused)} unused ({', '.join(self.unused)})" if self.unused else "")

    def as_dict(self) -> dict[str, Any]:
        """For a JSON record."""
        adapted = {name: {"from": list(old), "to": list(new)} for name, (old, new) in self.adapted.items()}
        return {
            "rule": self.rule,
            "loaded": list(self.loaded),
            "adapted": adapted,
            "fresh": list(self.fresh),
            "unused": list(self.unused),
        }


def generator_bands(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Bands that a generator's weights read and write.

    Raises:
        CheckpointError: these are no generator's weights.
    """
    if not is_generator(state):
        raise CheckpointError("these are not the weights of a pix2pixHD generator")
    arguments = arguments_of(state)
    return arguments["input_nc"], arguments["output_nc"]


def adapt_generator(network: Generator, state: Mapping[str, Tensor], rule: BandRule = "mean") -> Adaptation:
    """Loads a generator's `state` into one with other bands or more enhancers, in place.

    Raises:
        CheckpointError: the networks differ in more than that; `network` is then as it was.
    """
    first, last = network.ends()
    reads = {id(conv.weight) for conv in first}
    writes = {id(last.weight), id(last.bias)}

    def fitted(old: Tensor, parameter: Tensor) -> Tensor | None:
        if id(parameter) in reads and old.shape[::2] == parameter.shape[::2]:
            return read_bands(old, parameter.shape[1], rule)
        if id(parameter) in writes and old.shape[1:] == parameter.shape[1:]:
            return written_bands(old, parameter.shape[0], rule)
        return None

    return _adapt(network, *_without_coarser_end(network, without_stale(network, state)), fitted, rule)


def adapt_discriminator(
    network: Discriminator,
    state: Mapping[str, Tensor],
    old_source_bands: int,
    source_bands: int,
    rule: BandRule = "mean",
) -> Adaptation:
    """Loads a discriminator's `state` into one over other bands or with more scales, in place.

    Source and target bands are adapted apart, as both stand in one input: the source's first.

    Raises:
        CheckpointError: the networks differ in more than that; `network` is then as it was.
    """
    reads = {id(conv.weight) for conv in network.first_convolutions()}

    def fitted(old: Tensor, parameter: Tensor) -> Tensor | None:
        if id(parameter) not in reads or old.shape[::2] != parameter.shape[::2]:
            return None
        source, target = old[:, :old_source_bands], old[:, old_source_bands:]
        target_bands = parameter.shape[1] - source_bands
        if not source.shape[1] or not target.shape[1]:
            return None
        return torch.cat(
            [read_bands(source, source_bands, rule), read_bands(target, target_bands, rule)], dim=1
        )

    return _adapt(network, without_stale(network, state), [], fitted, rule)


def _adapt(
    network: nn.Module, state: dict[str, Tensor], unused: list[str], fitted: _Fit, rule: BandRule
) -> Adaptation:
    """Loads `state`; where a shape differs, `fitted` gives the new tensor, or None without a rule for it."""
    told = Adaptation(rule, unused=unused)
    new: dict[str, Tensor] = {}
    had = {_part(name) for name in state}
    for name, parameter in network.state_dict(keep_vars=True).items():
        if name in state and state[name].shape == parameter.shape:
            new[name] = state[name]
            told.loaded.append(name)
        elif name in state and (fitting := fitted(state[name], parameter)) is not None:
            new[name] = fitting
            told.adapted[name] = (tuple(state[name].shape), tuple(parameter.shape))
        elif _part(name) and _part(name) not in had:
            new[name] = parameter.detach()
            told.fresh.append(name)
    wrong = mismatches(network, {**{k: v for k, v in state.items() if k not in new}, **new})
    if wrong:
        raise unlike(wrong, None, _NEXT_STEP)
    network.load_state_dict(new, strict=True)
    return told


def _part(name: str) -> str:
    """The enhancer or scale that a tensor belongs to, which a coarser network may lack; else nothing."""
    found = re.match(r"model\d+(?=_)|scale\d+(?=_)|layer\d+(?=\.)", name)
    return found[0] if found else ""


def _without_coarser_end(
    network: Generator, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """A generator's `state` for one with more enhancers: without the last convolution, which is named."""
    coarser = (
        is_generator(state) and arguments_of(state).get("n_local_enhancers", 0) < network.local_enhancers
    )
    end = f"{last_convolution(state)}." if coarser else None
    unused = [name for name in state if end and name.startswith(end)]
    return {name: tensor for name, tensor in state.items() if name not in unused}, unused


def read_bands(weight: Tensor, bands: int, rule: BandRule) -> Tensor:
    """A convolution's weight `out,in,k,k` for `bands` input bands; equal bands give the same response."""
    old_bands = weight.shape[1]
    if old_bands == bands:
        return weight
    if rule == "mean":
        return weight.mean(dim=1, keepdim=True).expand(-1, bands, -1, -1) * (old_bands / bands)
    if bands > old_bands:  # each old band shares its weight among the new ones in its place
        places = torch.arange(bands) % old_bands
        return weight[:, places] / torch.bincount(places)[places].view(1, -1, 1, 1)
    return torch.stack([weight[:, place::bands].sum(dim=1) for place in range(bands)], dim=1)


def written_bands(tensor: Tensor, bands: int, rule: BandRule) -> Tensor:
    """A last convolution's weight `out,in,k,k` or bias `out` for `bands` outputs, by the rule."""
    old_bands = tensor.shape[0]
    if rule == "mean":
        return tensor.mean(dim=0, keepdim=True).expand(bands, *tensor.shape[1:]).clone()
    if bands > old_bands:
        return tensor[torch.arange(bands) % old_bands]
    return torch.stack([tensor[place::bands].mean(dim=0) for place in range(bands)])
