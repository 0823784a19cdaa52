"""Grayscale redefinition: the winning solution's two steps from colour to infrared (its 3.4 and 3.5).

Neither rounds: the image is rounded once, when it is written, half to even. A chain of both therefore
gives rint(clip(factor * mean(R, G, B), 0, 255)) in float64.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pbvs.core.pixels import WHITE
from pbvs.graph.node import NodeContext, NodeKind, Operator, Params


class GrayscaleParams(Params):
    """Nothing to set."""


class IntensityParams(Params):
    """The factor; the winning solution has 1.3 for RGB2IR and 1.15 for SAR2IR."""

    factor: float = Field(gt=0)


def grayscale(levels: Tensor) -> Tensor:
    """The mean over the bands of the difference from black: levels `N,C,H,W` to `N,1,H,W`."""
    return levels.sum(dim=1, keepdim=True) / levels.shape[1]


def intensity(levels: Tensor, factor: float) -> Tensor:
    """Levels times `factor`, clipped to [0,255]; the same shape."""
    return (levels * factor).clamp(0.0, WHITE)


def _prepare_grayscale(params: GrayscaleParams, around: NodeContext) -> Operator:
    return lambda images: grayscale(images[0])


def _prepare_intensity(params: IntensityParams, around: NodeContext) -> Operator:
    return lambda images: intensity(images[0], params.factor)


def _three_to_one(params: Params, bands: list[int], target: int) -> int:
    if bands[0] != 3:
        raise ValueError(f"grayscale takes a 3-band image, its input has {bands[0]}")
    return 1


GRAYSCALE = NodeKind(GrayscaleParams, (1, 1), _three_to_one, _prepare_grayscale, reads="sum")
INTENSITY = NodeKind(
    IntensityParams, (1, 1), lambda params, bands, target: bands[0], _prepare_intensity, reads="pixel"
)
