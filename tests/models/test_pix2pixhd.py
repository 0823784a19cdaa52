"""The networks against numbers of the published ones, and gradients against the plain path."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pbvs.errors import CheckpointError
from pbvs.models import from_official
from pbvs.models.layers import InstanceNorm
from pbvs.models.pix2pixhd import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "pix2pixhd"


def golden(name):
    arrays = np.load(GOLDEN / f"{name}.npz")
    state = {k[6:]: torch.from_numpy(arrays[k]) for k in arrays if k.startswith("state/")}
    return json.loads(str(arrays["config"])), state, arrays


@pytest.mark.parametrize("name", ["generator_global", "generator_local"])
def test_generator_gives_the_published_output(name):
    config, state, arrays = golden(name)
    with torch.no_grad():
        y = from_official(config, state)(torch.from_numpy(arrays["input/x"]))
    np.testing.assert_allclose(y.numpy(), arrays["output/y"], rtol=0, atol=2e-6)


def test_discriminator_gives_every_published_feature():
    config, state, arrays = golden("discriminator")
    with torch.no_grad():
        results = from_official(config, state)(torch.from_numpy(arrays["input/x"]))
    seen = 0
    for i, features in enumerate(results):
        for j, feature in enumerate(features):
            expected = arrays[f"output/scale{i}_layer{j}"]
            np.testing.assert_allclose(feature.numpy(), expected, rtol=0, atol=1e-5)
            seen += 1
    assert seen == sum(k.startswith("output/") for k in arrays)


def test_official_weights_that_do_not_fit_are_refused():
    config, state, _ = golden("generator_global")
    state.pop("model.1.bias")
    with pytest.raises(CheckpointError, match=r"model\.1\.bias"):
        from_official(config, state)
    with pytest.raises(CheckpointError, match="ngff"):
        from_official({**config, "ngff": 3}, state)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (67, 90), (33, 47)])
@pytest.mark.parametrize("kind", ["global", "local"])
def test_any_size_keeps_its_size(kind, height, width):
    config = GeneratorConfig(kind=kind, channels=4, downsamplings=2, blocks=1, enhancer_blocks=1)
    network = Generator(config, 1, 3)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, height, width)).shape == (1, 3, height, width)


def test_instance_norm_at_batch_one_has_the_gradient_of_batch_two():
    """Guards against torch 2.15 on the CPU, whose gradient is wrong for a channels_last incoming one."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=draw)
    upstream = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=draw)

    def gradient(batch, incoming):
        batch = batch.clone().requires_grad_()
        InstanceNorm(4)(batch).backward(incoming.contiguous(memory_format=torch.channels_last))
        return batch.grad[:1]

    both = gradient(torch.cat([x, x]), torch.cat([upstream, upstream]))
    torch.testing.assert_close(gradient(x, upstream), both, rtol=1e-9, atol=1e-12)


def test_discriminator_widths_stop_at_512():
    network = Discriminator(DiscriminatorConfig(channels=256, layers=3, scales=1), 2)
    assert network.scale0_layer3[0].out_channels == 512
