"""The Fréchet loss: the scorer's own distance, with a gradient that is right and finite everywhere."""

import math

import numpy as np
import pytest
import torch

from pbvs.core.errors import TrainingError
from pbvs.losses.frechet import FrechetLoss, Moments, frechet_distance
from pbvs.score.frechet import frechet_distance as scored_distance


def features(n, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d))


@pytest.mark.parametrize(("n", "d"), [(40, 6), (3, 6), (2, 64), (200, 64)])
def test_the_distance_is_the_scorer_s(n, d):
    ours, targets = features(n, d), features(90, d, seed=1)
    expected = scored_distance(ours.numpy(), targets.numpy())
    assert float(frechet_distance(ours, Moments.of(targets))) == pytest.approx(expected, rel=1e-9)


def test_a_batch_alone_is_the_score_s_term():
    ours, targets = features(40), features(90, seed=1)
    loss = FrechetLoss(Moments.of(targets), queue=0, arctan_weight=0.5)
    expected = 2 / math.pi * math.atan(0.5 * scored_distance(ours.numpy(), targets.numpy()))
    assert float(loss(ours)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [12, 4])
def test_the_gradient_agrees_with_finite_differences(n):
    """Also for fewer images than features, where the covariance has no full rank."""
    ours, moments = features(n).requires_grad_(), Moments.of(features(90, seed=1))
    assert torch.autograd.gradcheck(lambda x: frechet_distance(x, moments), ours, eps=1e-6, atol=1e-6)


def test_equal_sets_are_at_0_with_a_gradient_of_0():
    ours = features(30).requires_grad_()
    loss = FrechetLoss(Moments.of(ours), queue=0)(ours)
    (gradient,) = torch.autograd.grad(loss, ours)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert float(gradient.abs().max()) < 1e-9


def test_the_queue_joins_the_last_images_and_gives_back_their_share_of_the_gradient():
    moments = Moments.of(features(90, seed=1))
    loss = FrechetLoss(moments, queue=10, arctan_weight=None)
    first, second = features(8, seed=2), features(4, seed=3)
    loss(first)
    x = second.clone().requires_grad_()
    value = loss(x)
    (gradient,) = torch.autograd.grad(value, x)
    y = second.clone().requires_grad_()
    whole = frechet_distance(torch.cat([first, y]), moments)
    (plain,) = torch.autograd.grad(whole, y)
    assert value.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(gradient, plain * math.sqrt(12 / 4))
    torch.testing.assert_close(loss.queue, torch.cat([first, second])[-10:])


def test_one_image_without_a_queue_says_nothing():
    loss = FrechetLoss(Moments.of(features(90)), queue=192)
    x = features(1, seed=4).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    assert float(gradient.abs().max()) == 0.0
    assert float(loss(features(1, seed=5))) > 0.0  # the second has the first beside it


def test_half_features_are_taken_in_float64():
    ours = features(40).to(torch.bfloat16)
    loss = FrechetLoss(Moments.of(features(90, seed=1)), queue=0, arctan_weight=None)
    expected = scored_distance(ours.double().numpy(), features(90, seed=1).numpy())
    assert float(loss(ours)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("wrong", [features(1), torch.ones(5, 6), torch.full((5, 6), torch.nan)])
def test_targets_without_a_distribution_are_refused(wrong):
    with pytest.raises(TrainingError, match=r"features"):
        Moments.of(wrong)
