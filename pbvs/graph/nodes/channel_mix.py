"""One band as a linear mix of several: grayscale with a weight for each band of its own.

Not in the winning solution; `pbvs calibrate` fits it by least squares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pbvs.core.config import Config
from pbvs.core.pixels import WHITE
from pbvs.graph.node import NodeContext, NodeKind, Operator, at_task_size

if TYPE_CHECKING:
    from torch import Tensor


class ChannelMixParams(Config):
    """Value = offset + sum of weight times value over the input's bands, clipped to 0..255."""

    weights: tuple[float, ...] = Field(min_length=1)
    offset: float = 0.0


def channel_mix(images: Tensor, weights: tuple[float, ...], offset: float) -> Tensor:
    """float255 `N,C,H,W` to `N,1,H,W`."""
    import torch

    by_band = torch.tensor(weights, dtype=torch.float64, device=images.device)
    mixed: Tensor = torch.tensordot(images, by_band, dims=([1], [0])).unsqueeze(1)
    return (mixed + offset).clamp(0.0, WHITE)


def _prepare(params: ChannelMixParams, context: NodeContext) -> Operator:
    return at_task_size(lambda images: channel_mix(images[0], params.weights, params.offset), context)


def _to_one(params: ChannelMixParams, bands: list[int]) -> int:
    if bands[0] != len(params.weights):
        raise ValueError(f"channel_mix has {len(params.weights)} weights, its input has {bands[0]} band(s)")
    return 1


CHANNEL_MIX = NodeKind(ChannelMixParams, (1, 1), _to_one, _prepare)
