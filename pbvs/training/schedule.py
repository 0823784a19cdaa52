"""How long, how fast and how often: the training settings of a task file. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pbvs.core.config import Config
from pbvs.core.errors import did_you_mean

Decay = Literal["constant", "linear", "linear_by_epoch"]
Rate = Annotated[float, Field(gt=0)]


class Stage(Config):
    """Some epochs at one learning rate per phase, held or falling to zero.

    Decays: `linear` falls with every image. `linear_by_epoch` is held within an epoch, and each of n epochs
    is 1/n of the stage's rate lower than the one before, as in NVIDIA/pix2pixHD (`update_learning_rate`,
    BSD licence): its 100 + 100 are a stage of 100 epochs constant and one of 100 so. Both begin every epoch
    at the same rate; at the end of the stage the first has come to 0, the second is still at 1/n.
    """

    name: str = Field(default="main", description="by which the system knows what this stage trains")
    epochs: int = Field(ge=1)
    learning_rate: Rate | dict[str, Rate] = Field(description="of all phases, or by phase")
    decay: Decay = "constant"

    def factor(self, images: int, images_per_epoch: int) -> float:
        """The fraction of the learning rate in force after `images` images of the stage."""
        if self.decay == "constant":
            return 1.0
        epochs_done = images / images_per_epoch if self.decay == "linear" else images // images_per_epoch
        return max(0.0, 1.0 - epochs_done / self.epochs)


class OptimizerConfig(Config):
    """Adam of one phase, where it differs from the others."""

    betas: tuple[float, float] | None = Field(default=None, description="none: those of the training")


class TrainingConfig(Config):
    """The schedule and the batches; Adam's numbers are pix2pixHD's."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    batch_size: int = Field(default=1, ge=1, description="images per step, over all devices and parts")
    accumulate: int = Field(
        default=1, ge=1, description="parts that a step's images are taken in, for memory"
    )
    betas: tuple[float, float] = (0.5, 0.999)
    optimizers: dict[str, OptimizerConfig] = Field(default={}, description="by phase, what differs there")
    clip_norm: float | None = Field(
        default=None, gt=0, description="longest gradient of each phase; none: not limited"
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="moving average of the translating networks, validated and used in their place: the part "
        "kept with each image (0.999 halves in 693 images); none: no average",
    )
    crop_px: int | None = Field(
        default=None, ge=32, description="side of random crops; none: the whole image"
    )
    flips: bool = Field(default=True, description="random flips and quarter turns, alike on both images")
    checkpoint_every_images: int = Field(default=20_000, ge=1)
    validate_every_epochs: int = Field(default=1, ge=1)
    validate_every_images: int | None = Field(default=None, ge=1, description="none: by epochs")
    patience: int | None = Field(
        default=None, ge=1, description="validations without a better score that end the run; none: no end"
    )
    activation_checkpointing: bool = Field(
        default=False, description="recompute activations instead of storing them: less memory"
    )
    channels_last: bool = Field(default=False, description="networks in this memory format")
    compile: bool = Field(default=False, description="networks through torch.compile")
    seed: int = Field(default=0, ge=0)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def betas_of(self, phase: str) -> tuple[float, float]:
        """Adam's betas of one phase's optimiser."""
        own = self.optimizers.get(phase)
        return self.betas if own is None or own.betas is None else own.betas

    def stage_at(self, images_seen: int, images_per_epoch: int) -> tuple[Stage, int]:
        """The stage after `images_seen` images, and how many of these belong to it; at the end, the last."""
        start = 0
        for stage in self.stages:
            images = stage.epochs * images_per_epoch
            if images_seen < start + images or stage is self.stages[-1]:
                return stage, min(images_seen - start, images)
            start += images
        raise AssertionError("a schedule has at least one stage")

    def learning_rates(
        self, images_seen: int, images_per_epoch: int, phases: Sequence[str]
    ) -> dict[str, float]:
        """The learning rate of each phase after `images_seen` images; beyond the last stage as at its end."""
        stage, images = self.stage_at(images_seen, images_per_epoch)
        factor, rate = stage.factor(images, images_per_epoch), stage.learning_rate
        return {p: factor * (rate if isinstance(rate, float) else rate[p]) for p in phases}

    def validation_images(self, images_per_epoch: int) -> int:
        """After how many images each validation comes."""
        return self.validate_every_images or self.validate_every_epochs * images_per_epoch

    def check_phases(self, phases: Sequence[str]) -> None:
        """Raises ValueError where a setting names a phase that is not among `phases`, or leaves one out."""
        for phase in self.optimizers:
            if phase not in phases:
                raise ValueError(f"training.optimizers: no phase {phase!r}; {did_you_mean(phase, [*phases])}")
        for stage in self.stages:
            if isinstance(stage.learning_rate, dict) and set(stage.learning_rate) != set(phases):
                raise ValueError(
                    f"training.stages ({stage.name}): learning_rate has {', '.join(stage.learning_rate)}; "
                    f"the phases are {', '.join(phases)}"
                )

    @model_validator(mode="after")
    def _divides(self) -> TrainingConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(f"a batch of {self.batch_size} does not divide into {self.accumulate} parts")
        return self
