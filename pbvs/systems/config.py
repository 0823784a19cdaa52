"""What the task file of any trained node may say, whatever its system. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pbvs.core.config import Config
from pbvs.dataset.views import View
from pbvs.training.schedule import TrainingConfig


def _height_and_width(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


SizePx = Annotated[
    tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]], BeforeValidator(_height_and_width)
]

BandRule = Literal["mean", "repeat"]
"""How the bands of trained weights become the bands of a new network.

`mean`: every new band is the mean of the old ones. `repeat`: the old bands in turn, so that three become
R, G, B, R; where there are fewer new ones, those that come to the same place are combined.
"""


class InitFrom(Config):
    """Where a node's weights begin: at the trained node of a task, or at files of the published code."""

    task: str | None = Field(default=None, description="trained before, by `pbvs train`")
    node: str | None = Field(default=None, description="of that task; none: the node of the same name")
    official: Path | None = Field(
        default=None, description="a file of the published code; those that belong to it are found beside it"
    )
    bands: BandRule = Field(
        default="mean", description="how the old bands become new ones, see pbvs.systems.config.BandRule"
    )

    @model_validator(mode="after")
    def _one(self) -> InitFrom:
        if (self.task is None) == (self.official is None) or (self.official is not None and self.node):
            raise ValueError("give either task (and node), or official")
        return self


class InferenceConfig(Config):
    """How a trained network is used; has no part in its training.

    Attributes:
        checkpoints: whose images are averaged: `best`, `last`, or weights files of this node; `:plain` behind
            one takes the network itself in place of its moving average.
        weights: of the checkpoints in the average, relative to each other; none: all alike.
        tta: test-time augmentation: how many orientations of each image are translated, undone and averaged.
            2: also mirrored left to right; 4: also up-down; 8: also transposed.
    """

    checkpoints: tuple[str, ...] = Field(default=("best",), min_length=1)
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    tta: Literal[1, 2, 4, 8] = 1

    @model_validator(mode="after")
    def _fit(self) -> InferenceConfig:
        if self.weights is not None and len(self.weights) != len(self.checkpoints):
            raise ValueError(f"{len(self.checkpoints)} checkpoints have {len(self.weights)} weights")
        if self.weights is not None and not sum(self.weights):
            raise ValueError("every one of weights is 0")
        return self


class TrainedConfig(Config):
    """Settings of a trained node; each system's config adds its own.

    `size_px` (height, width; one number for a square) is the size of the image that the node gives while
    training; what it reads is smaller by the system's scale. None is the task's own size.
    """

    size_px: SizePx | None = None
    views: dict[str, View] = Field(default={}, description="in place of the system's own, by name")
    paired: bool = Field(default=True, description="whether source and target show one location")
    training: TrainingConfig
    init_from: InitFrom | None = None
    inference: InferenceConfig = InferenceConfig()

    def of_training(self) -> dict[str, Any]:
        """All that decides the trained weights, JSON-like."""
        return self.model_dump(mode="json", exclude={"inference"})
