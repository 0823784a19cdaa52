"""Pix2PixHD in a task file. Needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pbvs.core.config import Config
from pbvs.networks import NormName
from pbvs.systems.config import TrainedConfig


class GeneratorConfig(Config):
    """The generator's shape; the defaults are the published ones."""

    kind: Literal["global", "local"] = "global"
    channels: int = Field(default=64, ge=1, description="of the first layer (ngf)")
    n_downsample: int = Field(default=4, ge=0, description="halvings of the global generator")
    blocks: int = Field(default=9, ge=0, description="residual blocks of the global generator")
    local_enhancers: int = Field(default=1, ge=1, description="each doubles the size; for kind local")
    enhancer_blocks: int = Field(default=3, ge=0, description="residual blocks of each local enhancer")
    norm: NormName = "instance"


class DiscriminatorConfig(Config):
    """The discriminator's shape; the defaults are the published ones."""

    channels: int = Field(default=64, ge=1, description="of the first layer (ndf)")
    layers: int = Field(default=3, ge=1, description="strided layers of each scale")
    scales: int = Field(default=2, ge=1, description="discriminators, each at half the size of the last")
    norm: NormName = "instance"


class LossWeights(Config):
    """Weight of each term of the generator's loss; the defaults are the winning solution's."""

    gan: float = Field(default=1.0, ge=0, description="LSGAN on the discriminator's logits")
    feature_matching: float = Field(default=10.0, ge=0, description="the discriminator's features")
    vgg: float = Field(default=10.0, ge=0, description="features of VGG-19")
    lpips: float = Field(default=1.0, ge=0, description="LPIPS (VGG-16), as the score has it")
    l2: float = Field(default=1.0, ge=0, description="root mean square error in [0,1], as the score has it")
    l1: float = Field(default=0.0, ge=0, description="mean absolute error in [0,1], as the 2026 score has it")

    @property
    def adversarial(self) -> bool:
        """Whether any term needs the discriminator."""
        return self.gan > 0 or self.feature_matching > 0


class Pix2PixHDConfig(TrainedConfig):
    """Network, losses and schedule of one Pix2PixHD."""

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: LossWeights = LossWeights()
    pool_size: int = Field(default=0, ge=0, description="fake images kept for the discriminator; 0: no pool")
    fix_global_epochs: int = Field(
        default=0, ge=0, description="first epochs in which the outermost local enhancer is trained alone"
    )

    @model_validator(mode="after")
    def _agree(self) -> Pix2PixHDConfig:
        if self.fix_global_epochs and self.generator.kind != "local":
            raise ValueError('fix_global_epochs is for generator.kind = "local"')
        if self.pool_size and not self.losses.adversarial:
            raise ValueError("pool_size is for a discriminator; both of its losses are 0")
        if not any(self.losses.model_dump().values()):
            raise ValueError("every one of losses is 0: there is nothing to learn")
        return self


def pix2pixhd_metric_weights(config: Pix2PixHDConfig) -> set[str]:
    """The metrics' weight files that the losses need."""
    return {name for name, weight in (("vgg19", config.losses.vgg), ("vgg16", config.losses.lpips)) if weight}
