"""The two losses of the discriminator's output: its logits and its features.

Formulas of NVIDIA/pix2pixHD `models/networks.py` (GANLoss) and `models/pix2pixHD_model.py` (BSD licence).
Each discriminator output is one list of features per scale; the last of each list is the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Features = list[list[Tensor]]


def least_squares_gan(outputs: Features, real: bool) -> Tensor:
    """LSGAN: mean((logits - label)^2), summed over the scales; label 1 for real, 0 for fake. Scalar."""
    label = 1.0 if real else 0.0
    return torch.stack([F.mse_loss(f[-1], torch.full_like(f[-1], label)) for f in outputs]).sum()


def feature_matching(fake: Features, real: Features) -> Tensor:
    """Mean absolute difference of every feature except the logits, weighted as published. Scalar.

    Each scale has the weight 1 / scales, each layer 4 / (strided layers + 1); `real` takes no gradient.
    """
    total = fake[0][0].new_zeros(())
    for fake_scale, real_scale in zip(fake, real, strict=True):
        layer_weight = 4.0 / (len(fake_scale) - 1)
        for a, b in zip(fake_scale[:-1], real_scale[:-1], strict=True):
            total = total + F.l1_loss(a, b.detach()) * layer_weight / len(fake)
    return total
