"""The two losses that come from the discriminator: its verdict and its features.

Formulas of NVIDIA/pix2pixHD `models/networks.py` (GANLoss) and `models/pix2pixHD_model.py` (BSD licence).
Results are the discriminator's: one list of features a scale, the last of each the verdict.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Features = list[list[Tensor]]


def least_squares_gan(results: Features, real: bool) -> Tensor:
    """LSGAN: mean((verdict - label)^2), summed over the scales; label 1 for real, 0 for made. Scalar."""
    label = 1.0 if real else 0.0
    return torch.stack([F.mse_loss(f[-1], torch.full_like(f[-1], label)) for f in results]).sum()


def feature_matching(made: Features, real: Features) -> Tensor:
    """Mean absolute difference of every feature but the verdict, weighted as published. Scalar.

    A scale counts 1 / scales, a layer 4 / (strided layers + 1); `real` takes no gradient.
    """
    total = made[0][0].new_zeros(())
    for made_scale, real_scale in zip(made, real, strict=True):
        layer_weight = 4.0 / (len(made_scale) - 1)
        for a, b in zip(made_scale[:-1], real_scale[:-1], strict=True):
            total = total + F.l1_loss(a, b.detach()) * layer_weight / len(made)
    return total
