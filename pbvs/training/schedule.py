"""How long, how fast and how often: the training settings of a task file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Decay = Literal["constant", "linear", "linear_by_epoch"]


class Stage(BaseModel):
    """Some epochs at one learning rate, held or falling to zero.

    Decays: `linear` falls with every image. `linear_by_epoch` is held within an epoch, and each of n epochs
    is 1/n of the stage's rate lower than the one before, as in NVIDIA/pix2pixHD (`update_learning_rate`,
    BSD licence): its 100 + 100 are a stage of 100 epochs constant and one of 100 so. Both begin every epoch
    at the same rate; at the end of the stage the first has come to 0, the second is still at 1/n.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    decay: Decay = "constant"

    def rate(self, images: int, images_per_epoch: int) -> float:
        """The learning rate after `images` images of the stage."""
        if self.decay == "constant":
            return self.learning_rate
        epochs_done = images / images_per_epoch if self.decay == "linear" else images // images_per_epoch
        return self.learning_rate * max(0.0, 1.0 - epochs_done / self.epochs)


class TrainingConfig(BaseModel):
    """The schedule and the batches; Adam's numbers are pix2pixHD's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[Stage, ...] = Field(min_length=1)
    batch_size: int = Field(default=1, ge=1, description="images a step, over all devices and parts")
    accumulate: int = Field(
        default=1, ge=1, description="parts that a step's images are taken in, for memory"
    )
    betas: tuple[float, float] = (0.5, 0.999)
    clip_norm: float | None = Field(
        default=None, gt=0, description="longest gradient of each network; none: not limited"
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="moving average of the generator, validated and used in its place: the part kept with "
        "each image (0.999 halves in 693 images); none: no average",
    )
    pool_size: int = Field(default=0, ge=0, description="images kept for the discriminator; 0: no pool")
    fix_global_epochs: int = Field(
        default=0, ge=0, description="first epochs in which the outermost local enhancer is trained alone"
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
    checkpointing: bool = Field(
        default=False, description="compute activations twice in place of keeping them: less memory"
    )
    channels_last: bool = Field(default=False, description="networks in this memory format")
    compile: bool = Field(default=False, description="networks through torch.compile")
    seed: int = Field(default=0, ge=0)

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def learning_rate(self, images_seen: int, images_per_epoch: int) -> float:
        """The learning rate after `images_seen` images; beyond the last stage as at its end."""
        start = 0
        for stage in self.stages:
            images = stage.epochs * images_per_epoch
            if images_seen < start + images or stage is self.stages[-1]:
                return stage.rate(min(images_seen - start, images), images_per_epoch)
            start += images
        raise AssertionError("a schedule has at least one stage")

    def validation_images(self, images_per_epoch: int) -> int:
        """After how many images each validation comes."""
        return self.validate_every_images or self.validate_every_epochs * images_per_epoch

    @model_validator(mode="after")
    def _divides(self) -> TrainingConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(f"a batch of {self.batch_size} does not divide into {self.accumulate} parts")
        return self
