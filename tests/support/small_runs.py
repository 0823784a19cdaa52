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
from untrained import record_of

import pbvs
from pbvs.core.device import make_fabric
from pbvs.dataset.batches import model_batch
from pbvs.systems.pix2pixhd.config import Pix2PixHDConfig
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training import checkpoint, loop
from pbvs.training.interrupt import Interrupted
from pbvs.training.loop import Job, Trainer, Validation
from pbvs.training.schedule import TrainingConfig
from pbvs.training.system import SystemContext, unwrap

IMAGES_PER_EPOCH = 6
STAGES = [{"epochs": 2, "learning_rate": 1e-3}, {"epochs": 2, "learning_rate": 1e-3, "decay": "linear"}]
# With these two, everything that carries over from step to step is on.
ALL_ON = {"batch_size": 2, "accumulate": 2, "ema": 0.9, "clip_norm": 1.0}
POOL = {"pool_size": 3}


class Pairs(torch.utils.data.Dataset):
    """A pair that follows from its number; half of every other image is masked."""

    side_px = 32

    def __getitem__(self, n):
        rng = torch.Generator().manual_seed(n)
        source = torch.randint(0, 256, (1, self.side_px, self.side_px), dtype=torch.uint8, generator=rng)
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
    """A validator with given scores, one per validation; notes at how many images it was called."""

    size_px = None

    def __init__(self, *scores):
        self.scores, self.validated = list(scores), []

    def score(self, translation, images_seen):
        self.validated.append(images_seen)
        return Validation({"score": self.scores[len(self.validated) - 1]}, np.zeros((2, 6, 3), np.uint8))


class Looking:
    """A validator whose score follows from the weights."""

    size_px = None

    def score(self, translation, images_seen):
        first = next(iter(translation.networks["G"].parameters()))
        return Validation({"score": float(first.detach().abs().sum())}, np.zeros((2, 6, 3), np.uint8))


@dataclass
class Options:
    """What differs between runs; `signal_at` has the arguments of `SignalAt`."""

    training: dict = field(default_factory=dict)
    system: dict = field(default_factory=dict)
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


def small_config(
    training: TrainingConfig | None = None, generator=None, losses=None, **system
) -> Pix2PixHDConfig:
    return Pix2PixHDConfig(
        generator={"channels": 4, "n_downsample": 1, "blocks": 1, **(generator or {})},
        discriminator={"channels": 4, "layers": 1, "scales": 2},
        losses={"vgg": 0, "lpips": 0, **(losses or {})},
        training=training or config(),
        **system,
    )


def small_system(training: TrainingConfig | None = None, generator=None, losses=None, bands=(1, 1), **system):
    context = SystemContext(dict(zip(("source", "target"), bands, strict=True)), 3, "standin")
    return Pix2PixHD(small_config(training, generator, losses, **system), context)


def batch_of(*numbers):
    items = [Pairs()[n] for n in numbers]
    return model_batch(torch.utils.data.default_collate(items), torch.device("cpu"))


def weights(system):
    return {
        f"{n}.{k}": v.clone()
        for n, net in system.networks.items()
        for k, v in unwrap(net).state_dict().items()
    }


def largest_difference(a, b):
    return max(float((a[k] - b[k]).abs().max()) for k in a)


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
        record_of(),
        small_system(training, chosen.generator, chosen.losses, **chosen.system),
        training,
        dataset,
        chosen.images_per_epoch,
        validator or (Looking() if chosen.validates else None),
        chosen.data_workers,
    )
    return Trainer(job, fabric or one_cpu(), report or (lambda *progress: None), warn)


def train(folder: Path, **options):
    return trainer(folder, **options).run()


def networks(folder: Path, name=checkpoint.LAST):
    """All tensors of a weights file."""
    from safetensors.torch import load_file

    return load_file(folder / name)


def assert_last_is_the_state(folder: Path, images_seen: int) -> None:
    """`last.safetensors` of a run that was stopped loads, and holds the weights of its training state."""
    state = checkpoint.load_state(folder / checkpoint.STATE)
    assert state["images_seen"] == images_seen
    for unaveraged, expected in ((True, state["networks"]), (False, state["networks"] | state["averages"])):
        record, weights = checkpoint.load_weights(folder / checkpoint.LAST, unaveraged=unaveraged)
        assert record.images_seen == images_seen
        assert weights.keys() == expected.keys()
        for name, tensors in expected.items():
            assert weights[name].keys() == tensors.keys()
            assert all(torch.equal(weights[name][key], value) for key, value in tensors.items()), name


def child(folder: Path, environment: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """Starts training in a process of its own, the first of a group."""
    root = Path(pbvs.__file__).parents[1]
    settings = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, str(folder), json.dumps(asdict(Options(**options)))]
    env = os.environ | settings | (environment or {})
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )


def main() -> None:
    """Trains with the command line's options; exits as `pbvs` does when a signal stops it."""
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
