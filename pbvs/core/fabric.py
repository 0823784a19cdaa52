"""Lightning Fabric as the commands need it: one device, several, or what torchrun started."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.strategies.ddp import DDPStrategy

from pbvs.core.device import check_device
from pbvs.core.errors import UsageError
from pbvs.core.malloc import keep_freed_memory

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
# The first process validates alone, and the others wait for it.
_LONGEST_WAIT = timedelta(hours=2)


def make_fabric(
    accelerator: str, devices: int | None = 1, nodes: int = 1, precision: str = "32-true"
) -> Fabric:
    """A launched Fabric; on the CPU, the process keeps freed memory from now on (see `pbvs.core.malloc`).

    Args:
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        devices: on this machine; None is one, or as many as torchrun started here.
        nodes: machines.
        precision: `32-true`, `bf16-mixed` or `16-mixed` (with a loss scaler for each optimiser; GPUs only).

    Raises:
        UsageError: the device is not there, or cannot train in this precision.
    """
    check_device(accelerator)
    if devices is None:
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    several = devices * nodes > 1
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=_LONGEST_WAIT) if several else "auto",
        **in_precision(precision, accelerator),
    )
    if precision == "16-mixed" and fabric.device.type != "cuda":
        raise UsageError(
            f"float16 is for CUDA devices; on {fabric.device.type} it is slow or not there at all",
            where="--precision 16-mixed",
            next_step="use --precision bf16-mixed, or 32-true",
        )
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


def in_precision(precision: str, accelerator: str) -> dict[str, Any]:
    """Fabric's arguments for a precision; float16 comes without Fabric's one scaler for all optimisers."""
    if precision != "16-mixed":
        return {"precision": precision}
    device = accelerator if accelerator in ("cpu", "mps") else "cuda"
    no_scaler = torch.amp.GradScaler(device, enabled=False)
    return {"plugins": [MixedPrecision("16-mixed", device, no_scaler)]}
