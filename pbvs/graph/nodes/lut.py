"""A free table from channel sums to levels: what grayscale and a factor are the straight case of.

Not in the winning solution; `pbvs calibrate` fits it to show what a factor leaves on the table.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pbvs.core.pixels import WHITE
from pbvs.graph.node import NodeContext, NodeKind, Operator, Params
from pbvs.graph.nodes.channel_sums import N_SUMS


class LutParams(Params):
    """`values[s]` is the level, 0 to 255, of pixels whose three bands add up to `s`."""

    values: tuple[Annotated[float, Field(ge=0, le=WHITE)], ...] = Field(min_length=N_SUMS, max_length=N_SUMS)


def _prepare(params: LutParams, around: NodeContext) -> Operator:
    values = torch.tensor(params.values, dtype=torch.float64)

    def operator(images: list[Tensor]) -> Tensor:
        sums = images[0].sum(dim=1, keepdim=True).round().long().clamp(0, N_SUMS - 1)
        return values.to(sums.device)[sums]

    return operator


def _three_to_one(params: LutParams, bands: list[int], target: int) -> int:
    if bands[0] != 3:
        raise ValueError(f"a tone table takes a 3-band image, its input has {bands[0]}")
    return 1


LUT = NodeKind(LutParams, (1, 1), _three_to_one, _prepare, reads="sum")
