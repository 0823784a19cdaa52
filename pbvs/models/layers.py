"""Layers shared by the networks: normalisation, residual block, first weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

NormName = Literal["instance", "batch"]


def _contiguous(gradient: Tensor) -> Tensor:
    return gradient.contiguous()


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm without weights, as pix2pixHD has it, on `N,C,H,W` floats.

    Its incoming gradient is made contiguous: torch 2.15 on the CPU returns wrong gradients at batch 1
    for one in channels_last order, without a word. A test compares the gradients with batch 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each channel of each image; same shape."""
        y: Tensor = super().forward(x)
        if y.requires_grad:
            y.register_hook(_contiguous)  # type: ignore[no-untyped-call]
        return y


def norm_layer(name: NormName, channels: int) -> nn.Module:
    """The normalisation a task file names, for `channels` channels."""
    return InstanceNorm(channels) if name == "instance" else nn.BatchNorm2d(channels)


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


def first_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draws pix2pixHD's first weights in place: convolutions N(0, 0.02), batch norm N(1, 0.02), biases 0.

    The published code leaves the biases at PyTorch's uniform default; in front of a norm they have no
    effect, and zero keeps the draw independent of PyTorch's defaults.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=generator)
            nn.init.zeros_(module.bias)
