"""The gradients of the production step against the official order of work written plainly, in float64."""

import pytest
import torch
from plain_official import discriminator, generator
from torch.nn import functional as F
from torchvision.models import vgg19

from pbvs.core.device import make_fabric
from pbvs.dataset.batches import Batch
from pbvs.perceptual.lpips import PerceptualDistance
from pbvs.perceptual.metric_weights import load_metric_weights
from pbvs.systems.pix2pixhd.config import Pix2PixHDConfig
from pbvs.systems.pix2pixhd.official import to_official
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training.step import train_step
from pbvs.training.system import SystemContext, unwrap

VGG_FEATURES = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}  # after relu1_1 ... relu5_1


def batch(side_px):
    rng = torch.Generator().manual_seed(7)
    source, target = (
        torch.rand(1, n, side_px, side_px, generator=rng, dtype=torch.float64).mul(2).sub(1) for n in (1, 3)
    )
    mask = torch.ones(1, 1, side_px, side_px, dtype=torch.bool)
    return Batch({"source": source, "target": target}, mask, ("one",))


def production_gradients(system, images):
    """By network and name; a step at rate 0 leaves them behind."""
    fabric = make_fabric("cpu")
    system.setup(fabric)
    for network in (*system.networks.values(), system.loss):
        network.double()  # not Fabric's 64-true, which gives results in float32
    train_step(system, images, fabric, learning_rate=0.0)
    return {
        name: {key: weight.grad for key, weight in unwrap(network).named_parameters()}
        for name, network in system.networks.items()
    }


def vgg_distance(fake, real):
    features = vgg19(weights=None).features
    state = load_metric_weights("vgg19", "standin")[0]
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if "features" in k})
    total, a, b = 0.0, fake, real
    for index, layer in enumerate(features.double().requires_grad_(False)):
        a, b = (F.relu(x) if isinstance(layer, torch.nn.ReLU) else layer(x) for x in (a, b))
        if index in VGG_FEATURES:
            total = total + VGG_FEATURES[index] * (a - b).abs().mean()
    return total


def official_gradients(system, images):
    """Three passes of the discriminator, every loss summed with its weight, two backward passes."""
    configs, states = {}, {}
    for name, network in system.networks.items():
        state = {k: v.detach().clone().double() for k, v in network.state_dict().items()}
        states[name] = {k: v.requires_grad_() for k, v in state.items()}
        configs[name] = to_official(network)[0]
    fake = generator(configs["G"], states["G"], images.source)

    def features(image):
        return discriminator(configs["D"], states["D"], torch.cat([images.source, image], 1))

    detached, real, attached = features(fake.detach()), features(images.target), features(fake)
    n_scales, n_features = len(attached), len(attached[0]) - 1
    matching = sum(
        (a - b.detach()).abs().mean() * 4.0 / n_features / n_scales
        for fake_scale, real_scale in zip(attached, real, strict=True)
        for a, b in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    )
    lpips = PerceptualDistance("standin", check_range=False).double()
    losses = {
        "D": 0.5 * sum(f[-1].square().mean() for f in detached)
        + 0.5 * sum((f[-1] - 1).square().mean() for f in real),
        "G": sum((f[-1] - 1).square().mean() for f in attached)
        + 10 * matching
        + 10 * vgg_distance(fake, images.target)
        + lpips(fake, images.target).mean()
        + ((fake - images.target) / 2).square().mean().sqrt(),
    }
    return {
        name: dict(
            zip(
                states[name],
                torch.autograd.grad(loss, list(states[name].values()), retain_graph=True),
                strict=True,
            )
        )
        for name, loss in losses.items()
    }


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["global", "local"])
def test_gradients_are_those_of_the_official_order_of_work(kind, checkpointing):
    config = Pix2PixHDConfig(
        generator={"kind": kind, "channels": 4, "n_downsample": 2, "blocks": 2, "enhancer_blocks": 1},
        discriminator={"channels": 4, "layers": 2, "scales": 2},
        training={"stages": [{"epochs": 1, "learning_rate": 1e-3}]},
    )
    system = Pix2PixHD(config, SystemContext({"source": 1, "target": 3}, seed=1, metric_weights="standin"))
    images = batch(32)
    expected = official_gradients(system, images)
    system.networks["G"].activation_checkpointing = checkpointing
    found = production_gradients(system, images)
    for name, gradients in expected.items():
        assert found[name].keys() == gradients.keys()
        largest = max(float(g.abs().max()) for g in gradients.values())
        worst = max((float((found[name][k] - g).abs().max()) / largest, k) for k, g in gradients.items())
        assert worst[0] < 1e-10, (name, worst)
