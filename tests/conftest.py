"""Fixtures for tests of whole commands: the command line in this process, and a tiny challenge."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_archives import BASE_CRS, add_location, add_tiles, affine, colours, ground, infrared, write_tiff

from pbvs.cli import main as cli
from pbvs.core.pixels import write_png


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """A cache and a ledger for these tests alone: nothing is kept between runs, the user's are untouched."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PBVS_CACHE", str(tmp_path_factory.mktemp("cache") / "pbvs"))
        patched.setenv("PBVS_LEDGER", str(tmp_path_factory.mktemp("ledger") / "ledger.sqlite"))
        yield


@pytest.fixture
def archives(tmp_path) -> Path:
    """One location of two flights, and two tiles."""
    root = tmp_path / "archives"
    add_location(root, flights=2)
    add_tiles(root, n=2)
    return root


TASK_FILES = {
    "sar2eo": """
extends = "{tasks}/sar2eo.toml"
size_px = 64
[data]
validate_images = 0
""",
    "sar2rgb": """
extends = "{tasks}/sar2rgb.toml"
size_px = 64
[data]
validate_images = 0
draws_per_location = 2
[nodes.pix2pixhd]
size_px = 32
""",
    "rgb2ir": 'extends = "{tasks}/rgb2ir.toml"\nsize_px = 64\n',
    "sar2ir": 'extends = "{tasks}/sar2ir.toml"\nsize_px = 64\n',
}
SMALL_NETWORK = """
[nodes.pix2pixhd.generator]
channels = 4
n_downsample = 1
blocks = 1
[nodes.pix2pixhd.discriminator]
channels = 4
layers = 1
[nodes.pix2pixhd.losses]
vgg = 0.0
lpips = 0.0
[nodes.pix2pixhd.training]
batch_size = 2
stages = [{ epochs = 2, learning_rate = 1e-3 }]
"""


@dataclass
class Ended:
    """How a command ended: exit code, what it wrote to stdout and to stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def pbvs(capsys, monkeypatch):
    """Runs `pbvs ARGS...` in this process."""

    def run(*args: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["pbvs", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(exited.value.code, out, err)

    return run


@dataclass
class Challenge:
    """Folders of a tiny challenge: archives, test inputs and targets, task files."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "archives"

    @property
    def test(self) -> Path:
        return self.root / "test"

    @property
    def targets(self) -> Path:
        return self.root / "test_targets"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks"

    def run_args(self, *tasks: str, out: str = "out") -> list[object]:
        return [
            *("run", *tasks, "--data", self.data, "--test", self.test, "--tasks", self.tasks),
            *("--runs", self.root / out / "runs", "--out", self.root / out, "--weights", "standin"),
        ]


@pytest.fixture
def challenge(tmp_path) -> Challenge:
    """Four tiny tasks over generated archives, three test images each."""
    return generate_challenge(tmp_path)


@pytest.fixture(scope="session")
def _challenge_run_once(tmp_path_factory) -> Path:
    generated = generate_challenge(tmp_path_factory.mktemp("challenge"))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr("sys.argv", ["pbvs", *map(str, generated.run_args(*TASK_FILES))])
        cli.main()
    assert ended.value.code == 0
    return generated.root


@pytest.fixture
def done(_challenge_run_once, tmp_path) -> Challenge:
    """A challenge of which all four tasks were run, in a copy of its own."""
    shutil.copytree(_challenge_run_once, tmp_path, dirs_exist_ok=True)
    return Challenge(tmp_path)


def generate_challenge(root: Path) -> Challenge:
    challenge = Challenge(root)
    add_tiles(challenge.data, n=6, size=64)
    for i, city in enumerate(("Bingham", "Manhattan")):
        add_location(challenge.data, city, f"40.6461{i}_-112.18230", flights=2)
    for i in range(3):
        _add_test_images(challenge, i)
    challenge.tasks.mkdir()
    real_tasks = Path(__file__).parents[1] / "tasks" / "winning2024"
    for task, text in TASK_FILES.items():
        network = SMALL_NETWORK if "pix2pixhd" in (real_tasks / f"{task}.toml").read_text() else ""
        # Without init_from: that table comes with the file that is extended.
        (challenge.tasks / f"{task}.toml").write_text(text.format(tasks=real_tasks) + network)
    return challenge


def _add_test_images(challenge: Challenge, i: int) -> None:
    rgb = colours((1 - 0.2 * i) * ground((64, 64), BASE_CRS, affine()))
    sar = np.ascontiguousarray(255 - rgb[:, :, :1])
    write_png(challenge.test / "sar2eo" / f"{i}.png", sar)
    write_tiff(challenge.test / "sar2rgb" / f"{i}.tiff", sar[:50, :60])
    write_tiff(challenge.test / "sar2ir" / f"{i}.tiff", sar[:50, :60])
    write_tiff(challenge.test / "rgb2ir" / f"{i}.tiff", rgb)
    write_png(challenge.targets / "sar2eo" / f"{i}.png", rgb[:, :, :1])
    write_png(challenge.targets / "sar2rgb" / f"{i}.png", rgb)
    for task in ("rgb2ir", "sar2ir"):
        write_png(challenge.targets / task / f"{i}.png", infrared(rgb)[:, :, None])
