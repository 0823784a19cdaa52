"""One side of the comparison of training steps, in a process of its own; prints its times as JSON.

    python benchmarks/train_step_side.py '{"measures": ["memory", "adam"], "size_px": 256}'

See `Side` for what may be given, and `train_step.py` for the comparison.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from pbvs.core import pixels
from pbvs.core.malloc import keep_freed_memory
from pbvs.dataset.batches import Batch
from pbvs.networks.layers import InstanceNorm, init_weights
from pbvs.perceptual.pixel_errors import l2
from pbvs.perceptual.vgg import VggDistance
from pbvs.systems.pix2pixhd.config import DiscriminatorConfig, GeneratorConfig, LossWeights, Pix2PixHDConfig
from pbvs.systems.pix2pixhd.network import Discriminator, Generator
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training.step import train_step
from pbvs.training.system import SchedulePoint, SystemContext, unwrap

LOSSES = {"original": LossWeights(lpips=0.0, l2=0.0), "winning": LossWeights()}
VGG_WEIGHTS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}  # by torchvision's index
LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)


@dataclass(frozen=True)
class Side:
    """What one side is.

    Attributes:
        measures: none of them is the official step; `memory` keeps freed memory, `adam` fuses Adam,
            `pass` takes the production step, with both.
        size_px, bands, losses, precision, device: the same for both sides, but for the precision.
        steps, warmup: counted, and not counted before.
        checkpointing, channels_last: switches of the production step.
    """

    measures: tuple[str, ...] = ()
    size_px: int = 256
    bands: tuple[int, int] = (1, 3)
    losses: str = "original"
    precision: str = "fp32"
    device: str = "cpu"
    steps: int = 5
    warmup: int = 1
    checkpointing: bool = False
    channels_last: bool = False


class Clock:
    """Seconds by name; waits for the device before it looks."""

    def __init__(self, device: str):
        self.cuda, self.seconds = device == "cuda", defaultdict(list)
        self.on, self._sums, self._last = True, defaultdict(float), 0.0

    def now(self) -> float:
        if self.cuda and self.on:
            torch.cuda.synchronize()
        return time.perf_counter()

    def start(self) -> None:
        self._last = self.now()

    def tick(self, name: str) -> None:
        """Counts the time since the last look as `name`'s."""
        now = self.now()
        self._sums[name] += now - self._last
        self._last = now

    def timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.tick("rest")
            found = call(*args, **kwargs)
            self.tick(name)
            return found

        return run

    def end_step(self) -> None:
        self.tick("rest")
        for name, seconds in self._sums.items():
            self.seconds[name].append(seconds)
        self._sums.clear()


def batch_of(side: Side) -> Batch:
    draw = torch.Generator().manual_seed(5)
    size = (side.size_px, side.size_px)
    source, target = (torch.rand(1, n, *size, generator=draw).mul(2).sub(1) for n in side.bands)
    mask = torch.ones(1, 1, *size, dtype=torch.bool)
    views = {"source": source.to(side.device), "target": target.to(side.device)}
    return Batch(views, mask.to(side.device), ("one",))


class Official:
    """The published order of work, written plainly; networks as published, with their in-place ReLUs."""

    def __init__(self, side: Side, clock: Clock):
        self.side, self.clock = side, clock
        networks = (
            Generator(GeneratorConfig(), *side.bands),
            Discriminator(DiscriminatorConfig(), sum(side.bands)),
        )
        draw = torch.Generator().manual_seed(0)
        for network in networks:
            init_weights(network, draw)
        self.generator, self.discriminator = (_as_published(n).to(side.device) for n in networks)
        fused = True if "adam" in side.measures else None  # None is PyTorch's own choice
        self.adam_g, self.adam_d = (
            torch.optim.Adam(n.parameters(), LEARNING_RATE, BETAS, fused=fused)
            for n in (self.generator, self.discriminator)
        )
        self.weights = LOSSES[side.losses]
        self.vgg = VggDistance("standin").to(side.device)
        self.lpips = None
        if self.weights.lpips:
            from pbvs.perceptual.lpips import PerceptualDistance

            self.lpips = PerceptualDistance("standin", check_range=False).to(side.device)

    def step(self, batch: Batch) -> dict[str, float]:
        tick = self.clock.tick
        self.clock.start()
        with _autocast(self.side):
            made = self.generator(batch.source)
            tick("generator forward")
            seen_made = self._judged(batch.source, made.detach())
            seen_real = self._judged(batch.source, batch.target)
            passed = self._judged(batch.source, made)
            tick("discriminator forward")
            terms = self._terms(seen_made, seen_real, passed, made, batch)
        loss_g = sum(value for name, value in terms.items() if not name.startswith("d_"))
        loss_d = terms["d_real"] + terms["d_fake"]
        tick("losses")
        self.adam_g.zero_grad()
        loss_g.backward()
        tick("backward G")
        self.adam_g.step()
        tick("optimizers")
        self.adam_d.zero_grad()
        loss_d.backward()
        tick("backward D")
        self.adam_d.step()
        tick("optimizers")
        told = {name: float(value.detach()) for name, value in terms.items()}
        self.clock.end_step()
        return told

    def _vgg_distance(self, made: Tensor, real: Tensor) -> Tensor:
        """As published, in the images' own layout."""
        a, b = (x.expand(-1, 3, -1, -1) for x in (made, real))
        total = made.new_zeros(())
        for index, layer in enumerate(self.vgg.features):
            a, b = layer(a), layer(b)
            if index in VGG_WEIGHTS:
                total = total + VGG_WEIGHTS[index] * F.l1_loss(a, b.detach())
        return total

    def _judged(self, source: Tensor, image: Tensor) -> list[list[Tensor]]:
        return self.discriminator(torch.cat([source, image], dim=1))

    def _terms(
        self, seen_made: Any, seen_real: Any, passed: Any, made: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        terms = {
            "d_fake": 0.5 * _least_squares(seen_made, 0.0),
            "d_real": 0.5 * _least_squares(seen_real, 1.0),
            "gan": _least_squares(passed, 1.0),
            "feature_matching": torch.zeros((), device=made.device),
            "vgg": self.weights.vgg * self._vgg_distance(made, batch.target),
        }
        for ours, real in zip(passed, seen_real, strict=True):
            for a, b in zip(ours[:-1], real[:-1], strict=True):
                share = self.weights.feature_matching * 4.0 / (len(ours) - 1) / len(passed)
                terms["feature_matching"] = terms["feature_matching"] + share * F.l1_loss(a, b.detach())
        if self.lpips is not None:
            terms["lpips"] = self.lpips(made, batch.target).mean()
            terms["l2"] = l2(pixels.unit_from_model(made), pixels.unit_from_model(batch.target)).mean()
        return terms


def _least_squares(results: list[list[Tensor]], label: float) -> Tensor:
    return torch.stack([F.mse_loss(f[-1], torch.full_like(f[-1], label)) for f in results]).sum()


def _autocast(side: Side) -> Any:
    return torch.autocast(side.device, torch.bfloat16) if side.precision == "bf16" else nullcontext()


def _as_published(network: nn.Module) -> nn.Module:
    """PyTorch's own norms and in-place ReLUs, as the published networks have them."""
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = True
        for name, child in list(module.named_children()):
            if isinstance(child, InstanceNorm):
                setattr(module, name, nn.InstanceNorm2d(child.num_features))
    return network


class Production:
    """The package's step, as the training loop takes it."""

    def __init__(self, side: Side, clock: Clock):
        self.clock = clock
        precision = "bf16-mixed" if side.precision == "bf16" else "32-true"
        self.fabric = Fabric(accelerator=side.device, devices=1, precision=precision)
        training = {"betas": BETAS, "stages": [{"epochs": 1, "learning_rate": LEARNING_RATE}]}
        config = Pix2PixHDConfig(losses=LOSSES[side.losses], training=training)
        bands = dict(zip(("source", "target"), side.bands, strict=True))
        self.system = Pix2PixHD(config, SystemContext(bands, seed=0, metric_weights="standin"))
        for network in self.system.networks.values():
            if side.channels_last:
                network.to(memory_format=torch.channels_last)
        self.system.networks["G"].activation_checkpointing = side.checkpointing
        self.system.setup(self.fabric)
        self._time_parts()

    def _time_parts(self) -> None:
        timed, system = self.clock.timed, self.system
        for name, label in (("G", "generator forward"), ("D", "discriminator forward")):
            network = unwrap(system.networks[name])
            network.forward = timed(network.forward, label)
        for part in ("image", "adversarial"):
            setattr(system.loss, part, timed(getattr(system.loss, part), "losses"))
        for optimizer in system.optimizers.values():
            raw = getattr(optimizer, "optimizer", optimizer)
            raw.step = timed(raw.step, "optimizers")
        backward = self.fabric.backward
        labels = [f"backward {p.name}" for p in system.phases(SchedulePoint("main", 0, 0))]

        def labelled(*args: Any, **kwargs: Any) -> None:
            timed(backward, labels[0])(*args, **kwargs)
            labels.append(labels.pop(0))

        self.fabric.backward = labelled

    def step(self, batch: Batch) -> dict[str, float]:
        self.clock.start()
        losses = train_step(self.system, batch, self.fabric, LEARNING_RATE)
        self.clock.end_step()
        return {name: float(value) for name, value in losses.items()}


def run(side: Side) -> dict[str, Any]:
    """Takes the steps; seconds a step by wall clock and processor, by part, and the peak of memory."""
    if "memory" in side.measures:
        assert keep_freed_memory()
    if side.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    clock, batch = Clock(side.device), batch_of(side)
    steps: Official | Production = (Production if "pass" in side.measures else Official)(side, clock)
    terms: dict[str, float] = {}
    for _ in range(side.warmup):
        terms = terms or steps.step(batch)
    clock.seconds.clear()
    clock.on = False  # whole steps first: looking at the clock makes the device wait
    seconds, cpu_seconds = [], []
    for _ in range(side.steps):
        began, cpu = time.perf_counter(), time.process_time()
        steps.step(batch)
        if side.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu)
    if side.device == "cuda":
        clock.seconds.clear()
        clock.on = True
        for _ in range(side.steps):
            steps.step(batch)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "parts": dict(clock.seconds),
        "peak_bytes": _peak_bytes(side.device),
        "first_terms": terms,
    }


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def side_of(text: str) -> Side:
    """A side from its JSON."""
    given = json.loads(text)
    return Side(**(given | {name: tuple(given[name]) for name in ("measures", "bands") if name in given}))


def as_text(side: Side) -> str:
    """The JSON that `side_of` reads."""
    return json.dumps(asdict(side))


if __name__ == "__main__":
    print(json.dumps(run(side_of(sys.argv[1]))))
