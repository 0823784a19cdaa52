"""Gradient checkpointing: the plain path's gradients to the last bit, with less kept."""

import pytest
import torch
from torch import nn

from pbvs.networks.activation_checkpointing import pieces
from pbvs.networks.layers import ResidualBlock, init_weights
from pbvs.systems.pix2pixhd.config import GeneratorConfig
from pbvs.systems.pix2pixhd.network import Generator

SHAPE = GeneratorConfig(channels=4, n_downsample=2, blocks=2, enhancer_blocks=1)


def initialized(shape, dtype=torch.float64):
    network = Generator(shape, 1, 3)
    init_weights(network, torch.Generator().manual_seed(0))
    return network.to(dtype)


def kept_bytes(network, x):
    """Bytes of what the forward pass keeps for the backward pass, each storage once, without weights."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # referenced, so that no address is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x)
    return sum(n for n, _ in kept.values())


def gradients(network, x, upstream):
    x = x.clone().requires_grad_()
    y = network(x)
    y.backward(upstream)
    return {"y": y.detach(), "x": x.grad, **{name: p.grad for name, p in network.named_parameters()}}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("kind", ["global", "local"])
def test_gradients_and_averages_are_the_plain_ones_bit_for_bit(kind, norm, dtype):
    shape = SHAPE.model_copy(update={"kind": kind, "norm": norm})
    plain, saving = initialized(shape, dtype), initialized(shape, dtype)
    saving.activation_checkpointing = True
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 1, 37, 32, dtype=dtype, generator=rng)
    upstream = torch.randn(2, 3, 37, 32, dtype=dtype, generator=rng)
    expected, ours = gradients(plain, x, upstream), gradients(saving, x, upstream)
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    assert all(torch.equal(saving.state_dict()[k], v) for k, v in plain.state_dict().items())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_it_bears_compiling(norm):
    shape = SHAPE.model_copy(update={"n_downsample": 1, "blocks": 1, "norm": norm})
    plain, compiled = initialized(shape), initialized(shape)
    compiled.activation_checkpointing = True
    compiled.compile(backend="aot_eager")  # traced and cut as for any backend, but run as it is
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    upstream = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    expected, ours = gradients(plain, x, upstream), gradients(compiled, x, upstream)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-9, msg=name)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_less_is_kept():
    network = initialized(SHAPE, torch.float32)
    x = torch.zeros(1, 1, 64, 64)
    plain = kept_bytes(network, x)
    network.activation_checkpointing = True
    assert kept_bytes(network, x) < 0.5 * plain


def test_translating_runs_the_layers_as_they_are(monkeypatch):
    monkeypatch.setattr("pbvs.systems.pix2pixhd.network.checkpoint_sequential", None)  # not callable
    network = initialized(SHAPE)
    network.activation_checkpointing = True
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 32, dtype=torch.float64)).shape == (1, 3, 32, 32)


def test_pieces_are_a_convolution_with_its_padding_norm_and_rectifier_or_a_block():
    layers = initialized(SHAPE).model
    cut = pieces(layers)
    assert [layer for piece in cut for layer in piece] == list(layers)
    assert [type(piece[0]) for piece in cut] == [
        nn.ReflectionPad2d, nn.Conv2d, nn.Conv2d, ResidualBlock, ResidualBlock,
        nn.ConvTranspose2d, nn.ConvTranspose2d, nn.ReflectionPad2d,
    ]  # fmt: skip
