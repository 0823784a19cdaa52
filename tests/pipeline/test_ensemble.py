"""Weights of averages: against closed forms, and by the command on a tiny challenge."""

import json
import shutil
import tomllib

import numpy as np
import pytest
import torch
from untrained import record_of, untrained_runs

from pbvs.pipeline.ensemble import least_squares_weights
from pbvs.systems.pix2pixhd.network import Generator, GeneratorConfig
from pbvs.training import checkpoint


def products(members, target):
    return members @ members.T, members @ target


def test_the_mixture_put_in_comes_back():
    members = np.random.default_rng(1).random((4, 5000))
    weights = np.array([0.5, 0.0, 0.2, 0.3])
    found = least_squares_weights(*products(members, weights @ members))
    np.testing.assert_allclose(found, weights, atol=1e-5)


def test_two_members_have_a_closed_form():
    a, b, target = np.random.default_rng(2).random((3, 1000))
    share = np.clip(((target - b) @ (a - b)) / ((a - b) @ (a - b)), 0, 1)
    found = least_squares_weights(*products(np.stack([a, b]), target))
    np.testing.assert_allclose(found, [share, 1 - share], atol=1e-5)


def test_weights_are_not_negative_and_equal_members_share():
    a, b = np.random.default_rng(3).random((2, 1000))
    found = least_squares_weights(*products(np.stack([a, b]), 2 * a - b))  # wants a weight below 0
    np.testing.assert_allclose(found, [1, 0], atol=1e-5)
    found = least_squares_weights(*products(np.stack([a, a]), a))
    np.testing.assert_allclose(found, [0.5, 0.5], atol=1e-3)


def test_weights_by_the_command(challenge, pbvs, tmp_path):
    runs = untrained_runs(challenge, uint16="full", uint16_percent=None, stretches={})
    node = runs.node_folder("sar2rgb", "pix2pixhd")
    shutil.copy(node / "best.safetensors", node / "last.safetensors")
    command = ("data", "prepare", challenge.data, tmp_path / "p", "--task", "sar2rgb")
    assert pbvs(*command, "--tasks", challenge.tasks).code == 0
    toml = tmp_path / "new" / "sar2rgb.toml"
    both = 'nodes.pix2pixhd.inference.checkpoints=["best", "last"]'
    ended = pbvs(
        *("calibrate", "sar2rgb", "--data", tmp_path / "p", "--runs", runs.folder),
        *("--tasks", challenge.tasks),
        *("--set", both, "--set", "data.heldout_fraction=0.5", "--write", toml, "--json"),
    )
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert value["names"] == ["best", "last"] and value["weights"] == pytest.approx([0.5, 0.5], abs=0.01)
    assert value["l2"] == pytest.approx(value["l2_alone"][0], abs=1e-6) and value["pixels"] > 0
    written = tomllib.loads(toml.read_text())["nodes"]["pix2pixhd"]["inference"]
    assert written["weights"] == value["weights"]


def test_a_network_also_loads_without_its_average(tmp_path):
    path = tmp_path / "w.safetensors"
    plain, average = (
        Generator(GeneratorConfig(channels=2, n_downsample=1, blocks=1), 1, 1) for _ in range(2)
    )
    checkpoint.save_weights(path, {"G": plain, "G_ema": average}, record_of())
    for unaveraged, network in ((True, plain), (False, average)):
        state = checkpoint.load_weights(path, unaveraged=unaveraged)[1]["G"]
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
