"""What training minimises is what the score counts."""

import numpy as np
import pytest
import torch

from pbvs.core import pixels
from pbvs.core.pixels import resize
from pbvs.score.scorer import Scorer
from pbvs.systems.pix2pixhd.config import LossWeights
from pbvs.systems.pix2pixhd.losses import GeneratorLoss


@pytest.mark.parametrize("bands", [1, 3])
def test_lpips_l1_and_l2_of_a_training_pair_are_those_of_its_score(bands):
    rng = np.random.default_rng(5)
    pairs = []
    for i in range(2):
        real = resize(rng.integers(0, 256, (8, 8, bands), dtype=np.uint8), (64, 64))
        noise = rng.normal(0, 15, real.shape)
        pairs.append((str(i), np.clip(np.rint(real + noise), 0, 255).astype(np.uint8), real))
    scored = Scorer("standin").score_pairs(pairs)

    weights = LossWeights(gan=0, feature_matching=0, vgg=0, lpips=1, l2=1, l1=1)
    fake, real = (
        torch.cat([pixels.normalize(pixels.float255_from_stored(pair[side])) for pair in pairs])
        for side in (1, 2)
    )
    fake.requires_grad_()  # as in training: LPIPS takes its other way through the layers
    losses = GeneratorLoss(weights, "standin").image(fake, real, torch.ones(2, 1, 64, 64, dtype=torch.bool))
    assert losses["lpips"].item() == pytest.approx(scored.lpips, abs=1e-6)
    assert losses["l2"].item() == pytest.approx(scored.l2, abs=1e-6)
    assert losses["l1"].item() == pytest.approx(scored.l1, abs=1e-6)
