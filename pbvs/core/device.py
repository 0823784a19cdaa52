"""The device of a command that trains nothing, without the seconds that loading Fabric takes."""

from __future__ import annotations

import os

import torch

from pbvs.core.errors import UsageError
from pbvs.core.malloc import keep_freed_memory


def device_of_process(accelerator: str) -> torch.device:
    """The device this process computes on; the CPU's process keeps freed memory from now on.

    Started by `torchrun`, the process joins its group first, and the device is its own among theirs.

    Args:
        accelerator: `auto` (a GPU where there is one), `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: there is no such device here.
    """
    if "LOCAL_RANK" in os.environ:
        from pbvs.core.fabric import make_fabric

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
