"""Weights of one network as the initial weights of another: with other bands, or finer.

A tensor of the same name and shape is loaded as it is. The convolutions at the ends are fitted to other bands
by one of two rules, see `pbvs.systems.config.BandRule`; under either, an image of equal bands has the same
response as before. A finer generator may start from a coarser one, as pix2pixHD trains its local enhancers
(Wang et al. 2018, section 3.2): new enhancers, and new scales of its discriminator, keep their initial
weights. Any other difference is an error that lists all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pbvs.core.errors import CheckpointError
from pbvs.networks.state_dicts import mismatch_error, mismatches, without_stale
from pbvs.systems.config import BandRule
from pbvs.systems.pix2pixhd.network import Discriminator, Generator
from pbvs.systems.pix2pixhd.official_config import arguments_of, is_generator, last_convolution

_NEXT_STEP = "give both networks the same settings except bands and enhancers, or leave out init_from"
_Fit = Callable[[Tensor, Tensor], Tensor | None]
_Shape = tuple[int, ...]


@dataclass
class Adaptation:
    """What became of each tensor of a network, by name.

    `adapted` has the old and the new shape; `fresh` tensors keep their initial weights; `unused` are of the
    loaded weights: the last convolution of a coarser generator.
    """

    rule: BandRule
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, tuple[_Shape, _Shape]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        summary = f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted"
        if self.adapted:
            summary += f" by the {self.rule} of bands ({', '.join(self.adapted)})"
        summary += f", {len(self.fresh) or 'none'} fresh"
        if self.fresh:
            summary += f" ({', '.join(sorted({name.split('.')[0] for name in self.fresh}))})"
        return summary + (f", {len(self.unused)} unused ({', '.join(self.unused)})" if self.unused else "")

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
    """The numbers of bands that a generator with these weights reads and writes.

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
        CheckpointError: the networks differ in more than that; `network` is then unchanged.
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

    state, unused = without_stale(network, state), []
    if is_generator(state) and arguments_of(state).get("n_local_enhancers", 0) < network.local_enhancers:
        end = f"{last_convolution(state)}."  # of the coarser generator, where the finer one goes on
        unused = [name for name in state if name.startswith(end)]
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    return _adapt(network, state, unused, fitted, rule)


def adapt_discriminator(
    network: Discriminator,
    state: Mapping[str, Tensor],
    old_source_bands: int,
    source_bands: int,
    rule: BandRule = "mean",
) -> Adaptation:
    """Loads a discriminator's `state` into one over other bands or with more scales, in place.

    Its input is source and target stacked, the source's bands first; each is adapted separately.

    Raises:
        CheckpointError: the networks differ in more than that; `network` is then unchanged.
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
    """Loads `state`; `fitted` returns the new tensor where a shape differs, or None if no rule applies."""
    adaptation = Adaptation(rule, unused=unused)
    new: dict[str, Tensor] = {}
    parts = {_part(name) for name in state}
    for name, parameter in network.state_dict(keep_vars=True).items():
        if name in state and state[name].shape == parameter.shape:
            new[name] = state[name]
            adaptation.loaded.append(name)
        elif name in state and (fitting := fitted(state[name], parameter)) is not None:
            new[name] = fitting
            adaptation.adapted[name] = (tuple(state[name].shape), tuple(parameter.shape))
        elif _part(name) and _part(name) not in parts:
            new[name] = parameter.detach()
            adaptation.fresh.append(name)
    if diffs := mismatches(network, {**{k: v for k, v in state.items() if k not in new}, **new}):
        raise mismatch_error(diffs, None, _NEXT_STEP)
    network.load_state_dict(new, strict=True)
    return adaptation


def _part(name: str) -> str:
    """The enhancer or scale that a tensor belongs to, which a coarser network may lack; else empty."""
    found = re.match(r"model\d+(?=_)|scale\d+(?=_)|layer\d+(?=\.)", name)
    return found[0] if found else ""


def read_bands(weight: Tensor, bands: int, rule: BandRule) -> Tensor:
    """A convolution's weight `out,in,k,k` for `bands` input bands; equal bands give the same response."""
    old_bands = weight.shape[1]
    if old_bands == bands:
        return weight
    if rule == "mean":
        return weight.mean(dim=1, keepdim=True).expand(-1, bands, -1, -1) * (old_bands / bands)
    if bands > old_bands:  # the new bands of one old band share its weight
        origin = torch.arange(bands) % old_bands
        return weight[:, origin] / torch.bincount(origin)[origin].view(1, -1, 1, 1)
    return torch.stack([weight[:, band::bands].sum(dim=1) for band in range(bands)], dim=1)


def written_bands(tensor: Tensor, bands: int, rule: BandRule) -> Tensor:
    """A last convolution's weight `out,in,k,k` or bias `out` for `bands` outputs, by the rule."""
    old_bands = tensor.shape[0]
    if rule == "mean":
        return tensor.mean(dim=0, keepdim=True).expand(bands, *tensor.shape[1:]).clone()
    if bands > old_bands:
        return tensor[torch.arange(bands) % old_bands]
    return torch.stack([tensor[band::bands].mean(dim=0) for band in range(bands)])
