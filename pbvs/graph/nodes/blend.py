"""Several images as one: their weighted mean, so that a graph may join translators."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pbvs.graph.node import NodeContext, NodeKind, Operator, Params


class BlendParams(Params):
    """Weights of the inputs, relative to each other, in their order; none: all alike."""

    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None


def _prepare(params: BlendParams, around: NodeContext) -> Operator:
    def operator(images: list[Tensor]) -> Tensor:
        weights = params.weights or (1.0,) * len(images)
        parts = [image * (weight / sum(weights)) for image, weight in zip(images, weights, strict=True)]
        return sum(parts[1:], parts[0])

    return operator


def _same_bands(params: BlendParams, bands: list[int], target: int) -> int:
    if len(set(bands)) > 1:
        raise ValueError(f"a blend is of images with the same bands, its inputs have {bands}")
    if params.weights is not None and (len(params.weights) != len(bands) or not sum(params.weights)):
        raise ValueError(f"{len(bands)} inputs want as many weights, not all 0: {params.weights}")
    return bands[0]


BLEND = NodeKind(BlendParams, (2, 16), _same_bands, _prepare)
