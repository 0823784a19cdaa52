"""One band as a linear mix of several: grayscale with a weight for each band of its own.

Not in the winning solution; `pbvs calibrate` fits it by least squares.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pbvs.core.pixels import WHITE
from pbvs.graph.node import NodeContext, NodeKind, Operator, Params


class ChannelMixParams(Params):
    """Level = offset + sum of weight times level over the input's bands, clipped to 0..255."""

    weights: tuple[float, ...] = Field(min_length=1)
    offset: float = 0.0


def channel_mix(levels: Tensor, weights: tuple[float, ...], offset: float) -> Tensor:
    """Levels `N,C,H,W` to `N,1,H,W`."""
    by_band = torch.tensor(weights, dtype=torch.float64, device=levels.device)
    mixed: Tensor = torch.tensordot(levels, by_band, dims=([1], [0])).unsqueeze(1)
    return (mixed + offset).clamp(0.0, WHITE)


def _prepare(params: ChannelMixParams, around: NodeContext) -> Operator:
    return lambda images: channel_mix(images[0], params.weights, params.offset)


def _to_one(params: ChannelMixParams, bands: list[int], target: int) -> int:
    if bands[0] != len(params.weights):
        raise ValueError(f"band_mix has {len(params.weights)} weights, its input has {bands[0]} band(s)")
    return 1


CHANNEL_MIX = NodeKind(ChannelMixParams, (1, 1), _to_one, _prepare)
