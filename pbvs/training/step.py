"""One optimisation step, apart from the loop: the one that training, its tests and benchmarks take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pbvs.core.errors import TrainingError
from pbvs.dataset.batches import Batch
from pbvs.training.system import Phase, SchedulePoint, System

Scalers = Mapping[str, torch.amp.GradScaler]
GRADIENT_NORM = "gradient_norm_"  # a curve's name begins so, the phase's name follows
START = SchedulePoint("main", 0, 0)


def scalers_for(system: System, fabric: Fabric) -> dict[str, torch.amp.GradScaler]:
    """A loss scaler for each optimiser; they do nothing but with `16-mixed`.

    Fabric's own precision plugin holds one scaler for all optimisers and updates it after each: the second
    optimiser would divide its gradients by another scale than they were multiplied with.
    """
    precision: Any = fabric.strategy.precision
    own = getattr(precision, "scaler", None)
    assert own is None or not own.is_enabled(), "make Fabric with pbvs.core.fabric.make_fabric"
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

    No weight is changed before the losses of all phases that step together are known to be finite. That
    costs the one wait for the device in a step (float16 scaling adds one for each optimiser).

    Args:
        system: after `setup` and `begin_step`.
        batch: this process's images of the step.
        learning_rate: of all optimisers, or by phase.
        point: where the schedule stands.
        accumulate: parts to take the batch in, one after another; they divide it. The step is the same but
            for rounding (and for batch norm, whose statistics are then a part's); memory is a part's.
        clip_norm: longest gradient of a phase (2-norm over its parameters); None: not limited.
        scalers: of `scalers_for`; needed with `16-mixed` only.

    Returns:
        Each term's mean over the images of all processes, and with `clip_norm` the gradients' norms before
        they were clipped, as `gradient_norm_<phase>`: scalars on the device.

    Raises:
        TrainingError: a term is not finite (or, with `clip_norm`, a gradient); names it and the images.
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
        """Whether gradients that overflow are the scaler's business."""
        return any(self.scalers[phase.name].is_enabled() for phase in self.phases)

    def gradients(self, parts: list[Batch]) -> dict[str, Tensor]:
        """Computes every phase's gradients; returns the losses' means over parts and processes."""
        for phase in self.phases:
            self.system.optimizers[phase.name].zero_grad(set_to_none=True)
        for number, part in enumerate(parts, start=1):
            losses: dict[str, Tensor] = {}
            with _no_sync(self.system, self.fabric, number < len(parts)):
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
        # DDP waits for a gradient of every parameter; alone, frozen ones need none.
        left_out = phase.frozen if self.fabric.world_size == 1 else ()
        self.fabric.backward(
            self.scalers[phase.name].scale(total),
            inputs=self._parameters(phase, left_out),
            retain_graph=phase.retain_graph,
        )
        return {name: value.detach().float() for name, value in losses.items()}

    def _parameters(self, phase: Phase, left_out: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        frozen = {id(parameter) for parameter in left_out}
        groups = self.system.optimizers[phase.name].param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad and id(p) not in frozen]

    def norms(self) -> dict[str, Tensor]:
        """The norm of each phase's gradients, unscaled; call once."""
        norms: dict[str, Tensor] = {}
        for phase in self.phases:
            self.scalers[phase.name].unscale_(_raw(self.system.optimizers[phase.name]))
            gradients = [p.grad for p in self._parameters(phase, phase.frozen) if p.grad is not None]
            norms[GRADIENT_NORM + phase.name] = get_total_norm(gradients)
        return norms

    def check(self, values: Mapping[str, Tensor]) -> None:
        """Raises where one of the scalars is not finite; the step's one wait for the device."""
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
        """Clips where asked, and takes every optimiser's step."""
        for phase in self.phases:
            optimizer, scaler = _raw(self.system.optimizers[phase.name]), self.scalers[phase.name]
            for group in optimizer.param_groups:
                group["lr"] = (
                    learning_rate[phase.name] if isinstance(learning_rate, Mapping) else learning_rate
                )
            if clip_norm is not None:
                norm = norms[GRADIENT_NORM + phase.name]
                clip_grads_with_norm_(self._parameters(phase, phase.frozen), clip_norm, norm)
            scaler.step(optimizer)
            scaler.update()


def _raw(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser without Fabric's wrapping: a fused one finds its scale only on itself."""
    raw: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return raw


@contextmanager
def _no_sync(system: System, fabric: Fabric, more: bool) -> Iterator[None]:
    """Within the block, processes do not exchange gradients when `more` parts of the batch are to come."""
    with ExitStack() as stack:
        for network in system.networks.values() if more else ():
            stack.enter_context(fabric.no_backward_sync(network))  # type: ignore[arg-type]
        yield
