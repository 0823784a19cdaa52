"""What pbvs 0.1.0 left behind is still of use: its runs are resumed, its weights translate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pbvs.core.pixels import read_image, write_png
from pbvs.training.checkpoint import load_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "run_0_1_0"
TASKS = Path(__file__).parents[2] / "tasks" / "winning2024"
TASK = f"""
extends = "{TASKS}/sar2eo.toml"
size_px = 64
[data]
validate_images = 0
[nodes.pix2pixhd]
pool_size = 3
generator = {{ channels = 4, n_downsample = 1, blocks = 1 }}
discriminator = {{ channels = 4, layers = 1 }}
losses = {{ vgg = 0.0, lpips = 0.0 }}
training = {{ batch_size = 1, ema = 0.99, stages = [{{ epochs = 2, learning_rate = 1e-3 }}] }}
"""


@pytest.fixture
def train(tmp_path, pbvs):
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sar2eo.toml").write_text(TASK)
    options = ("--tasks", tmp_path / "tasks", "--runs", tmp_path / "runs", "--weights", "standin")

    def run(*more):
        where = ("--data", tmp_path / "prepared", "--device", "cpu", "--data-workers", 0)
        return pbvs("train", "sar2eo", *options, *where, *more)

    return run


def test_a_run_is_resumed_once_with_a_word_and_ends_as_it_would_have(train, tmp_path):
    ended = train()
    assert ended.code == 0, ended.err
    assert "resumes a run begun by pbvs 0.1.0" in ended.err
    assert "10 images" in ended.out
    folder = tmp_path / "runs" / "sar2eo" / "pix2pixhd"
    assert [p.name for p in folder.parent.iterdir()] == ["pix2pixhd"]  # nothing was moved aside
    record, ours = load_weights(folder / "last.safetensors")
    _, theirs = load_weights(GOLDEN / "finished" / "last.safetensors")
    assert (record.system, record.version, record.images_seen) == ("pix2pixhd", 1, 10)
    for network in ("G", "D"):
        for name, tensor in theirs[network].items():
            if name.endswith("weight"):  # a bias in front of a norm is moved by rounding alone
                assert (ours[network][name] - tensor).abs().mean() < 1e-5, (network, name)
    again = train()
    assert "finished before" in again.out
    assert "0.1.0" not in again.err
    assert json.loads((folder / "run.json").read_text())["schema"] == 2


def test_changed_settings_still_start_over_and_keep_the_old_run(train, tmp_path):
    ended = train("--set", "nodes.pix2pixhd.training.seed=1")
    assert ended.code == 0, ended.err
    assert "task settings changed" in ended.err
    assert (tmp_path / "runs" / "sar2eo" / "pix2pixhd.previous-1" / "training_state.pt").is_file()


def test_its_weights_translate(train, pbvs, tmp_path):
    write_png(tmp_path / "in" / "0.png", np.full((80, 70, 1), 90, np.uint8))
    weights = GOLDEN / "finished" / "best.safetensors"
    options = ("--tasks", tmp_path / "tasks", "--inputs", tmp_path / "in", "--out", tmp_path / "out")
    ended = pbvs("translate", "sar2eo", *options, "--checkpoint", weights, "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "from 10 training images" in ended.out
    assert read_image(tmp_path / "out" / "0.png").shape == (64, 64, 1)


def test_its_task_file_is_answered_with_the_new_keys(train, pbvs, tmp_path):
    text = (GOLDEN / "task_of_0_1_0.toml").read_text().replace("../sar2eo.toml", f"{TASKS}/sar2eo.toml")
    (tmp_path / "tasks" / "sar2eo.toml").write_text(text)
    ended = pbvs("tasks", "show", "sar2eo", "--tasks", tmp_path / "tasks")
    assert ended.code == 2
    assert "generator.downsamplings: unknown key; it is now generator.n_downsample" in ended.err
    assert "training.pool_size: unknown key; it is now pool_size" in ended.err
