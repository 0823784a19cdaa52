"""A free table from channel sums to values: grayscale and a factor are its straight case.

Not in the winning solution; `pbvs calibrate` fits it to show what a factor leaves behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pbvs.core.config import Config
from pbvs.core.pixels import WHITE
from pbvs.graph.node import NodeContext, NodeKind, Operator, at_task_size
from pbvs.graph.nodes.channel_sums import N_SUMS
from pbvs.graph.nodes.grayscale import three_to_one

if TYPE_CHECKING:
    from torch import Tensor


class LutParams(Config):
    """`values[s]` is the value, 0 to 255, of pixels whose three bands add up to `s`."""

    values: tuple[Annotated[float, Field(ge=0, le=WHITE)], ...] = Field(min_length=N_SUMS, max_length=N_SUMS)


def _prepare(params: LutParams, context: NodeContext) -> Operator:
    import torch

    values = torch.tensor(params.values, dtype=torch.float64)

    def look_up(images: list[Tensor]) -> Tensor:
        sums = images[0].sum(dim=1, keepdim=True).round().long().clamp(0, N_SUMS - 1)
        return values.to(sums.device)[sums]

    return at_task_size(look_up, context)


LUT = NodeKind(LutParams, (1, 1), three_to_one, _prepare, reads="sum")
