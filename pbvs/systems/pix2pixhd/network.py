"""Pix2PixHD's networks: global generator, local enhancers, multi-scale patch discriminator.

Structure and parameter names follow NVIDIA/pix2pixHD `models/networks.py` (BSD licence; Wang et al.,
CVPR 2018), so its published `*_net_G.pth` and `*_net_D.pth` load strictly. Numbers taken from that code
are in `tests/golden/pix2pixhd`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pbvs.networks import NormName
from pbvs.networks.activation_checkpointing import checkpoint_sequential
from pbvs.networks.layers import ResidualBlock, norm_layer
from pbvs.systems.pix2pixhd.config import DiscriminatorConfig, GeneratorConfig


def _down(bands_in: int, bands_out: int, norm: NormName) -> list[nn.Module]:
    conv = nn.Conv2d(bands_in, bands_out, 3, stride=2, padding=1)
    return [conv, norm_layer(norm, bands_out), nn.ReLU()]


def _up(bands_in: int, bands_out: int, norm: NormName) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(bands_in, bands_out, 3, stride=2, padding=1, output_padding=1)
    return [conv, norm_layer(norm, bands_out), nn.ReLU()]


def _first(bands_in: int, channels: int, norm: NormName) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(bands_in, channels, 7), norm_layer(norm, channels), nn.ReLU()]


def _last(channels: int, bands_out: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(channels, bands_out, 7), nn.Tanh()]


class Generator(nn.Module):
    """Translates `N,bands_in,H,W` in [-1,1] to `N,bands_out,H,W` in [-1,1], any H and W.

    Sizes that the halvings do not divide, or that are too small for them, are padded by reflection on the
    right and below, and cropped again. With `activation_checkpointing`, training stores only what passes
    between the layers and recomputes the rest in the backward pass: the same gradients with less memory.
    """

    def __init__(self, config: GeneratorConfig, bands_in: int, bands_out: int):
        super().__init__()
        self.config, self.bands_in, self.bands_out = config, bands_in, bands_out
        self.activation_checkpointing = False
        self.local_enhancers = config.local_enhancers if config.kind == "local" else 0
        self.multiple: int = 2 ** (config.n_downsample + self.local_enhancers)
        # The deepest layers need two pixels, and the first convolution's reflection needs four.
        self.least_px: int = max(2 * self.multiple, 4 * 2**self.local_enhancers)
        width = config.channels * 2**self.local_enhancers
        widths = [width * 2**i for i in range(config.n_downsample + 1)]
        body = _first(bands_in, width, config.norm)
        for narrow, wide in pairwise(widths):
            body += _down(narrow, wide, config.norm)
        body += [ResidualBlock(widths[-1], config.norm) for _ in range(config.blocks)]
        for wide, narrow in pairwise(reversed(widths)):
            body += _up(wide, narrow, config.norm)
        self.model = nn.Sequential(*body, *([] if self.local_enhancers else _last(width, bands_out)))
        for n in range(1, self.local_enhancers + 1):
            self._add_enhancer(n, config.channels * 2 ** (self.local_enhancers - n))

    def _add_enhancer(self, n: int, channels: int) -> None:
        norm = self.config.norm
        down = _first(self.bands_in, channels, norm) + _down(channels, channels * 2, norm)
        up: list[nn.Module] = [ResidualBlock(channels * 2, norm) for _ in range(self.config.enhancer_blocks)]
        up += _up(channels * 2, channels, norm)
        if n == self.local_enhancers:
            up += _last(channels, self.bands_out)
        # The published parameter names: model1_1, model1_2, ...
        self.add_module(f"model{n}_1", nn.Sequential(*down))
        self.add_module(f"model{n}_2", nn.Sequential(*up))

    def ends(self) -> tuple[list[nn.Module], nn.Module]:
        """The convolutions that read the source's bands, and the one that writes the target's."""
        first = [self.model[1]] + [
            getattr(self, f"model{n}_1")[1] for n in range(1, self.local_enhancers + 1)
        ]
        body = getattr(self, f"model{self.local_enhancers}_2") if self.local_enhancers else self.model
        return first, body[-2]

    def forward(self, x: Tensor) -> Tensor:
        """`N,bands_in,H,W` to `N,bands_out,H,W`, both in [-1,1]."""
        height, width = x.shape[-2:]
        pyramid = [self.padded(x)]
        for _ in range(self.local_enhancers):
            pyramid.append(halved(pyramid[-1]))
        out = self._run("model", pyramid[-1])
        for n in range(1, self.local_enhancers + 1):
            finer = pyramid[self.local_enhancers - n]
            out = self._run(f"model{n}_2", self._run(f"model{n}_1", finer) + out)
        return out[..., :height, :width]

    def padded(self, x: Tensor) -> Tensor:
        """`x` padded on the right and below to sides that the network supports."""
        height, width = x.shape[-2:]
        return _reflected(_reflected(x, -1, self._side_px(width)), -2, self._side_px(height))

    def enhancer(self, n: int, half: Literal[1, 2]) -> nn.Sequential:
        """The layers of enhancer `n` (from 1) before (1) or after (2) the sum with the coarser features."""
        layers: nn.Sequential = getattr(self, f"model{n}_{half}")
        return layers

    def _side_px(self, side_px: int) -> int:
        """The next side that the network supports."""
        return max(self.least_px, -(-side_px // self.multiple) * self.multiple)

    def _run(self, name: str, x: Tensor) -> Tensor:
        layers: nn.Sequential = getattr(self, name)
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint_sequential(layers, x)
        out: Tensor = layers(x)
        return out


def _reflected(x: Tensor, dim: Literal[-1, -2], side_px: int) -> Tensor:
    """`x` padded by reflection at the end of `dim` to `side_px`, back and forth where that is far."""
    while (missing := side_px - x.shape[dim]) > 0:
        step = min(missing, max(1, x.shape[dim] - 1))
        mode = "reflect" if x.shape[dim] > 1 else "replicate"  # one pixel has nothing to reflect
        x = F.pad(x, (0, step, 0, 0) if dim == -1 else (0, 0, 0, step), mode=mode)
    return x


def halved(x: Tensor) -> Tensor:
    """Half the size, by averages of 3 x 3 pixels; those outside do not count."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


class Discriminator(nn.Module):
    """Patch discriminators at several scales over source and target stacked, with all their features.

    Args:
        return_features: false returns only the logits of each scale, under the parameter names that the
            published code then has (its `getIntermFeat` off, for training without feature matching).
        sigmoid: end in a sigmoid (its `use_sigmoid`, which has no effect together with features).
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        bands_in: int,
        *,
        return_features: bool = True,
        sigmoid: bool = False,
    ):
        super().__init__()
        assert not (return_features and sigmoid)
        self.config, self.bands_in = config, bands_in
        self.return_features, self.sigmoid = return_features, sigmoid
        for scale in range(config.scales):
            if return_features:
                for layer, block in enumerate(self._blocks()):
                    self.add_module(f"scale{scale}_layer{layer}", block)
            else:
                layers = [layer for block in self._blocks() for layer in block]
                self.add_module(f"layer{scale}", nn.Sequential(*layers, *[nn.Sigmoid()] * sigmoid))

    def _blocks(self) -> list[nn.Sequential]:
        config = self.config
        # Only the doubled widths stop at 512, not the first.
        widths = [config.channels]
        for _ in range(config.layers):
            widths.append(min(widths[-1] * 2, 512))
        blocks = [nn.Sequential(_patch_conv(self.bands_in, widths[0], stride=2), nn.LeakyReLU(0.2))]
        for i in range(1, config.layers + 1):
            conv = _patch_conv(widths[i - 1], widths[i], stride=2 if i < config.layers else 1)
            blocks.append(nn.Sequential(conv, norm_layer(config.norm, widths[i]), nn.LeakyReLU(0.2)))
        return [*blocks, nn.Sequential(_patch_conv(widths[-1], 1, stride=1))]

    def first_convolutions(self) -> list[nn.Module]:
        """The convolutions that read source and target, one per scale."""
        name = "scale{}_layer0" if self.return_features else "layer{}"
        return [getattr(self, name.format(scale))[0] for scale in range(self.config.scales)]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """`N,bands_in,H,W` to features: one list per scale, the full size first; its last is the logits."""
        results: list[list[Tensor]] = []
        # In the published code, the discriminator with the highest number has the full size.
        for scale in reversed(range(self.config.scales)):
            if self.return_features:
                features = [x]
                for layer in range(self.config.layers + 2):
                    features.append(getattr(self, f"scale{scale}_layer{layer}")(features[-1]))
                results.append(features[1:])
            else:
                results.append([getattr(self, f"layer{scale}")(x)])
            if scale:
                x = halved(x)
        return results


def _patch_conv(bands_in: int, bands_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(bands_in, bands_out, 4, stride=stride, padding=2)


def stacked(source: Tensor, image: Tensor) -> Tensor:
    """The discriminator's input: source and image stacked, `N,Cs+Ct,H,W`."""
    return torch.cat([source, image], dim=1)
