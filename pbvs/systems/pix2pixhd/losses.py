"""Equation 6 of the winning solution: the loss of pix2pixHD, plus LPIPS, plus L2.

Each term has a name, a weight in the task file and its own curve; a weight of 0 leaves the term out, and
its network is then not loaded.
"""

from __future__ import annotations

from torch import Tensor, nn

from pbvs.core import pixels
from pbvs.losses.adversarial import Features, feature_matching, least_squares_gan
from pbvs.perceptual.lpips import PerceptualDistance
from pbvs.perceptual.metric_weights import WeightsKind
from pbvs.perceptual.pixel_errors import l1, l2
from pbvs.perceptual.vgg import VggDistance
from pbvs.systems.pix2pixhd.config import LossWeights


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

    def image(self, fake: Tensor, real: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Weighted terms that need only the images, each a scalar.

        Args:
            fake, real: `N,C,H,W` in [-1,1]; `fake` equals `real` where the mask is false.
            mask: `N,1,H,W` bool, true where the pixel counts.
        """
        losses: dict[str, Tensor] = {}
        if self.vgg is not None:
            losses["vgg"] = self.weights.vgg * self.vgg(fake, real)
        if self.lpips is not None:
            losses["lpips"] = self.weights.lpips * self.lpips(fake, real).mean()
        unit_fake, unit_real = pixels.unit_from_model(fake), pixels.unit_from_model(real)
        if self.weights.l2:
            losses["l2"] = self.weights.l2 * l2(unit_fake, unit_real, mask).mean()
        if self.weights.l1:
            losses["l1"] = self.weights.l1 * l1(unit_fake, unit_real, mask).mean()
        return losses

    def adversarial(self, fake: Features, real: Features) -> dict[str, Tensor]:
        """Weighted terms from the discriminator's features of the fake and the real image."""
        losses: dict[str, Tensor] = {}
        if self.weights.gan:
            losses["gan"] = self.weights.gan * least_squares_gan(fake, real=True)
        if self.weights.feature_matching:
            losses["feature_matching"] = self.weights.feature_matching * feature_matching(fake, real)
        return losses


def discriminator_losses(fake: Features, real: Features) -> dict[str, Tensor]:
    """Half the LSGAN loss on real and on fake images, as pix2pixHD trains its discriminator."""
    return {
        "d_real": 0.5 * least_squares_gan(real, real=True),
        "d_fake": 0.5 * least_squares_gan(fake, real=False),
    }
