"""Switches that change how networks are computed, not what: each is checked before it is used.

torch 2.15 has a wrong gradient of instance norm at batch 1 on the CPU for channels_last, without a word;
other versions and devices may have others. So before a run, the gradients of small networks of the same
layers are compared with those of the plain path in float64, on the run's own device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pbvs.core.errors import TrainingError
from pbvs.networks import NormName
from pbvs.networks.layers import ResidualBlock, norm_layer
from pbvs.training.schedule import TrainingConfig
from pbvs.training.system import System

_LARGEST_ERROR = 1e-9  # relative, in float64


def apply_memory_format(system: System, config: TrainingConfig, device: torch.device) -> None:
    """Applies `activation_checkpointing`, `channels_last` and `compile` to the networks; before `setup`.

    Raises:
        TrainingError: with a switch on, gradients on this device differ from the plain path's.
    """
    if config.channels_last or config.compile:
        check_gradients(device, channels_last=config.channels_last, compiled=config.compile)
    for network in system.networks.values():
        if hasattr(network, "activation_checkpointing"):
            network.activation_checkpointing = config.activation_checkpointing  # type: ignore[assignment]
        _apply(network, config.channels_last, config.compile)


def in_plain_format(network: nn.Module) -> nn.Module:
    """A copy of a network, not compiled and in the usual memory format, as translation runs it."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def check_gradients(device: torch.device, *, channels_last: bool, compiled: bool) -> None:
    """Compares the gradients of small networks with the plain path's, at batch 1 and 2, in float64.

    Raises:
        TrainingError: they differ, or the device has no float64.
    """
    words = " and ".join(w for w, on in (("channels_last", channels_last), ("compile", compiled)) if on)
    if device.type == "mps":
        raise TrainingError(f"{words} cannot be checked on {device}: it has no float64")
    worst = max(_error(device, norm, n, channels_last, compiled) for norm in _NORMS for n in (1, 2))
    if not worst <= _LARGEST_ERROR:
        raise TrainingError(
            f"{words} gives wrong gradients on {device} with torch {torch.__version__} "
            f"(relative error {worst:.1e})",
            next_step="leave it off",
        )


_NORMS: tuple[NormName, ...] = ("instance", "batch")


def _error(device: torch.device, norm: NormName, n_images: int, channels_last: bool, compiled: bool) -> float:
    """The largest difference of any parameter's gradient, over the largest gradient.

    (A bias in front of a norm has a gradient of nothing but rounding: it is no scale.)
    """
    draw = torch.Generator().manual_seed(n_images)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        norm_layer(norm, 4),
        nn.LeakyReLU(0.2),
        ResidualBlock(4, norm),
        norm_layer(norm, 4),  # straight in front of a convolution: its gradient then comes as channels_last
        nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
        norm_layer(norm, 3),
        nn.ReLU(),
    ).to(device, torch.float64)
    images = torch.randn(n_images, 2, 8, 12, generator=draw, dtype=torch.float64).to(device)
    towards = torch.randn(n_images, 3, 8, 12, generator=draw, dtype=torch.float64).to(device)
    other = copy.deepcopy(network)
    _apply(other, channels_last, compiled)
    expected = _gradients(network, images, towards)
    found = _gradients(other, images, towards)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest


def _apply(network: nn.Module, channels_last: bool, compiled: bool) -> None:
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile()


def _gradients(network: nn.Module, images: Tensor, towards: Tensor) -> list[Tensor]:
    """Of every parameter."""
    network(images).mul(towards).sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]
