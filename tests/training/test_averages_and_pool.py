"""What is kept in addition to the weights: the moving average, and the pool of fake images."""

import random

import numpy as np
import pytest
import torch
from small_runs import Looking, batch_of, networks, one_cpu, small_system, train, trainer
from torch import nn

from pbvs.training import checkpoint
from pbvs.training.ema import EMA
from pbvs.training.image_pool import ImagePool
from pbvs.training.step import START


def linear(value):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    nn.init.constant_(net[0].weight, value)
    return net


def test_the_average_counts_images_not_steps():
    """By hand: 0.9 of the old for each image, less while few have been seen."""
    net = linear(0.0)
    averages = EMA({"G": net}, 0.9)
    value, seen = 0.0, 0
    for new, images in ((1.0, 4), (2.0, 4), (-1.0, 80), (5.0, 2)):
        nn.init.constant_(net[0].weight, new)
        seen += images
        averages.update(seen, images)
        keep = min(0.9, (1 + seen) / (10 + seen)) ** images
        value = keep * value + (1 - keep) * new
    assert keep == pytest.approx(0.81)  # two images, long after the start
    torch.testing.assert_close(averages.networks["G"][0].weight, torch.full((2, 2), value))
    assert not any(p.requires_grad for p in averages.networks["G"].parameters())


def test_statistics_of_batch_norm_are_taken_as_they_are():
    net = linear(1.0)
    averages = EMA({"G": net}, 0.999)
    net(torch.randn(8, 2))
    averages.update(1000, 1)
    assert torch.equal(averages.networks["G"][1].running_mean, net[1].running_mean)
    assert net[1].running_mean.any()


def test_the_average_is_validated_kept_and_used(tmp_path):
    class Seeing(Looking):
        def __init__(self):
            self.seen = []

        def score(self, translation, images_seen):
            state = translation.networks["G"].state_dict()
            self.seen.append({k: v.clone() for k, v in state.items()})
            return super().score(translation, images_seen)

    validator = Seeing()
    train(tmp_path / "run", validator=validator, training={"ema": 0.9})
    raw = networks(tmp_path / "run")
    used = checkpoint.load_weights(tmp_path / "run" / checkpoint.LAST)[1]["G"]
    assert {name.split(".")[0] for name in raw} == {"G", "D", "G_ema"}
    for name, value in used.items():
        assert torch.equal(value, raw[f"G_ema.{name}"])
        assert torch.equal(value, validator.seen[-1][name])
    assert any((value != raw[f"G.{name}"]).any() for name, value in used.items())
    first = small_system().networks["G"].state_dict()
    assert all((value != first[name]).any() for name, value in used.items() if name.endswith("weight"))
    of_d = checkpoint.load_weights(tmp_path / "run" / checkpoint.LAST)[1]["D"]
    assert all(torch.equal(value, raw[f"D.{name}"]) for name, value in of_d.items())


def test_an_average_switched_on_later_begins_with_the_weights_of_then(tmp_path):
    short = [{"epochs": 1, "learning_rate": 1e-3}]
    train(tmp_path / "run", training={"stages": short})
    then = checkpoint.load_state(tmp_path / "run" / checkpoint.STATE)["networks"]["G"]
    resumed = trainer(tmp_path / "run", training={"ema": 0.9})
    average = resumed.averages.networks["G"].state_dict()
    assert all(torch.equal(average[k], v) for k, v in then.items())


# ---- the pool


class OfficialPool:
    """The rule of NVIDIA/pix2pixHD util/image_pool.py, its random numbers handed in."""

    def __init__(self, pool_size):
        self.pool_size, self.images = pool_size, []

    def query(self, image, uniform, randint):
        if len(self.images) < self.pool_size:
            self.images.append(image)
            return image
        if uniform > 0.5:
            earlier, self.images[randint] = self.images[randint], image
            return earlier
        return image


def test_the_pool_follows_the_published_rule():
    """The same random numbers, drawn as the pool draws them, give the same images."""
    size, seed, n = 4, 11, 200
    ours, official = ImagePool(size, seed), OfficialPool(size)
    images = torch.arange(float(n)).view(n, 1, 1, 1)
    returned = torch.cat([ours.query(images[i : i + 5]) for i in range(0, n, 5)]).flatten().tolist()
    expected = []
    for i in range(n):
        rng = np.random.default_rng([3, seed, i])
        expected.append(official.query(float(i), rng.random(), int(rng.integers(size))))
    assert returned == expected
    others = sum(value != i for i, value in enumerate(returned))
    assert 0.4 < others / (n - size) < 0.6
    assert max(i - value for i, value in enumerate(returned)) > 2 * size  # some wait for long


def test_a_pool_of_size_0_returns_its_input():
    images = torch.randn(3, 2, 4, 4)
    assert ImagePool(0, 0).query(images) is images
    assert ImagePool(0, 0).shared_query(images, one_cpu()) is images


def test_the_pool_keeps_no_larger_tensors_alive():
    pool = ImagePool(2, 0)
    pool.query(torch.randn(8, 1, 4, 4))
    assert all(image.untyped_storage().nbytes() == 16 * 4 for image in pool.images)


def test_the_discriminator_sees_pooled_images_and_the_real_ones_as_they_are():
    system = small_system()
    system.pool = ImagePool(1, 0)
    system.setup(one_cpu())
    discriminator, generator = system.phases(START)
    seen = []
    system.networks["D"].module.register_forward_pre_hook(lambda net, given: seen.append(given[0].clone()))
    passes = []
    for n in range(6):
        seen.clear()
        discriminator.losses(batch_of(n))
        generator.losses(batch_of(n))
        passes.append(seen[:])
    sources = [batch_of(n).source for n in range(6)]
    for n, (_, real, fake) in enumerate(passes):
        assert torch.equal(real, torch.cat([sources[n], batch_of(n).target], 1))
        assert torch.equal(fake[:, :1], sources[n])
    pooled = [n for n, (earlier, *_) in enumerate(passes) if not torch.equal(earlier[:, :1], sources[n])]
    assert pooled
    for n in pooled:  # source and fake image of an earlier step, together
        assert any(torch.equal(passes[n][0][:, :1], sources[m]) for m in range(n))


def test_a_run_with_a_pool_differs_and_repeats(tmp_path):
    for name, size in (("none", 0), ("one", 2), ("two", 2)):
        train(tmp_path / name, system={"pool_size": size})
    none, one, two = ((tmp_path / n / checkpoint.LAST).read_bytes() for n in ("none", "one", "two"))
    assert one == two != none
    random.seed(0)  # nothing global has a say
    torch.manual_seed(99)
    train(tmp_path / "three", system={"pool_size": 2})
    assert (tmp_path / "three" / checkpoint.LAST).read_bytes() == one
