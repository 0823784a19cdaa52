"""Published networks as ours: every configuration, against golden arrays and plain functions."""

import pickle

import numpy as np
import plain_official as plain
import pytest
import torch
from golden_files import GoldenFile, golden_paths

from pbvs.core.errors import CheckpointError
from pbvs.systems.pix2pixhd.network import Discriminator
from pbvs.systems.pix2pixhd.official import (
    from_official,
    load_official,
    read_official,
    to_official,
    write_official,
)
from pbvs.systems.pix2pixhd.official_config import arguments_of

GLOBAL = {"netG": "global", "input_nc": 1, "output_nc": 3, "ngf": 4, "n_downsample_global": 2,
          "n_blocks_global": 1, "norm": "instance"}  # fmt: skip
LOCAL = {**GLOBAL, "netG": "local", "ngf": 2, "n_local_enhancers": 1, "n_blocks_local": 1}
GENERATORS = [
    *({**GLOBAL, "n_downsample_global": n} for n in range(6)),
    *({**LOCAL, "n_local_enhancers": n, "n_blocks_local": 3 - n} for n in (1, 2, 3)),
    *({**LOCAL, "n_downsample_global": n} for n in (0, 1, 3)),
    {**GLOBAL, "n_blocks_global": 0},
    {**GLOBAL, "n_blocks_global": 3, "norm": "batch", "ngf": 5},
    {**LOCAL, "n_local_enhancers": 2, "norm": "batch", "input_nc": 4, "output_nc": 2, "ngf": 3},
]
DISCRIMINATOR = {
    "input_nc": 2,
    "ndf": 4,
    "n_layers_D": 3,
    "num_D": 2,
    "norm": "instance",
    "getIntermFeat": True,
}
DISCRIMINATORS = [
    *({**DISCRIMINATOR, "n_layers_D": n} for n in (1, 2, 3, 5)),
    *({**DISCRIMINATOR, "num_D": n} for n in (1, 3)),
    {**DISCRIMINATOR, "norm": "batch"},
    {**DISCRIMINATOR, "ndf": 520, "n_layers_D": 1, "num_D": 1},
    {**DISCRIMINATOR, "ndf": 300, "n_layers_D": 2, "num_D": 1},
    {**DISCRIMINATOR, "getIntermFeat": False},
    {**DISCRIMINATOR, "getIntermFeat": False, "norm": "batch", "n_layers_D": 1, "num_D": 3},
    {**DISCRIMINATOR, "getIntermFeat": False, "use_sigmoid": True},
    {**DISCRIMINATOR, "use_sigmoid": True},
]


def config_id(config):
    return "-".join(str(value) for value in config.values())


def visible(config):
    """The arguments that follow from a network; a sigmoid has no weights, and no effect with features."""
    return {k: v for k, v in config.items() if k != "use_sigmoid"}


def tensor(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tanh()


def random_state(config):
    """A state dict of random numbers for a configuration."""
    shapes = plain.generator_shapes(config) if "netG" in config else plain.discriminator_shapes(config)
    return plain.drawn_state(shapes, seed=1)


def double(state):
    return {k: v.double() if v.is_floating_point() else v.clone() for k, v in state.items()}


@pytest.mark.parametrize("path", golden_paths("generator"), ids=lambda p: p.stem)
def test_generator_gives_the_published_output(path):
    golden = GoldenFile(path)
    with torch.no_grad():
        y = from_official(golden.config, golden.below("state/"))(golden.arrays["input/x"])
    np.testing.assert_allclose(y, golden.arrays["output/y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", golden_paths("discriminator"), ids=lambda p: p.stem)
def test_discriminator_gives_every_published_feature(path):
    golden = GoldenFile(path)
    with torch.no_grad():
        results = from_official(golden.config, golden.below("state/"))(golden.arrays["input/x"])
    ours = {f"scale{i}_layer{j}": f for i, scale in enumerate(results) for j, f in enumerate(scale)}
    assert ours.keys() == golden.below("output/").keys()
    for name, feature in golden.below("output/").items():
        np.testing.assert_allclose(ours[name], feature, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "path", golden_paths("generator") + golden_paths("discriminator"), ids=lambda p: p.stem
)
def test_the_plain_functions_give_the_published_output(path):
    golden = GoldenFile(path)
    state, x = golden.below("state/"), golden.arrays["input/x"]
    if "output/y" in golden.arrays:
        y = plain.generator({**arguments_of(state), **golden.config}, state, x)
        np.testing.assert_allclose(y, golden.arrays["output/y"], rtol=0, atol=1e-5)
        return
    for i, scale in enumerate(plain.discriminator({**arguments_of(state), **golden.config}, state, x)):
        for j, feature in enumerate(scale):
            np.testing.assert_allclose(feature, golden.arrays[f"output/scale{i}_layer{j}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", GENERATORS, ids=config_id)
def test_every_generator_loads_strictly_and_computes_the_same(config):
    state = random_state(config)
    network = from_official(config, state).double()
    side = 2 * network.multiple if config["n_downsample_global"] else 4 * network.multiple
    x = tensor(2, config["input_nc"], side, 2 * side)
    with torch.no_grad():
        y = network(x)
        expected = plain.generator(config, expected_state := double(state), x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-11)
    assert list(network.state_dict()) == list(state)
    for name, value in network.state_dict().items():  # running averages moved on alike
        np.testing.assert_allclose(value, expected_state[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("config", DISCRIMINATORS, ids=config_id)
def test_every_discriminator_loads_strictly_and_computes_the_same(config):
    state = random_state(config)
    network = from_official(config, state).double()
    x = tensor(2, config["input_nc"], 48, 37)
    with torch.no_grad():
        results, expected = network(x), plain.discriminator(config, double(state), x)
    assert [len(scale) for scale in results] == [len(scale) for scale in expected]
    for ours, theirs in zip(results, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    assert list(network.state_dict()) == list(state)


@pytest.mark.parametrize("config", GENERATORS + DISCRIMINATORS, ids=config_id)
def test_to_official_returns_arguments_and_weights(config):
    state = random_state(config)
    arguments, weights = to_official(from_official(config, state))
    assert arguments.items() >= visible(config).items()
    assert all(torch.equal(weights[name], tensor) for name, tensor in state.items())
    again = from_official(arguments, weights)
    assert to_official(again)[0] == arguments


@pytest.mark.parametrize("config", GENERATORS + DISCRIMINATORS, ids=config_id)
def test_the_arguments_follow_from_the_weights_alone(config):
    network = from_official({}, random_state(config))
    arguments = to_official(network)[0]
    assert arguments.items() >= visible(config).items()


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"gpu_ids": [0, 1], "padding_type": "reflect", "use_dropout": False}, {}),
        ({"norm_layer": "InstanceNorm2d"}, {}),
        ({"n_downsampling": 2, "n_blocks": 1}, {}),
    ],
)
def test_variants_of_the_generators_arguments(given, same):
    config = {k: v for k, v in GLOBAL.items() if k in ("netG", "input_nc", "output_nc", "ngf")}
    arguments = to_official(from_official({**config, **given}, random_state(GLOBAL)))[0]
    assert {**GLOBAL, **same}.items() <= arguments.items()


def test_variants_of_the_discriminators_arguments():
    flat = {**DISCRIMINATOR, "getIntermFeat": False, "use_sigmoid": True}
    options = {"input_nc": 2, "ndf": 4, "n_layers": 3, "num_D": 2, "no_ganFeat_loss": True, "no_lsgan": True}
    network = from_official(options, random_state(flat))
    assert (network.return_features, network.sigmoid) == (False, True)
    assert to_official(network)[0].items() >= flat.items()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"ngff": 3}, "ngff.*did you mean 'ngf'"),
        ({"netG": "encoder"}, "encoder"),
        ({"padding_type": "zero"}, "padding_type = 'zero'"),
        ({"use_dropout": True}, "use_dropout"),
        ({"norm": "layer"}, "norm"),
        ({"input_nc": "three"}, "input_nc"),
        ({"ngf": 8}, r"model\.1\.weight: 4x1x7x7 in the weights, 8x1x7x7 in this network"),
        ({"n_downsample_global": 3}, r"model\.24\.weight: not in the weights"),
        ({"n_blocks_global": 0}, r"model\.10\.conv_block\.1\.weight: 16x16x3x3 in the weights, not in"),
        ({"norm": "batch"}, r"model\.2\.running_mean: not in the weights"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, fault):
    with pytest.raises(CheckpointError, match=fault):
        from_official({**GLOBAL, **given}, random_state(GLOBAL))


def test_every_mismatch_is_listed():
    state = random_state(GLOBAL)
    state["model.99.weight"] = state.pop("model.1.bias")
    with pytest.raises(CheckpointError) as refused:
        from_official({**GLOBAL, "ngf": 6}, state)
    wide = [name for name in random_state(GLOBAL) if name != "model.18.bias"]  # which has the bands' number
    assert all(f"{name}: " in str(refused.value) for name in wide)
    assert "model.1.bias: not in the weights, 6 in this network" in str(refused.value)
    assert "model.99.weight: 4 in the weights, not in this network" in str(refused.value)


def test_other_networks_are_named_as_such():
    with pytest.raises(CheckpointError, match=r"not the weights of a pix2pixHD network.*features\.0\.weight"):
        from_official({}, {"features.0.weight": torch.zeros(2, 3, 3, 3)})
    with pytest.raises(CheckpointError, match="not the weights"):
        from_official({}, {"model.1.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="nothing of model1_2"):
        from_official({}, {k: v for k, v in random_state(LOCAL).items() if not k.startswith("model1_2")})


def test_stale_averages_of_old_instance_norms_are_passed_over():
    """PyTorch before 0.4 saved running averages for every instance norm, and used none."""
    state = random_state(GLOBAL)
    old = state | {f"model.2.{k}": torch.zeros(4) for k in ("running_mean", "running_var")}
    network = from_official({}, old)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in state.items())
    with pytest.raises(CheckpointError, match=r"model\.3\.running_mean"):
        from_official({}, state | {"model.3.running_mean": torch.zeros(4)})


@pytest.mark.parametrize("config", [LOCAL, {**DISCRIMINATOR, "norm": "batch"}], ids=config_id)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_saved_file_loads_as_it_is(tmp_path, config, zipped, prefix):
    state = random_state(config)
    path = tmp_path / "latest_net.pth"
    saved = {prefix + k: v for k, v in state.items()}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    network = load_official(path, config)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in state.items())


def test_written_files_are_the_published_form(tmp_path):
    networks = {
        "G": from_official(LOCAL, random_state(LOCAL)),
        "D": from_official(DISCRIMINATOR, random_state(DISCRIMINATOR)),
    }
    networks["G"].to(memory_format=torch.channels_last)
    paths = write_official(tmp_path / "out", networks, epoch="30")
    assert [p.name for p in paths] == ["30_net_G.pth", "30_net_D.pth"]
    for path, network in zip(paths, networks.values(), strict=True):
        state = torch.load(path, weights_only=True)
        assert list(state) == list(network.state_dict())
        assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
        assert all(v.is_contiguous() for v in state.values())
        assert to_official(load_official(path))[0] == to_official(network)[0]
        assert b".part" not in path.read_bytes()  # the process's own name for it
    again = write_official(tmp_path / "again", networks, epoch="30")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


def test_files_that_are_no_weights_are_distinguished(tmp_path):
    path = tmp_path / "latest_net_G.pth"
    whole = tmp_path / "whole.pth"
    torch.save(random_state(GLOBAL), whole)
    cases = {
        b"<!DOCTYPE html><html>sign in</html>": "web page",
        b"version https://git-lfs.github.com/spec/v1\n": "Git LFS",
        whole.read_bytes()[:-100]: "truncated",
        whole.read_bytes()[:20]: "truncated",
        b"": "truncated",
        b"\x00" * 100: "truncated",
        pickle.dumps({"epoch": 3}, protocol=2): "truncated",
    }
    for contents, fault in cases.items():
        path.write_bytes(contents)
        with pytest.raises(CheckpointError, match=fault) as refused:
            read_official(path)
        assert refused.value.where == str(path)
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_official(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"epoch": 3, "state_dict": {}}, "a dict with 'epoch', 'state_dict', not a network's state dict"),
        ({}, "nothing in it"),
        ([torch.zeros(1)], "a list"),
        (Discriminator, "program objects"),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path, value, fault):
    torch.save(value, path := tmp_path / "latest_net_G.pth")
    with pytest.raises(CheckpointError, match=fault):
        load_official(path)


def test_an_error_about_a_file_names_it(tmp_path):
    torch.save(random_state(GLOBAL), path := tmp_path / "latest_net_G.pth")
    with pytest.raises(CheckpointError, match=r"model\.1\.weight") as refused:
        load_official(path, {"ngf": 8})
    assert refused.value.where == str(path)
