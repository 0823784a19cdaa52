"""Grayscale redefinition: the winning solution's two steps from colour to infrared (its 3.4 and 3.5).

Neither rounds: the image is rounded once, when it is written, half to even. A chain of both therefore
gives rint(clip(factor * mean(R, G, B), 0, 255)) in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pbvs.core.config import Config
from pbvs.core.pixels import WHITE
from pbvs.graph.node import NodeKind, at_task_size

if TYPE_CHECKING:
    from torch import Tensor


class GrayscaleParams(Config):
    """Nothing to set."""


class IntensityParams(Config):
    """The factor; the winning solution has 1.3 for RGB2IR and 1.15 for SAR2IR."""

    factor: float = Field(gt=0)


def grayscale(images: Tensor) -> Tensor:
    """The mean over the bands: float255 `N,C,H,W` to `N,1,H,W`."""
    return images.sum(dim=1, keepdim=True) / images.shape[1]


def intensity(images: Tensor, factor: float) -> Tensor:
    """float255 times `factor`, clipped to [0,255]; the same shape."""
    return (images * factor).clamp(0.0, WHITE)


def three_to_one(params: Config, bands: list[int]) -> int:
    """One band from three, for `NodeKind.bands`."""
    if bands[0] != 3:
        raise ValueError(f"it takes a 3-band image, its input has {bands[0]}")
    return 1


GRAYSCALE = NodeKind(
    GrayscaleParams,
    (1, 1),
    three_to_one,
    lambda params, context: at_task_size(lambda images: grayscale(images[0]), context),
    reads="sum",
)
INTENSITY = NodeKind(
    IntensityParams,
    (1, 1),
    lambda params, bands: bands[0],
    lambda params, context: at_task_size(lambda images: intensity(images[0], params.factor), context),
    reads="pixel",
)
