"""The VGG-19 loss against torchvision's own network cut by hand at the published layers."""

import pytest
import torch
from torchvision.models import vgg19

from pbvs.perceptual.metric_weights import load_metric_weights
from pbvs.perceptual.vgg import VggDistance

# relu1_1 ... relu5_1 end these slices of torchvision's features (pix2pixHD, models/networks.py, Vgg19).
SLICES = ((0, 2), (2, 7), (7, 12), (12, 21), (21, 30))
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


@pytest.fixture(scope="module")
def distance():
    return VggDistance("standin")


def images(bands, seed):
    return torch.rand(2, bands, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_equals_the_weighted_features_cut_by_hand(distance):
    features = vgg19(weights=None).features
    state, _ = load_metric_weights("vgg19", "standin")
    features.load_state_dict(
        {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features")}
    )
    a, b = images(3, 0), images(3, 1)
    expected, x, y = 0.0, a.clone(), b.clone()
    with torch.no_grad():
        for (start, end), weight in zip(SLICES, WEIGHTS, strict=True):
            x, y = features[start:end](x), features[start:end](y)
            expected += weight * (x - y).abs().mean().item()
    assert distance(a, b).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_one_band_counts_as_three_equal_ones(distance):
    a, b = images(1, 0), images(1, 1)
    torch.testing.assert_close(distance(a, b), distance(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))


def test_only_the_fake_image_takes_a_gradient(distance):
    a, b = images(1, 0).requires_grad_(), images(1, 1).requires_grad_()
    distance(a, b).backward()
    assert a.grad.abs().sum() > 0
    assert b.grad is None
    assert all(p.grad is None for p in distance.parameters())
