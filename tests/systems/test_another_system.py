"""A system of another package is used without a change to pbvs: the proof that systems are pluggable.

One layer that doubles the size, after a trained Pix2PixHD: two named stages, a kill, validation, export.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_archives import add_tiles

import pbvs
from pbvs.core.pixels import read_image
from pbvs.training.checkpoint import load_weights

CONFIG = """
from pbvs.dataset.views import View
from pbvs.systems.config import TrainedConfig
from pbvs.systems.registry import SystemRecord

class DoublingConfig(TrainedConfig):
    kernel: int = 3

DOUBLING = SystemRecord(
    version=1,
    config=DoublingConfig,
    code="doubling_code:Doubling",
    phases=lambda config: ("net",),
    views={"source": View(of="source", low=2), "target": View(of="target")},
    scale=lambda config: 2,
)
"""
CODE = """
import os, signal
import torch
from torch import nn
from torch.nn import functional as F
from pbvs.training.system import Phase, System

def network(config, bands):
    return nn.Conv2d(bands["source"], bands["target"], config.kernel, padding=config.kernel // 2)

class Doubling(System):
    translators = ("net",)

    def __init__(self, config, context):
        torch.manual_seed(context.seed)
        self.networks = {"net": network(config, context.bands)}
        betas = config.training.betas_of("net")
        self.optimizers = {"net": torch.optim.Adam(self.networks["net"].parameters(), betas=betas)}
        self.stages = []

    def begin_step(self, point):
        if os.environ.get("KILL_IN") == point.stage and point.epoch > point.previous_epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    def phases(self, point):
        loss = F.l1_loss if point.stage == "rough" else F.mse_loss

        def losses(batch):
            fake = self.translate(self.networks, batch.source)
            return {point.stage: loss(torch.where(batch.mask, fake, batch.target), batch.target)}

        return (Phase("net", losses),)

    @classmethod
    def inference_networks(cls, config, bands):
        return {"net": network(config, bands)}

    @classmethod
    def translate(cls, networks, source):
        return F.interpolate(networks["net"](source).tanh(), scale_factor=2)

    @classmethod
    def export(cls, config, bands, states, folder, *, overwrite):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(states["net"]), folder / "doubling.pth")
        return {folder / "doubling.pth": f"kernel {config.kernel}"}
"""
TASK = """
task = "sar2eo"
source = "sar"
target = "eo"
size_px = 64
output = "doubling"
[data]
heldout_fraction = 0.4
validate_images = 2
[nodes.first]
use = "pix2pixhd"
inputs = ["source"]
size_px = 32
generator = { channels = 2, n_downsample = 1, blocks = 0 }
discriminator = { channels = 2, layers = 1, scales = 1 }
losses = { vgg = 0, lpips = 0 }
training = { stages = [{ epochs = 1, learning_rate = 1e-3 }] }
[nodes.doubling]
use = "doubling"
inputs = ["first"]
[nodes.doubling.training]
batch_size = 1
checkpoint_every_images = 1
ema = 0.9
stages = [
  { name = "rough", epochs = 1, learning_rate = 1e-2 },
  { name = "fine", epochs = 2, learning_rate = { net = 1e-3 }, decay = "linear" },
]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the other package, its task, prepared data, and a trained first node."""
    root = tmp_path_factory.mktemp("house")
    package = root / "package"
    about = package / "doubling-1.0.dist-info"
    about.mkdir(parents=True)
    (package / "doubling_config.py").write_text(CONFIG)
    (package / "doubling_code.py").write_text(CODE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: doubling\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[pbvs.systems]\ndoubling = doubling_config:DOUBLING\n")
    (root / "tasks").mkdir()
    (root / "tasks" / "sar2eo.toml").write_text(TASK)
    add_tiles(root / "archives", n=10, size=64)
    ended = command(root, "data", "prepare", "archives", "prepared", "--tasks", "tasks", "--task", "sar2eo")
    assert ended.returncode == 0, ended.stderr
    return root


def command(root, *args, **environment):
    paths = os.pathsep.join((str(root / "package"), str(Path(pbvs.__file__).parents[1])))
    return subprocess.run(
        [sys.executable, "-m", "pbvs", *map(str, args)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def train(root, runs, **environment):
    options = ("--data", "prepared", "--tasks", "tasks", "--weights", "standin", "--device", "cpu")
    return command(root, "train", "sar2eo", *options, "--runs", runs, "--data-workers", "0", **environment)


@pytest.fixture(scope="module")
def runs(place):
    """A run that was killed in its second stage and resumed, and one that was not."""
    killed = train(place, "runs", KILL_IN="fine")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    record, _ = load_weights(place / "runs" / "sar2eo" / "doubling" / "last.safetensors")
    assert 0 < record.images_seen < 18  # it can translate already, and says from how many images
    for name in ("runs", "whole"):
        ended = train(place, name)
        assert ended.returncode == 0, ended.stderr
    return place / "runs", place / "whole"


def test_tasks_show_prints_its_version_and_views(place):
    ended = command(place, "tasks", "show", "sar2eo", "--tasks", "tasks", "--json")
    node = json.loads(ended.stdout)["nodes"][1]
    assert (node["use"], node["system_version"]) == ("doubling", 1)
    assert node["views"] == {"source": "first, 1/2 by area", "target": "target"}
    assert "doubling" in command(place, "tasks", "list", "--tasks", "tasks").stdout


def test_a_killed_run_resumes_to_the_same_weights(runs):
    resumed, whole = (load_weights(r / "sar2eo" / "doubling" / "last.safetensors") for r in runs)
    assert resumed[0].images_seen == whole[0].images_seen == 18
    for name, tensor in whole[1]["net"].items():
        assert torch.equal(tensor, resumed[1]["net"][name]), name


def test_each_stage_has_its_losses_and_rates(runs):
    lines = (runs[1] / "sar2eo" / "doubling" / "curves.csv").read_text().splitlines()
    assert {"rough", "fine"} <= set(lines[0].split(","))


def test_it_is_validated_at_the_task_s_size(runs):
    folder = runs[0] / "sar2eo" / "doubling"
    assert "score" in (folder / "validation.csv").read_text()
    record, _ = load_weights(folder / "best.safetensors")
    assert record.best_score is not None
    assert (record.system, record.version) == ("doubling", 1)
    grid = read_image(next((folder / "samples").iterdir()))
    assert grid.shape == (2 * 64, 3 * 64, 3)


def test_it_is_trained_on_what_the_node_before_it_makes(place, runs):
    """The captures are those of the first node, at its size; translating by that node gives the same."""
    (derived,) = (runs[0] / "sar2eo" / "doubling.derived").iterdir()
    (place / "inputs").mkdir()
    source = place / "archives" / "Train_Data_and_Validation_EO_SAR" / "SAR" / "train" / "Gotcha_0.png"
    (place / "inputs" / "0.png").write_bytes(source.read_bytes())
    ended = translate(place, "first", "--to", "first")
    assert ended.returncode == 0, ended.stderr
    capture = read_image(derived / "eo_sar" / "tiles" / "train" / "sar" / "Gotcha_0.tif")
    assert capture.shape == (32, 32, 1)
    # The command resizes to the task's size what the training keeps as it is.
    assert read_image(place / "first" / "0.png").shape == (64, 64, 1)


def translate(place, out, *more):
    args = ("--inputs", "inputs", "--out", out, "--tasks", "tasks", "--runs", "runs", "--device", "cpu")
    return command(place, "translate", "sar2eo", *args, *more)


def test_it_translates_at_another_size_than_its_input(place, runs):
    """The network reads 32 pixels, gives 64, and is given what `first` makes in whole numbers."""
    ended = translate(place, "second", "--overwrite")
    assert ended.returncode == 0, ended.stderr
    assert "sar2eo.doubling" in ended.stdout
    assert "images" in ended.stdout
    assert read_image(place / "second" / "0.png").shape == (64, 64, 1)


def test_it_exports_its_weights(place, runs):
    ended = command(place, "weights", "export", "runs/sar2eo/doubling/best.safetensors", "--out", "official")
    assert ended.returncode == 0, ended.stderr
    assert "kernel 3" in ended.stdout
    state = torch.load(place / "official" / "doubling.pth", weights_only=True)
    assert state["weight"].shape == (1, 1, 3, 3)


def test_another_version_starts_over_and_says_so_first(place, runs):
    """What the run holds is moved aside, not deleted."""
    config = place / "package" / "doubling_config.py"
    config.write_text(CONFIG.replace("version=1", "version=2"))
    try:
        refused = translate(place, "third")
        assert refused.returncode == 1
        assert "version 1 of doubling; this is version 2" in refused.stderr
        ended = train(place, "whole")
    finally:
        config.write_text(CONFIG)
    assert ended.returncode == 0, ended.stderr
    assert "system changed from doubling version 1 to doubling version 2" in ended.stderr
    assert "moved aside" in ended.stderr
    assert (runs[1] / "sar2eo" / "doubling.previous-1" / "last.safetensors").is_file()
