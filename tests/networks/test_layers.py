"""Norms against their formula in every memory layout, running averages, and the initial weights."""

import itertools

import pytest
import torch
from torch import nn

from pbvs.networks.layers import (
    FrozenBatchNormStats,
    InstanceNorm,
    init_weights,
    replay_bn_update,
    running_averages,
)
from pbvs.systems.pix2pixhd.config import DiscriminatorConfig
from pbvs.systems.pix2pixhd.network import Discriminator

LAST, FIRST = torch.channels_last, torch.contiguous_format


def normal(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def formula(x):
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def relative(a, b):
    return ((a.double() - b).norm() / b.norm()).item()


LAYOUTS = list(itertools.product((FIRST, LAST), repeat=2))
TYPES = [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]


@pytest.mark.parametrize(("dtype", "limit"), TYPES)
@pytest.mark.parametrize("shape", [(1, 4, 8, 9), (2, 4, 8, 9), (1, 1, 5, 5), (3, 32, 4, 4)])
def test_instance_norm_is_its_formula_in_every_layout(shape, dtype, limit):
    """torch 2.15 on the CPU alone gives a gradient 1.4 times off at batch 1 for a channels_last one."""
    x, upstream = (normal(*shape, seed=seed).to(dtype).double() for seed in (0, 1))
    x.requires_grad_()
    expected = formula(x)
    expected.backward(upstream)
    for of_input, of_gradient in LAYOUTS:
        ours = x.detach().to(dtype).contiguous(memory_format=of_input).requires_grad_()
        y = InstanceNorm(shape[1])(ours)
        y.backward(upstream.to(dtype).contiguous(memory_format=of_gradient))
        assert relative(y, expected) < limit, (of_input, of_gradient)
        assert relative(ours.grad, x.grad) < limit, (of_input, of_gradient)


def test_instance_norm_bears_expanded_and_transposed_gradients():
    x = normal(1, 4, 8, 8, seed=0).requires_grad_()
    for upstream in (normal(1, 4, 8, 1, seed=1).expand(1, 4, 8, 8), normal(1, 4, 8, 8, seed=2).mT):
        expected = torch.autograd.grad(formula(x), x, upstream)[0]
        ours = torch.autograd.grad(InstanceNorm(4)(x), x, upstream)[0]
        assert relative(ours, expected) < 1e-12


@pytest.mark.parametrize("layout", [FIRST, LAST])
@pytest.mark.parametrize("batch", [1, 2])
def test_norm_and_convolution_under_bf16_autocast_have_the_gradients_of_the_formula(batch, layout):
    conv = nn.Conv2d(3, 8, 3)
    init_weights(conv, torch.Generator().manual_seed(0))
    conv = conv.to(memory_format=layout)
    x = normal(batch, 3, 12, 12, seed=0).float().contiguous(memory_format=layout)
    wanted = normal(batch, 8, 10, 10, seed=1)
    weight, bias = conv.weight.detach().double().requires_grad_(), conv.bias.detach().double()
    (formula(nn.functional.conv2d(x.double(), weight, bias)) - wanted).square().mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        y = InstanceNorm(8)(conv(x))
    (y - wanted).square().mean().backward()
    assert relative(conv.weight.grad, weight.grad) < 0.03


def discriminator(seed=0):
    network = Discriminator(DiscriminatorConfig(channels=4, layers=2, scales=2, norm="batch"), 2)
    init_weights(network, torch.Generator().manual_seed(seed))
    return network.double()


def test_frozen_stats_change_what_is_kept_and_not_what_is_computed():
    network, x = discriminator(), normal(2, 2, 16, 16, seed=0)
    kept = FrozenBatchNormStats(network)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for _ in range(2):  # it may be entered again
        with kept:
            inside = network(x)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    outside = network(x)
    for a, b in zip(inside, outside, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    name = "scale0_layer1.1.running_mean"
    assert not torch.equal(network.state_dict()[name], before[name])


def test_a_replayed_update_counts_as_a_second_pass():
    twice, once = discriminator(), discriminator()
    fake, real = normal(2, 2, 16, 16, seed=0), normal(2, 2, 16, 16, seed=1)
    once(real)  # so that no average begins at nothing
    for x in (real, fake, real, fake):
        twice(x)
    before = running_averages(once)
    once(fake)
    after = running_averages(once)
    once(real)
    replay_bn_update(once, before, after)
    for (name, a), b in zip(once.state_dict().items(), twice.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, msg=name)


def test_initial_weights_follow_the_published_rule():
    network = nn.Sequential(nn.Conv2d(64, 32, 4), nn.BatchNorm2d(4000), nn.ConvTranspose2d(64, 16, 3))
    init_weights(network, torch.Generator().manual_seed(0))
    conv, norm, up = network
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert up.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=1e-3)
    assert not norm.bias.any()
    for layer, fan_in in ((conv, 64 * 16), (up, 16 * 9)):
        assert 0.8 * fan_in**-0.5 < layer.bias.abs().max().item() <= fan_in**-0.5


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    one = discriminator(3).state_dict()
    torch.manual_seed(2)
    again = discriminator(3).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(discriminator(4).state_dict()["scale0_layer0.0.bias"], one["scale0_layer0.0.bias"])
