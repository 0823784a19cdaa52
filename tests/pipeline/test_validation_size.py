"""`best` is chosen at the task's own size, on what translation would write, where the data has that size."""

import re

import numpy as np
import pytest
import torch
from made_archives import add_location

from pbvs.core import pixels
from pbvs.core.device import make_fabric
from pbvs.dataset.index import PreparedData
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.node_training import NodeTraining, validation_size_px
from pbvs.pipeline.pair_table import heldout_pairs, pair_table
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.train import train_node
from pbvs.pipeline.translator import Translator
from pbvs.prepare.prepare import prepare
from pbvs.prepare.rasters import read_valid, read_values

TASK = """
task = "sar2rgb"
source = "sar"
target = "rgb"
size_px = 64
output = "net"
[data]
heldout_fraction = 0.5
[nodes.net]
use = "pix2pixhd"
inputs = ["source"]
size_px = 32
generator = { channels = 4, n_downsample = 1, blocks = 1 }
discriminator = { channels = 4, layers = 1 }
losses = { vgg = 0.0, lpips = 0.0 }
training = { stages = [{ epochs = 1, learning_rate = 1e-3 }] }
"""
N_LOCATIONS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Archives, a task whose network works at half its size, and captures prepared at both sizes."""
    root = tmp_path_factory.mktemp("sizes")
    for i in range(N_LOCATIONS):
        add_location(root / "archives", "Bingham", f"40.6461{i}_-112.18230")
    (root / "tasks").mkdir()
    (root / "tasks" / "sar2rgb.toml").write_text(TASK)
    for side in (32, 64):
        size_px = (side, side)
        prepare(
            root / "archives",
            root / str(side),
            modalities=("sar", "rgb"),
            families=("stack",),
            size_px=size_px,
        )
    return root


def training_of(folder, runs, validation=None, **overrides):
    task_set = TaskSet(folder / "tasks", {"sar2rgb": overrides})
    [node] = task_set.graph("sar2rgb").trained
    return NodeTraining(
        *(task_set, "sar2rgb", node, folder / "32", Runs(runs), "standin"), validation=validation
    )


def trained(training):
    """The warnings of a training, and its sample grid: a row `source | pred | target` per held-out pair."""
    warnings = []
    train_node(training, make_fabric("cpu"), lambda *numbers: None, warn=warnings.append)
    [grid] = (training.folder / "samples").iterdir()
    return warnings, pixels.read_image(grid)


def heldout_of(training):
    return pair_table(training.spec, PreparedData.open(training.prepared)).locations("heldout")


def test_with_a_validation_folder_at_the_task_s_size_on_what_translation_writes(folder, tmp_path):
    training = training_of(folder, tmp_path, folder / "64")
    assert validation_size_px(training) == (64, 64)
    warnings, grid = trained(training)
    locations = heldout_of(training)
    assert 2 <= len(locations) < N_LOCATIONS
    assert not warnings
    assert grid.shape == (64 * len(locations), 3 * 64, 3)
    translator = Translator(training.tasks, "sar2rgb", training.runs, torch.device("cpu"))
    pairs = heldout_pairs(training.spec, PreparedData.open(folder / "64"), locations)
    for n in range(len(locations)):
        pair = pairs.pair_at(n)
        assert pair.location == locations[n]  # the held-out ones of the training data
        source, target, pred = (grid[64 * n : 64 * (n + 1), 64 * k : 64 * (k + 1)] for k in (0, 2, 1))
        stored, valid = read_values(pair.source.path), read_valid(pair.source.path)
        assert np.array_equal(target, read_values(pair.target.path))
        assert valid.all()
        assert np.array_equal(pred, translator.stored(stored))
        small = pixels.resize(stored, (32, 32))
        assert np.array_equal(source[:, :, :1], pixels.resize(small, (64, 64)))  # as the network reads it


def test_without_one_at_the_prepared_size_and_says_so(folder, tmp_path):
    training = training_of(folder, tmp_path)
    assert validation_size_px(training) == (32, 32)
    warnings, grid = trained(training)
    assert grid.shape == (32 * len(heldout_of(training)), 3 * 32, 3)
    [line] = warnings
    assert line == (
        "sar2rgb.net: validated at 32 x 32 px, the prepared size; the task's is 64 x 64: "
        "--validation-data names a folder prepared at that size"
    )


@pytest.mark.parametrize(
    ("overrides", "size_px"),
    [
        ({"nodes.net.size_px": 64}, (32, 32)),  # what is prepared is smaller still
        ({"size_px": 32}, (32, 32)),  # the task itself is: nothing to say
        ({"target": "eo"}, (64, 64)),  # tiles are prepared at their own size
    ],
)
def test_the_size_follows_from_task_and_data(folder, tmp_path, overrides, size_px):
    assert validation_size_px(training_of(folder, tmp_path, **overrides)) == size_px


def test_a_node_that_learns_another_target_is_validated_at_its_own_size(folder, tmp_path):
    """A gray view of the target is not the task's image: scores at the task's size would not compare."""
    gray = {"nodes.net.views": {"target": {"of": "target", "gray": True}}, "target": "ir"}
    training = training_of(folder, tmp_path, folder / "64", **gray)
    assert not training.validates_at_task_size
    assert validation_size_px(training) == (32, 32)


def test_the_chain_prepares_the_held_out_locations_at_the_task_s_size(folder, tmp_path, pbvs):
    """In a folder of their own, which is named after the size and the fraction held out."""
    runs = tmp_path / "runs"
    ended = pbvs(
        *("run", "sar2rgb", "--data", folder / "archives", "--tasks", folder / "tasks", "--runs", runs),
        *("--out", tmp_path / "out", "--weights", "standin", "--device", "cpu", "--to", "sar2rgb.train"),
    )
    assert ended.code == 0, ended.err
    assert "validated at" not in ended.err
    prepared = runs / "prepared"
    assert {path.name for path in prepared.iterdir()} == {"stack-32x32", "stack-64x64-heldout-0.5"}
    whole, heldout = (
        PreparedData.open(prepared / f"stack-{name}") for name in ("32x32", "64x64-heldout-0.5")
    )
    training = training_of(folder, runs)
    locations = pair_table(training.spec, whole).locations("heldout")
    assert set(heldout.table.location) == {location for _, _, location in locations}
    assert len(set(whole.table.location)) == N_LOCATIONS
    [grid] = (training.folder / "samples").iterdir()
    assert pixels.read_image(grid).shape == (64 * len(locations), 3 * 64, 3)
    order = re.findall(r"^(\S+) +doing", ended.err, re.MULTILINE)
    assert order == ["prepare.stack-32x32", "prepare.stack-64x64-heldout-0.5", "sar2rgb.train"]
