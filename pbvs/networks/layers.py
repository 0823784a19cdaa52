"""Layers shared by the networks: normalisation, residual block, initial weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from pbvs.networks import NormName


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without weights, as pix2pixHD has it, on `N,C,H,W` floats.

    It converts its incoming gradient to contiguous order: from one in channels_last order, torch 2.15 on the
    CPU silently computes wrong gradients at batch 1. A test compares every layout with the formula.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each channel of each image; same shape."""
        y: Tensor = super().forward(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient.contiguous())  # type: ignore[no-untyped-call]
        return y


def norm_layer(name: NormName, channels: int) -> nn.Module:
    """The normalisation a task file names, for `channels` channels."""
    return InstanceNorm(channels) if name == "instance" else nn.BatchNorm2d(channels)


RUNNING_STATS = ("running_mean", "running_var", "num_batches_tracked")


def _batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any layer has running statistics."""
    return bool(_batch_norms(network))


class FrozenBatchNormStats:
    """A context in which a network's batch norms do not change their running statistics; reusable.

    What they compute stays the same: in training they still normalise by the batch. For a repeated pass,
    whose batch would otherwise count twice.
    """

    def __init__(self, network: nn.Module):
        self._norms = _batch_norms(network)

    def __enter__(self) -> None:
        self._stats = [{part: getattr(norm, part) for part in RUNNING_STATS} for norm in self._norms]
        for norm, stats in zip(self._norms, self._stats, strict=True):
            for part, value in stats.items():
                setattr(norm, part, value.clone())  # a copy to update, dropped at the end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm, stats in zip(self._norms, self._stats, strict=True):
            for part, value in stats.items():
                setattr(norm, part, value)


def running_averages(network: nn.Module) -> list[Tensor]:
    """Copies of the running means and variances of every batch norm, in the network's order."""
    averages: list[Tensor] = []
    for norm in _batch_norms(network):
        assert norm.running_mean is not None and norm.running_var is not None
        averages += [norm.running_mean.clone(), norm.running_var.clone()]
    return averages


@torch.no_grad()
def replay_bn_update(network: nn.Module, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    """Counts a batch once more, in place: the one that changed the running averages from `before` to `after`.

    The published step passes the fake image through the discriminator twice and so counts it twice; a single
    pass for both uses needs this to leave the same averages. With momentum m, the batch's share is
    m * batch = after - (1 - m) * before.
    """
    norms = _batch_norms(network)
    for norm, mean, var in zip(norms, range(0, len(before), 2), range(1, len(before), 2), strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.momentum is not None and norm.num_batches_tracked is not None
        kept = 1.0 - norm.momentum
        # Through `.data`: the graph of a pass saves the averages unused, and would refuse the change.
        norm.running_mean.data.mul_(kept).add_(after[mean] - kept * before[mean])
        norm.running_var.data.mul_(kept).add_(after[var] - kept * before[var])
        norm.num_batches_tracked.add_(1)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3, reflection padding.

    Structure and parameter names of pix2pixHD's ResnetBlock (NVIDIA/pix2pixHD models/networks.py, BSD).
    """

    def __init__(self, channels: int, norm: NormName):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm_layer(norm, channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`N,C,H,W` to the same shape."""
        out: Tensor = x + self.conv_block(x)
        return out


def init_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draws pix2pixHD's initial weights in place: convolutions N(0, 0.02), batch norm N(1, 0.02) and 0.

    The published code leaves the convolutions' biases at PyTorch's default, uniform within 1 / sqrt(fan in);
    they are drawn here by that rule, from `generator` like the rest.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
            if module.bias is not None:
                bound = 1.0 / math.sqrt(module.weight[0].numel())  # PyTorch's fan in of either kind
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=generator)
            nn.init.zeros_(module.bias)
