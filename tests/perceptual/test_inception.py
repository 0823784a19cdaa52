from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from pytorch_fid.inception import InceptionV3
from torch import nn
from torch.nn import functional as F

from pbvs.core.challenge import FID_LAYERS
from pbvs.core.errors import ScoreError
from pbvs.perceptual.inception import InceptionFeatures
from pbvs.score.frechet import frechet_distance


@pytest.fixture(scope="module")
def features() -> InceptionFeatures:
    return InceptionFeatures("standin")


@pytest.mark.parametrize("size_px", [(32, 32), (400, 310)])
def test_every_layer_equals_pytorch_fid_on_the_same_weights(
    features: InceptionFeatures, hub_with_standins: Path, size_px: tuple[int, int]
) -> None:
    theirs = InceptionV3([0, 1, 2, 3]).eval()
    x = torch.rand(2, 3, *size_px, generator=torch.Generator().manual_seed(6))
    ours = features(x)
    with torch.no_grad():
        for layer, block in zip(FID_LAYERS, theirs(x), strict=True):
            expected = F.adaptive_avg_pool2d(block, (1, 1)).flatten(1)
            assert ours[layer].dtype == torch.float64
            scale = float(expected.abs().max())
            torch.testing.assert_close(ours[layer].float(), expected, rtol=0, atol=2e-6 * scale)


def test_the_distance_equals_pytorch_fid_from_pixels_on(hub_with_standins: Path) -> None:
    features = InceptionFeatures("standin")
    generator = torch.Generator().manual_seed(7)
    # Few pixels, so that the 64 features vary enough for a well-conditioned covariance.
    sets = [torch.rand(66, 3, 4, 4, generator=generator) ** power for power in (1.0, 1.5)]
    theirs = InceptionV3([0]).eval()
    with torch.no_grad():
        reference = [F.adaptive_avg_pool2d(theirs(x)[0], (1, 1)).flatten(1).double().numpy() for x in sets]
    moments = [m for r in reference for m in (r.mean(0), np.cov(r, rowvar=False))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SciPy 1.17 for `disp=`
        try:
            expected = float(calculate_frechet_distance(*moments))
        except TypeError:
            pytest.skip("this SciPy has no sqrtm(disp=) any more")
    # The first block alone: the others take nine tenths of the time and are compared above.
    for index in (1, 2, 3):
        features.blocks[index] = nn.Identity()
    ours = [features(x)[64].numpy() for x in sets]
    assert expected > 0.1
    assert frechet_distance(*ours) == pytest.approx(expected, rel=1e-6)


def test_one_band_is_three_equal_ones(features: InceptionFeatures) -> None:
    gray = torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(8))
    one, three = features(gray), features(gray.repeat(1, 3, 1, 1))
    for layer in FID_LAYERS:
        # Not bit for bit: resizing one band and three uses other kernels.
        torch.testing.assert_close(one[layer], three[layer], rtol=0, atol=2e-6)


def test_standin_activations_keep_their_scale(features: InceptionFeatures) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    for layer, values in features(x).items():
        assert 0.05 < float(values.square().mean()) < 5, layer


def test_other_ranges_types_and_bands_are_refused(features: InceptionFeatures) -> None:
    x = torch.rand(1, 3, 16, 16)
    for bad in (x * 255, x - 0.5, torch.full_like(x, torch.nan)):
        with pytest.raises(ScoreError, match=r"\[0,1\]"):
            features(bad)
    for bad in (x.double(), x[:, :2], x[0]):
        with pytest.raises(ScoreError, match=r"N,1\|3,H,W"):
            features(bad)
