"""Discriminator losses against values computed by hand."""

import pytest
import torch

from pbvs.losses.adversarial import feature_matching, least_squares_gan


def outputs(*logits):
    """Two features and the logits per scale, each constant."""
    return [
        [torch.full((1, 2, 3, 3), v + 1), torch.full((1, 4, 2, 2), v + 2), torch.full((1, 1, 2, 2), v)]
        for v in logits
    ]


def test_lsgan_sums_over_scales():
    assert least_squares_gan(outputs(0.5, 3.0), real=True).item() == pytest.approx(0.25 + 4.0)
    assert least_squares_gan(outputs(0.5, 3.0), real=False).item() == pytest.approx(0.25 + 9.0)


def test_feature_matching_weighs_layers_and_scales_and_leaves_the_logits_out():
    fake, real = outputs(1.0, 1.0), outputs(1.5, 3.0)
    real[0][-1] += 100  # the difference of the logits must not count
    # differences .5 and 2, two features per scale, each weighted 4 / 2 layers / 2 scales
    assert feature_matching(fake, real).item() == pytest.approx((0.5 + 0.5 + 2.0 + 2.0) * 2.0 / 2)


def test_the_real_image_takes_no_gradient():
    fake, real = outputs(1.0), outputs(2.0)
    for feature in fake[0] + real[0]:
        feature.requires_grad_()
    feature_matching(fake, real).backward()
    assert fake[0][0].grad.abs().sum() > 0
    assert real[0][0].grad is None
