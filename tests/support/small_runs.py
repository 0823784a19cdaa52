"""Runs small enough for tests: pairs that follow from their number, tiny networks, jobs of them.

As a program it trains in a process of its own: `python small_runs.py FOLDER JSON`, JSON as `Options` has it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

import pbvs
from pbvs.core.fabric import make_fabric
from pbvs.pipeline.validation import Validation
from pbvs.systems.pix2pixhd.losses import LossWeights
from pbvs.systems.pix2pixhd.network import DiscriminatorConfig, GeneratorConfig
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training import checkpoint, loop
from pbvs.training.interrupt import Interrupted
from pbvs.training.loop import Job, Trainer
from pbvs.training.schedule import TrainingConfig

IMAGES_PER_EPOCH = 6
STAGES = [{"epochs": 2, "learning_rate": 1e-3}, {"epochs": 2, "learning_rate": 1e-3, "decay": "linear"}]
# Everything at once that keeps something from step to step.
ALL_ON = {"batch_size": 2, "accumulate": 2, "ema": 0.9, "pool_size": 3, "clip_norm": 1.0}


class Pairs(torch.utils.data.Dataset):
    """A pair that follows from its number; half of every other image is masked."""

    side_px = 32

    def __getitem__(self, n):
        draw = torch.Generator().manual_seed(n)
        source = torch.randint(0, 256, (1, self.side_px, self.side_px), dtype=torch.uint8, generator=draw)
        mask = torch.ones(1, self.side_px, self.side_px, dtype=torch.bool)
        mask[:, :, self.side_px // 2 :] = n % 2 == 0
        return {"source": source, "target": 255 - source, "mask": mask, "name": f"pair {n}"}


class SignalAt(Pairs):
    """Sends a signal to the process that trains while pair `n` is read, or to its group: workers too."""

    def __init__(self, n, signal_number, group=False):
        self.n, self.signal_number = n, signal_number
        self.process = os.getpid()
        self.send = os.killpg if group else os.kill

    def __getitem__(self, n):
        if n == self.n:
            self.send(self.process, self.signal_number)
        return super().__getitem__(n)


class Fixed:
    """Stands for a validator: scores that are given, by the number of validations before."""

    def __init__(self, *scores):
        self.scores, self.asked = list(scores), []

    def score(self, network, images_seen):
        self.asked.append((network, images_seen))
        return Validation({"score": self.scores[len(self.asked) - 1]}, np.zeros((2, 6, 3), np.uint8))


class Looking:
    """Stands for a validator: the score follows from the weights."""

    def score(self, network, images_seen):
        first = next(iter(network.parameters()))
        return Validation({"score": float(first.detach().abs().sum())}, np.zeros((2, 6, 3), np.uint8))


@dataclass
class Options:
    """What differs between runs; `signal_at` has the arguments of `SignalAt`."""

    training: dict = field(default_factory=dict)
    generator: dict = field(default_factory=dict)
    losses: dict = field(default_factory=dict)
    signal_at: tuple[int, int] | tuple[int, int, bool] | None = None
    validates: bool = False
    data_workers: int = 0
    devices: int = 1
    images_per_epoch: int = IMAGES_PER_EPOCH
    log_every_steps: int = 20


def config(**training) -> TrainingConfig:
    return TrainingConfig(**{"stages": STAGES, "batch_size": 2, **training})


def small_model(training: TrainingConfig | None = None, generator=None, losses=None, bands=(1, 1)):
    training = training or config()
    return Pix2PixHD(
        GeneratorConfig(**{"channels": 4, "downsamplings": 1, "blocks": 1, **(generator or {})}),
        DiscriminatorConfig(channels=4, layers=1, scales=2),
        bands,
        LossWeights(**{"vgg": 0, "lpips": 0, **(losses or {})}),
        training.betas,
        seed=3,
        metric_weights="standin",
        pool_size=training.pool_size,
        fix_global_epochs=training.fix_global_epochs,
    )


def one_cpu() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def trainer(folder: Path, *, dataset=None, validator=None, fabric=None, warn=None, report=None, **options):
    """A trainer of one of these runs; options as `Options` has them."""
    chosen = Options(**options)
    training = config(**chosen.training)
    loop._LOG_EVERY_STEPS = chosen.log_every_steps
    if dataset is None:
        dataset = SignalAt(*chosen.signal_at) if chosen.signal_at else Pairs()
    folder.mkdir(exist_ok=True)
    job = Job(
        folder,
        {"task": "t", "node": "n", "size_px": [32, 32]},
        small_model(training, chosen.generator, chosen.losses),
        training,
        dataset,
        chosen.images_per_epoch,
        validator or (Looking() if chosen.validates else None),
        chosen.data_workers,
    )
    return Trainer(job, fabric or one_cpu(), report or (lambda *told: None), warn)


def train(folder: Path, **options):
    return trainer(folder, **options).run()


def networks(folder: Path, name=checkpoint.LAST):
    """All tensors of a weights file."""
    from safetensors.torch import load_file

    return load_file(folder / name)


def child(folder: Path, environment: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """Begins to train in a process of its own, the first of a group."""
    root = Path(pbvs.__file__).parents[1]
    given = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, str(folder), json.dumps(asdict(Options(**options)))]
    env = os.environ | given | (environment or {})
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )


def main() -> None:
    """Trains as told by the command line; exits as `pbvs` does when a signal stops it."""
    options = json.loads(sys.argv[2])
    torch.set_num_threads(1)
    fabric = make_fabric("cpu", options["devices"])
    try:
        train(Path(sys.argv[1]), fabric=fabric, **options)
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may have it ignored
    main()
