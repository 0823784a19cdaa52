"""Gradient checkpointing: the backward pass recomputes activations instead of storing them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pbvs.networks.layers import FrozenBatchNormStats, ResidualBlock, has_batch_norm

# A new piece begins with each of these, except with a convolution after its padding.
_STARTS = (nn.Conv2d, nn.ConvTranspose2d, nn.ReflectionPad2d, ResidualBlock)


def checkpoint_sequential(layers: nn.Sequential, x: Tensor) -> Tensor:
    """`layers(x)`, storing only what passes between its pieces: one convolution or residual block each.

    The recomputation repeats the same operations on the same numbers, so the gradients are the same; the
    running statistics of batch norms count each batch once.
    """
    for piece in pieces(layers):
        # The networks draw no random numbers, so no random state is stored.
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        # Compiled code supports no contexts and needs none: it writes the statistics once, after the pass.
        if has_batch_norm(piece) and not torch.compiler.is_compiling():
            options["context_fn"] = lambda piece=piece: (nullcontext(), FrozenBatchNormStats(piece))
        x = checkpoint(piece, x, **options)
    return x


def pieces(layers: nn.Sequential) -> list[nn.Sequential]:
    """`layers` cut before each convolution, or its padding, and each block; the modules are shared."""
    cuts = [
        i
        for i in range(1, len(layers))
        if isinstance(layers[i], _STARTS) and not isinstance(layers[i - 1], nn.ReflectionPad2d)
    ]
    return [layers[a:b] for a, b in zip([0, *cuts], [*cuts, len(layers)], strict=True)]
