"""The device that a process computes on: one, several, or what torchrun started.

Lightning Fabric takes seconds to load, and is loaded where it is used.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch

from pbvs.core.errors import UsageError
from pbvs.core.malloc import keep_freed_memory

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
# The first process validates alone, and the others wait for it.
_LONGEST_WAIT = timedelta(hours=2)


def device_of_process(accelerator: str) -> torch.device:
    """The device this process computes on; the CPU's process keeps freed memory from now on.

    Started by `torchrun`, the process joins its group first, and the device is its own among theirs.

    Args:
        accelerator: `auto` (a GPU where there is one), `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: there is no such device here.
    """
    if "LOCAL_RANK" in os.environ:
        return make_fabric(accelerator, devices=None).device
    check_device(accelerator)
    if accelerator == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = found or torch.device("cpu")
    else:
        device = torch.device(accelerator)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def check_device(accelerator: str) -> None:
    """Refuses a device that is not here.

    Raises:
        UsageError: names the option and another device.
    """
    is_here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator in is_here and not is_here[accelerator]:
        raise UsageError(
            f"there is no {accelerator.upper()} device here",
            where=f"--device {accelerator}",
            next_step="use --device cpu",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a device's, or the main one."""
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in phrases)


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
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

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
    from lightning.fabric.plugins import MixedPrecision

    device = accelerator if accelerator in ("cpu", "mps") else "cuda"
    no_scaler = torch.amp.GradScaler(device, enabled=False)
    return {"plugins": [MixedPrecision("16-mixed", device, no_scaler)]}
