"""Switches that change how networks compute, not what; each is checked before use.

torch 2.15 silently computes a wrong gradient of instance norm at batch 1 on the CPU for channels_last; other
versions and devices may have other faults. So before a run, the gradients of small networks of the same
layers are compared with the plain path's in float64, on the run's device.
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
    switches = " and ".join(
        name for name, on in (("channels_last", channels_last), ("compile", compiled)) if on
    )
    if device.type == "mps":
        raise TrainingError(f"{switches} cannot be checked on {device}: it has no float64")
    worst = max(_error(device, norm, n, channels_last, compiled) for norm in _NORMS for n in (1, 2))
    if not worst <= _LARGEST_ERROR:
        raise TrainingError(
            f"{switches} gives wrong gradients on {device} with torch {torch.__version__} "
            f"(relative error {worst:.1e})",
            next_step="leave it off",
        )


_NORMS: tuple[NormName, ...] = ("instance", "batch")


def _error(device: torch.device, norm: NormName, n_images: int, channels_last: bool, compiled: bool) -> float:
    """The largest difference of any parameter's gradient, over the largest gradient.

    The largest of all, since a bias before a norm has a gradient of rounding alone.
    """
    rng = torch.Generator().manual_seed(n_images)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        norm_layer(norm, 4),
        nn.LeakyReLU(0.2),
        ResidualBlock(4, norm),
        norm_layer(norm, 4),  # right before a convolution, so that its gradient is channels_last
        nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
        norm_layer(norm, 3),
        nn.ReLU(),
    ).to(device, torch.float64)
    images = torch.randn(n_images, 2, 8, 12, generator=rng, dtype=torch.float64).to(device)
    upstream = torch.randn(n_images, 3, 8, 12, generator=rng, dtype=torch.float64).to(device)
    other = copy.deepcopy(network)
    _apply(other, channels_last, compiled)
    expected = _gradients(network, images, upstream)
    found = _gradients(other, images, upstream)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest


def _apply(network: nn.Module, channels_last: bool, compiled: bool) -> None:
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile()


def _gradients(network: nn.Module, images: Tensor, upstream: Tensor) -> list[Tensor]:
    network(images).mul(upstream).sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]
