"""Equation 6 of the winning solution: the loss of pix2pixHD, plus LPIPS, plus L2.

Each term has a name, a weight in the task file and a curve of its own; a weight of 0 leaves a term
out, and its network is then not loaded.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pbvs.core import pixels
from pbvs.losses.adversarial import Features, feature_matching, least_squares_gan
from pbvs.perceptual.lpips import PerceptualDistance
from pbvs.perceptual.metric_weights import WeightsKind
from pbvs.perceptual.pixel_errors import l1, l2
from pbvs.perceptual.vgg import VggDistance


class LossWeights(BaseModel):
    """Weight of each term of the generator's loss; the defaults are the winning solution's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gan: float = Field(default=1.0, ge=0, description="LSGAN, the discriminator's verdict")
    feature_matching: float = Field(default=10.0, ge=0, description="the discriminator's features")
    vgg: float = Field(default=10.0, ge=0, description="features of VGG-19")
    lpips: float = Field(default=1.0, ge=0, description="LPIPS (VGG-16), as the score has it")
    l2: float = Field(default=1.0, ge=0, description="root mean square error in [0,1], as the score has it")
    l1: float = Field(default=0.0, ge=0, description="mean absolute error in [0,1], as the 2026 score has it")

    @property
    def adversarial(self) -> bool:
        """Whether any term needs the discriminator."""
        return self.gan > 0 or self.feature_matching > 0


class GeneratorLoss(nn.Module):
    """The terms of the generator's loss for one batch.

    Raises:
        WeightsError: a term's network has no weights of this kind.
    """

    def __init__(self, weights: LossWeights, metric_weights: WeightsKind):
        super().__init__()
        self.weights = weights
        self.vgg = VggDistance(metric_weights) if weights.vgg else None
        self.lpips = PerceptualDistance(metric_weights, check_range=False) if weights.lpips else None

    def image_terms(self, made: Tensor, real: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Weighted terms that need only the images.

        Args:
            made, real: `N,C,H,W` in [-1,1]; `made` equals `real` where the mask is false.
            mask: `N,1,H,W` bool, true where the pixel counts.
        """
        losses: dict[str, Tensor] = {}
        if self.vgg is not None:
            losses["vgg"] = self.weights.vgg * self.vgg(made, real)
        if self.lpips is not None:
            losses["lpips"] = self.weights.lpips * self.lpips(made, real).mean()
        unit_made, unit_real = pixels.unit_from_model(made), pixels.unit_from_model(real)
        if self.weights.l2:
            losses["l2"] = self.weights.l2 * l2(unit_made, unit_real, mask).mean()
        if self.weights.l1:
            losses["l1"] = self.weights.l1 * l1(unit_made, unit_real, mask).mean()
        return losses

    def adversarial_terms(self, made: Features, real: Features) -> dict[str, Tensor]:
        """Weighted terms from the discriminator's results on the made and the real image."""
        losses: dict[str, Tensor] = {}
        if self.weights.gan:
            losses["gan"] = self.weights.gan * least_squares_gan(made, real=True)
        if self.weights.feature_matching:
            losses["feature_matching"] = self.weights.feature_matching * feature_matching(made, real)
        return losses


def discriminator_terms(made: Features, real: Features) -> dict[str, Tensor]:
    """Half the LSGAN loss on real and on made images, as pix2pixHD trains its discriminator."""
    return {
        "d_real": 0.5 * least_squares_gan(real, real=True),
        "d_made": 0.5 * least_squares_gan(made, real=False),
    }
