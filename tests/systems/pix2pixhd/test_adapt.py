"""Weights carried to other bands keep the response on gray images, and to finer networks what they had."""

import json

import pytest
import torch

from pbvs.core.errors import CheckpointError
from pbvs.networks.layers import init_weights
from pbvs.systems.pix2pixhd.adapt import (
    adapt_discriminator,
    adapt_generator,
    generator_bands,
    read_bands,
    written_bands,
)
from pbvs.systems.pix2pixhd.config import DiscriminatorConfig, GeneratorConfig
from pbvs.systems.pix2pixhd.network import Discriminator, Generator, stacked

SHAPE = GeneratorConfig(channels=4, n_downsample=1, blocks=1, enhancer_blocks=1)
DISCRIMINATOR = DiscriminatorConfig(channels=4, layers=2, scales=2)
each_rule = pytest.mark.parametrize("rule", ["mean", "repeat"])
each_kind = pytest.mark.parametrize("kind", ["global", "local"])


def initialized(network, seed):
    init_weights(network, torch.Generator().manual_seed(seed))
    return network.double()


def generator(bands_in, bands_out, seed, **shape):
    return initialized(Generator(SHAPE.model_copy(update=shape), bands_in, bands_out), seed)


def images(n, bands, side=32):
    return torch.randn(n, bands, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@each_rule
@each_kind
def test_three_bands_begin_as_the_gray_of_one(kind, rule):
    one, three = generator(1, 1, 0, kind=kind), generator(1, 3, 1, kind=kind)
    adaptation = adapt_generator(three, one.state_dict(), rule)
    assert len(adaptation.adapted) == 2
    x = images(2, 1)
    torch.testing.assert_close(three(x), one(x).expand(-1, 3, -1, -1))


@each_rule
@each_kind
@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (3, 4), (3, 2), (2, 5)])
def test_other_source_bands_answer_equal_bands_as_before(kind, rule, old, new):
    before, after = generator(old, 1, 0, kind=kind), generator(new, 1, 1, kind=kind)
    adapt_generator(after, before.state_dict(), rule)
    x = images(2, 1)
    torch.testing.assert_close(after(x.expand(-1, new, -1, -1)), before(x.expand(-1, old, -1, -1)))


def test_read_bands_by_each_rule():
    weight = torch.tensor([[1.0, 2.0, 6.0]])[:, :, None, None]
    by = {
        (rule, n): read_bands(weight, n, rule).flatten().tolist()
        for rule in ("mean", "repeat")
        for n in (1, 2, 4)
    }
    assert by["mean", 1] == by["repeat", 1] == [9.0]
    assert by["mean", 2] == [4.5, 4.5]
    assert by["repeat", 2] == [7.0, 2.0]
    assert by["mean", 4] == [2.25] * 4
    assert by["repeat", 4] == [0.5, 2.0, 6.0, 0.5]


def test_written_bands_by_each_rule():
    bias = torch.tensor([1.0, 2.0, 6.0])
    assert written_bands(bias, 4, "mean").tolist() == [3.0] * 4
    assert written_bands(bias, 4, "repeat").tolist() == [1.0, 2.0, 6.0, 1.0]
    assert written_bands(bias, 1, "mean").tolist() == written_bands(bias, 1, "repeat").tolist() == [3.0]
    assert written_bands(bias, 2, "repeat").tolist() == [3.5, 2.0]


@each_kind
def test_both_ends_of_a_generator_follow_the_chosen_rule(kind):
    old, new = generator(3, 2, 0, kind=kind), generator(4, 3, 1, kind=kind)
    adapt_generator(new, old.state_dict(), "repeat")
    for before, after in zip(old.ends()[0], new.ends()[0], strict=True):
        torch.testing.assert_close(after.weight, read_bands(before.weight, 4, "repeat"))
        assert torch.equal(after.weight[:, 1], before.weight[:, 1])
    assert torch.equal(new.ends()[1].weight, old.ends()[1].weight[[0, 1, 0]])
    assert torch.equal(new.ends()[1].bias, old.ends()[1].bias[[0, 1, 0]])


@each_rule
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_discriminator_answers_gray_as_before(rule, norm):
    shape = DISCRIMINATOR.model_copy(update={"norm": norm})
    old, new = initialized(Discriminator(shape, 2), 0), initialized(Discriminator(shape, 5), 1)
    adaptation = adapt_discriminator(new, old.state_dict(), 1, 2, rule)
    assert list(adaptation.adapted) == ["scale0_layer0.0.weight", "scale1_layer0.0.weight"]
    x, y = images(2, 1).split(1)
    before = old(stacked(x, y))
    after = new(stacked(x.expand(-1, 2, -1, -1), y.expand(-1, 3, -1, -1)))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a[-1], b[-1])


def test_source_and_target_of_a_discriminator_do_not_mix():
    old, new = (
        initialized(Discriminator(DISCRIMINATOR, 3), 0),
        initialized(Discriminator(DISCRIMINATOR, 4), 1),
    )
    adapt_discriminator(new, old.state_dict(), 2, 3, "repeat")
    weight, fitted = (net.state_dict()["scale0_layer0.0.weight"] for net in (old, new))
    torch.testing.assert_close(fitted[:, 3], weight[:, 2])
    torch.testing.assert_close(fitted[:, 0], weight[:, 0] / 2)
    torch.testing.assert_close(fitted[:, 1], weight[:, 1])


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("local_enhancers", [0, 1])
def test_a_finer_generator_starts_from_a_coarser_one(local_enhancers, norm):
    """pix2pixHD's own way: half the first width for every enhancer, the rest of the body the same."""
    kind = "local" if local_enhancers else "global"
    coarse = generator(1, 1, 0, kind=kind, local_enhancers=max(1, local_enhancers), channels=4, norm=norm)
    fine = generator(1, 1, 1, kind="local", local_enhancers=local_enhancers + 1, channels=2, norm=norm)
    own = {name: tensor.clone() for name, tensor in fine.state_dict().items()}
    adaptation = adapt_generator(fine, coarse.state_dict())
    outer = f"model{local_enhancers + 1}_"
    assert adaptation.fresh == [name for name in own if name.startswith(outer)]
    end = "model1_2.5." if local_enhancers else "model.12."
    assert adaptation.unused == [f"{end}weight", f"{end}bias"]
    assert not adaptation.adapted
    for name, tensor in fine.state_dict().items():
        expected = own[name] if name.startswith(outer) else coarse.state_dict()[name]
        assert torch.equal(tensor, expected), name
    assert set(adaptation.loaded) | set(adaptation.fresh) == set(own)
    assert (
        f"{len(adaptation.fresh)} fresh (model{local_enhancers + 1}_1, model{local_enhancers + 1}_2)"
        in adaptation.summary()
    )


def test_a_finer_generator_may_have_other_bands_too():
    coarse, fine = generator(1, 1, 0), generator(3, 2, 1, kind="local", channels=2)
    adaptation = adapt_generator(fine, coarse.state_dict(), "repeat")
    assert list(adaptation.adapted) == ["model.1.weight"]


def test_a_discriminator_with_a_scale_more_keeps_it_as_initialized():
    """The scales are counted from the coarsest, so the finest is the new one."""
    old = initialized(Discriminator(DISCRIMINATOR, 2), 0)
    new = initialized(Discriminator(DISCRIMINATOR.model_copy(update={"scales": 3}), 2), 1)
    own = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    adaptation = adapt_discriminator(new, old.state_dict(), 1, 1)
    assert {name.split("_")[0] for name in adaptation.fresh} == {"scale2"}
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, own[name] if name.startswith("scale2") else old.state_dict()[name])


def test_the_record_has_everything_and_is_json():
    adaptation = adapt_generator(generator(3, 1, 0), generator(1, 1, 1).state_dict(), "repeat")
    record = json.loads(json.dumps(adaptation.as_dict()))
    assert record["rule"] == "repeat"
    assert record["adapted"] == {"model.1.weight": {"from": [4, 1, 7, 7], "to": [4, 3, 7, 7]}}
    assert (record["fresh"], record["unused"]) == ([], [])
    assert len(record["loaded"]) == 11
    assert adaptation.summary() == (
        "11 tensors loaded, 1 adapted by the repeat of bands (model.1.weight), none fresh"
    )


def test_another_network_is_refused_with_every_tensor_and_nothing_is_changed():
    network = generator(1, 1, 1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError) as refused:
        adapt_generator(network, generator(3, 1, 0, channels=6, blocks=2).state_dict())
    message = str(refused.value)
    assert "model.1.weight: 6x3x7x7 in the weights, 4x1x7x7 in this network" in message
    assert "model.7.conv_block.5.bias: 12 in the weights, 8 in this network" in message
    assert "model.8.weight: not in the weights, 8x4x3x3 in this network" in message
    assert "model.8.conv_block.1.weight: 12x12x3x3 in the weights, not in this network" in message
    assert message.count(" in the weights") == message.count("\n    ")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("model.4.bias"),
        lambda state: state.update({"model.77.weight": torch.zeros(2)}),
        lambda state: state.update({"model.4.bias": torch.zeros(3)}),
    ],
)
def test_one_tensor_missing_strange_or_of_another_shape_is_an_error(spoil):
    state = dict(generator(1, 1, 0).state_dict())
    spoil(state)
    with pytest.raises(CheckpointError, match=r"1 of its tensors differ:\n    model\.(4\.bias|77\.weight): "):
        adapt_generator(generator(1, 1, 1), state)


def test_stale_averages_of_old_instance_norms_are_passed_over():
    state = dict(generator(1, 1, 0).state_dict()) | {"model.2.running_mean": torch.zeros(4)}
    assert len(adapt_generator(generator(1, 1, 1), state).loaded) == 12


def test_an_enhancer_or_a_scale_that_is_there_in_part_is_an_error():
    state = dict(generator(1, 1, 0, kind="local").state_dict())
    state.pop("model1_1.4.bias")
    with pytest.raises(CheckpointError, match=r"1 of its tensors differ:\n    model1_1\.4\.bias: not in"):
        adapt_generator(generator(1, 1, 1, kind="local"), state)
    state = dict(initialized(Discriminator(DISCRIMINATOR, 2), 0).state_dict())
    state.pop("scale1_layer1.0.bias")
    with pytest.raises(CheckpointError, match=r"scale1_layer1\.0\.bias: not in"):
        adapt_discriminator(initialized(Discriminator(DISCRIMINATOR, 2), 1), state, 1, 1)


def test_a_coarser_generator_does_not_start_from_a_finer_one():
    with pytest.raises(CheckpointError, match=r"model1_1\.1\.weight: 2x1x7x7 in the weights, not in this"):
        adapt_generator(generator(1, 1, 0), generator(1, 1, 1, kind="local", channels=2).state_dict())


def test_the_bands_of_a_generator_follow_from_its_weights():
    assert generator_bands(generator(3, 2, 0, kind="local").state_dict()) == (3, 2)
    with pytest.raises(CheckpointError, match="generator"):
        generator_bands(Discriminator(DISCRIMINATOR, 2).state_dict())
