"""Three steps of ours against three steps of the published code: losses and weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from pbvs.losses.total import LossWeights
from pbvs.models.pix2pixhd import DiscriminatorConfig, GeneratorConfig
from pbvs.training.gan import Batch, Pix2PixHD

GOLDEN = Path(__file__).parents[1] / "golden" / "pix2pixhd" / "train_three_steps.npz"

# The biases of convolutions that no norm follows.
KEPT_BIASES = {
    "G": ["model.18.bias"],
    "D": [f"scale{scale}_layer{layer}.0.bias" for scale in (0, 1) for layer in (0, 4)],
}


def state(arrays, when, network):
    prefix = f"{when}/{network}/"
    return {k.removeprefix(prefix): torch.from_numpy(arrays[k]) for k in arrays if k.startswith(prefix)}


def test_three_steps_end_with_the_published_weights_and_losses():
    arrays = np.load(GOLDEN)
    config = json.loads(str(arrays["config"]))
    assert (config["G"]["netG"], config["lambda_feat"]) == ("global", 10.0)
    model = Pix2PixHD(
        GeneratorConfig(channels=6, downsamplings=2, blocks=1),
        DiscriminatorConfig(channels=6, layers=3, scales=2),
        (1, 1),
        LossWeights(gan=1.0, feature_matching=10.0, vgg=0.0, lpips=0.0, l2=0.0),
        tuple(config["betas"]),
        seed=0,
        judges="standin",
    )
    for name, network in model.networks.items():
        network.load_state_dict(state(arrays, "before", name))
        model.optimizers[name].param_groups[0]["lr"] = config["lr"]
    fabric = Fabric(accelerator="cpu", devices=1)
    model.setup(fabric)
    source, target = torch.from_numpy(arrays["source"]), torch.from_numpy(arrays["target"])
    batch = Batch(source, target, torch.ones(2, 1, 64, 64, dtype=torch.bool), ("a", "b"))
    for step in range(config["steps"]):
        seen = {}
        for phase in model.phases():
            terms = phase.terms(batch)
            seen |= {k: v.item() for k, v in terms.items()}
            model.optimizers[phase.name].zero_grad()
            fabric.backward(sum(terms.values()))
            model.optimizers[phase.name].step()
        published = config["losses"][f"step{step}"]
        assert seen["gan"] == pytest.approx(published["G_GAN"], rel=1e-4)
        assert seen["feature_matching"] == pytest.approx(published["G_GAN_Feat"], rel=1e-4)
        assert 2 * seen["d_real"] == pytest.approx(published["D_real"], rel=1e-4)
        assert 2 * seen["d_made"] == pytest.approx(published["D_fake"], rel=1e-4)
    for name, network in model.networks.items():
        after = state(arrays, "after", name)
        for key, value in network.module.state_dict().items():
            # A bias in front of an instance norm has no effect and a gradient of nothing but rounding,
            # which Adam blows up to whole steps: three of them at most.
            cancelled = key.endswith("bias") and key not in KEPT_BIASES[name]
            limit = 3 * 2 * config["lr"] if cancelled else 1e-5
            assert (value - after[key]).abs().max() < limit, (name, key)
