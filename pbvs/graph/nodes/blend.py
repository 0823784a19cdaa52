"""Several images as one: their weighted mean, so that a graph may join translators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pbvs.core.config import Config
from pbvs.graph.node import NodeContext, NodeKind, Operator, at_task_size

if TYPE_CHECKING:
    from torch import Tensor


class BlendParams(Config):
    """Weights of the inputs, relative to each other, in their order; none: all alike."""

    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None


def _prepare(params: BlendParams, context: NodeContext) -> Operator:
    def mean(images: list[Tensor]) -> Tensor:
        weights = params.weights or (1.0,) * len(images)
        parts = [image * (weight / sum(weights)) for image, weight in zip(images, weights, strict=True)]
        return sum(parts[1:], parts[0])

    return at_task_size(mean, context)


def _same_bands(params: BlendParams, bands: list[int]) -> int:
    if len(set(bands)) > 1:
        raise ValueError(f"a blend is of images with the same bands, its inputs have {bands}")
    if params.weights is not None and (len(params.weights) != len(bands) or not sum(params.weights)):
        raise ValueError(f"{len(bands)} inputs need as many weights, not all 0: {params.weights}")
    return bands[0]


BLEND = NodeKind(BlendParams, (2, 16), _same_bands, _prepare)
