"""One optimisation step, separate from the loop: training, tests and benchmarks all take this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pbvs.core.errors import TrainingError
from pbvs.dataset.batches import Batch
from pbvs.training.system import Phase, SchedulePoint, System

Scalers = Mapping[str, torch.amp.GradScaler]
GRADIENT_NORM = "gradient_norm_"  # prefix of a curve's name; the phase's name follows
START = SchedulePoint("main", 0, 0)


def scalers_for(system: System, fabric: Fabric) -> dict[str, torch.amp.GradScaler]:
    """A loss scaler per optimiser; they act with `16-mixed` only.

    Fabric's own precision plugin has one scaler for all optimisers and updates it after each: the second
    optimiser would divide its gradients by another scale than they were multiplied by.
    """
    precision: Any = fabric.strategy.precision
    own = getattr(precision, "scaler", None)
    assert own is None or not own.is_enabled(), "create Fabric with pbvs.core.device.make_fabric"
    half = getattr(precision, "precision", "") == "16-mixed"
    return {name: torch.amp.GradScaler(fabric.device.type, enabled=half) for name in system.optimizers}


def train_step(
    system: System,
    batch: Batch,
    fabric: Fabric,
    learning_rate: float | Mapping[str, float],
    *,
    point: SchedulePoint = START,
    accumulate: int = 1,
    clip_norm: float | None = None,
    scalers: Scalers | None = None,
) -> dict[str, Tensor]:
    """One step of every phase.

    No weight changes before the losses of all phases that step together are known to be finite. That is
    the only wait for the device in a step (float16 scaling adds one per optimiser).

    Args:
        system: after `setup` and `begin_step`.
        batch: this process's images of the step.
        learning_rate: of all optimisers, or by phase.
        point: where the schedule stands.
        accumulate: number of equal parts to take the batch in, in turn. The step is the same except for
            rounding (and batch norm, whose statistics are then a part's); memory is a part's.
        clip_norm: largest gradient norm of a phase (2-norm over its parameters); None: no limit.
        scalers: from `scalers_for`; needed with `16-mixed` only.

    Returns:
        Each loss's mean over the images of all processes, and with `clip_norm` the gradients' norms before
        clipping, as `gradient_norm_<phase>`: scalars on the device.

    Raises:
        TrainingError: a loss is not finite (or, with `clip_norm`, a gradient); names it and the images.
    """
    scalers = scalers_for(system, fabric) if scalers is None else scalers
    phases = system.phases(point)
    losses: dict[str, Tensor] = {}
    for group in [phases] if system.simultaneous else [(phase,) for phase in phases]:
        step = _Step(system, group, fabric, scalers)
        losses |= step.gradients(batch.split(accumulate))
        norms = step.norms() if clip_norm is not None else {}
        step.check(losses | ({} if step.scaled else norms))
        step.optimizer_step(learning_rate, norms, clip_norm)
        losses |= norms
    return losses


class _Step:
    """The part of a step that some phases take together."""

    def __init__(self, system: System, phases: Sequence[Phase], fabric: Fabric, scalers: Scalers):
        self.system, self.phases, self.fabric, self.scalers = system, phases, fabric, scalers
        self.seen: list[tuple[Batch, dict[str, Tensor]]] = []

    @property
    def scaled(self) -> bool:
        """Whether a scaler handles gradients that overflow."""
        return any(self.scalers[phase.name].is_enabled() for phase in self.phases)

    def gradients(self, parts: list[Batch]) -> dict[str, Tensor]:
        """Computes every phase's gradients; returns the losses' means over parts and processes."""
        for phase in self.phases:
            self.system.optimizers[phase.name].zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            losses: dict[str, Tensor] = {}
            with ExitStack() as no_sync:
                # Processes exchange gradients once per step, with the last part.
                for network in self.system.networks.values() if number < len(parts) else ():
                    no_sync.enter_context(self.fabric.no_backward_sync(network))  # type: ignore[arg-type]
                for phase in self.phases:
                    losses |= self._backward(phase, part, len(parts))
            self.seen.append((part, losses))
        for phase in self.phases:
            for parameter in phase.frozen:
                parameter.grad = None
        means = torch.stack([torch.stack(list(losses.values())) for _, losses in self.seen]).mean(dim=0)
        if self.fabric.world_size > 1:
            distributed.all_reduce(means)
            means /= self.fabric.world_size
        return dict(zip(self.seen[0][1], means, strict=True))

    def _backward(self, phase: Phase, part: Batch, n_parts: int) -> dict[str, Tensor]:
        losses = phase.losses(part)
        total = torch.stack(list(losses.values())).sum() / n_parts
        # DDP waits for a gradient of every parameter; a single process skips the frozen ones.
        skipped = phase.frozen if self.fabric.world_size == 1 else ()
        self.fabric.backward(
            self.scalers[phase.name].scale(total),
            inputs=self._parameters(phase, skipped),
            retain_graph=phase.retain_graph,
        )
        return {name: value.detach().float() for name, value in losses.items()}

    def _parameters(self, phase: Phase, skipped: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        ids = {id(parameter) for parameter in skipped}
        groups = self.system.optimizers[phase.name].param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad and id(p) not in ids]

    def norms(self) -> dict[str, Tensor]:
        """The norm of each phase's gradients, unscaled; call once."""
        norms: dict[str, Tensor] = {}
        for phase in self.phases:
            self.scalers[phase.name].unscale_(_raw(self.system.optimizers[phase.name]))
            gradients = [p.grad for p in self._parameters(phase, phase.frozen) if p.grad is not None]
            norms[GRADIENT_NORM + phase.name] = get_total_norm(gradients)
        return norms

    def check(self, values: Mapping[str, Tensor]) -> None:
        """Raises TrainingError if one of the scalars is not finite; the step's one wait for the device."""
        if torch.isfinite(torch.stack(list(values.values()))).all().item():
            return
        wrong = [name for name, value in values.items() if not torch.isfinite(value)]
        parts = [b for b, losses in self.seen if any(n in losses and not losses[n].isfinite() for n in wrong)]
        images = ", ".join(name for part in parts for name in part.names)
        if not images and any(name in losses for _, losses in self.seen for name in wrong):
            images = "of another process"
        elif not images:  # a gradient: any image of the batch
            images = ", ".join(name for part, _ in self.seen for name in part.names)
        raise TrainingError(
            f"not finite: {', '.join(wrong)}",
            where=f"images {images}",
            next_step="the weights were not changed; look at these images, or lower the learning rate",
        )

    def optimizer_step(
        self,
        learning_rate: float | Mapping[str, float],
        norms: Mapping[str, Tensor],
        clip_norm: float | None,
    ) -> None:
        """Clips if `clip_norm` is set, and takes every optimiser's step."""
        for phase in self.phases:
            optimizer, scaler = _raw(self.system.optimizers[phase.name]), self.scalers[phase.name]
            rate = learning_rate[phase.name] if isinstance(learning_rate, Mapping) else learning_rate
            for group in optimizer.param_groups:
                group["lr"] = rate
            if clip_norm is not None:
                norm = norms[GRADIENT_NORM + phase.name]
                clip_grads_with_norm_(self._parameters(phase, phase.frozen), clip_norm, norm)
            scaler.step(optimizer)
            scaler.update()


def _raw(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser without Fabric's wrapping: a fused one looks for its scale on itself only."""
    raw: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return raw
