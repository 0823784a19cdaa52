"""How long, how fast and how often: the training settings of a task file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Stage(BaseModel):
    """Some epochs at one learning rate, held or falling linearly to zero."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    decay: Literal["constant", "linear"] = "constant"


class TrainingConfig(BaseModel):
    """The schedule and the batches; Adam's numbers are pix2pixHD's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[Stage, ...] = Field(min_length=1)
    batch_size: int = Field(default=1, ge=1, description="images a step, over all devices")
    betas: tuple[float, float] = (0.5, 0.999)
    crop_px: int | None = Field(
        default=None, ge=32, description="side of random crops; none: the whole image"
    )
    flips: bool = Field(default=True, description="random flips and quarter turns, alike on both images")
    checkpoint_every_images: int = Field(default=20_000, ge=1)
    validate_every_epochs: int = Field(default=1, ge=1)
    seed: int = 0

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def learning_rate(self, images_seen: int, images_per_epoch: int) -> float:
        """The learning rate after `images_seen` images: constant in a stage, or falling by the image."""
        start = 0
        for stage in self.stages:
            images = stage.epochs * images_per_epoch
            if images_seen < start + images or stage is self.stages[-1]:
                if stage.decay == "constant":
                    return stage.learning_rate
                left = max(0.0, 1.0 - (images_seen - start) / images)
                return stage.learning_rate * left
            start += images
        raise AssertionError("a schedule has at least one stage")
