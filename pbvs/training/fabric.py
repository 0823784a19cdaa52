"""Lightning Fabric as the commands need it: one device, several, or what torchrun started."""

from __future__ import annotations

import os
from typing import Literal, cast

import torch
from lightning.fabric import Fabric

from pbvs.errors import UsageError

Precision = Literal["32-true", "bf16-mixed"]


def make_fabric(
    accelerator: str, devices: int | None = 1, nodes: int = 1, precision: str = "32-true"
) -> Fabric:
    """A launched Fabric.

    Args:
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        devices: on this machine; None is one, or as many as torchrun started here.
        nodes: machines.
        precision: Fabric's word for it.

    Raises:
        UsageError: the device is not there.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here", where="--device cuda", next_step="use --device cpu")
    if devices is None:
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    several = devices * nodes > 1
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if several else "auto",
        precision=cast(Precision, precision),
    )
    fabric.launch()
    return fabric
