"""The networks' sizes, and what has no effect on them."""

import itertools

import pytest
import torch
from torch import nn

from pbvs.networks.layers import init_weights
from pbvs.systems.pix2pixhd.config import DiscriminatorConfig, GeneratorConfig
from pbvs.systems.pix2pixhd.network import Discriminator, Generator

SHAPES = [
    *(GeneratorConfig(channels=1, n_downsample=n, blocks=1) for n in range(6)),
    *(
        GeneratorConfig(
            kind="local", channels=1, n_downsample=n, blocks=1, local_enhancers=k, enhancer_blocks=1
        )
        for n, k in ((0, 1), (0, 3), (2, 1), (4, 1), (5, 3))
    ),
]


def initialized(network, seed=0):
    init_weights(network, torch.Generator().manual_seed(seed))
    return network.double()


def image(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tanh()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 37), (319, 302)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.kind}-{s.n_downsample}-{s.local_enhancers}")
def test_any_size_keeps_its_size_in_every_configuration(shape, size):
    with torch.no_grad():
        y = initialized(Generator(shape, 2, 1))(image(1, 2, *size))
    assert y.shape == (1, 1, *size)
    assert y.isfinite().all() and y.std() > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)], ids=str)
def test_even_the_smallest_images_pass(size):
    for shape in SHAPES:
        with torch.no_grad():
            assert initialized(Generator(shape, 1, 3))(image(2, 1, *size)).shape == (2, 3, *size)


def test_an_odd_size_is_the_cut_result_of_the_reflected_image():
    network = initialized(Generator(GeneratorConfig(channels=2, n_downsample=3, blocks=1), 1, 1))
    x = image(1, 1, 33, 47)
    rows, columns = ([*range(n), *range(n - 2, n - 2 - more, -1)] for n, more in ((33, 7), (47, 1)))
    assert (len(rows), len(columns)) == (40, 48)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(x[:, :, rows][:, :, :, columns])[:, :, :33, :47])


def test_a_far_reflection_goes_to_and_fro():
    network = initialized(Generator(GeneratorConfig(channels=1, n_downsample=4, blocks=1), 1, 1))
    x = image(1, 1, 5, 3)
    to_and_fro = lambda n: list(itertools.islice(itertools.cycle([*range(n), *range(n - 2, 0, -1)]), 32))  # noqa: E731
    with torch.no_grad():
        whole = network(x[:, :, to_and_fro(5)][:, :, :, to_and_fro(3)])
        torch.testing.assert_close(network(x), whole[:, :, :5, :3])


def test_a_size_that_fits_is_not_padded():
    network = Generator(GeneratorConfig(channels=1, n_downsample=2, blocks=1), 1, 1)
    seen = []
    network.model[0].register_forward_hook(lambda layer, given, result: seen.append(given[0].shape))
    network(torch.zeros(1, 1, 64, 32))
    assert seen == [(1, 1, 64, 32)]


@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_biases_in_front_of_a_norm_have_no_gradient(kind, norm):
    """Why the steps' test may excuse them; the last bias has one."""
    shape = GeneratorConfig(kind=kind, channels=2, n_downsample=2, blocks=1, enhancer_blocks=1, norm=norm)
    network = initialized(Generator(shape, 1, 1))
    (network(image(2, 1, 32, 32)) * image(2, 1, 32, 32, seed=1)).sum().backward()
    last = network.ends()[1]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            share = (layer.bias.grad.norm() / layer.weight.grad.norm()).item()
            assert share > 1e-3 if layer is last else share < 1e-12


def test_discriminator_widths_double_up_to_512_from_any_first_one():
    def widths(channels):
        network = Discriminator(DiscriminatorConfig(channels=channels, layers=3, scales=1), 2)
        return [getattr(network, f"scale0_layer{i}")[0].out_channels for i in range(5)]

    assert widths(256) == [256, 512, 512, 512, 1]
    assert widths(600) == [600, 512, 512, 512, 1]
    assert widths(48) == [48, 96, 192, 384, 1]
