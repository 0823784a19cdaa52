"""Numerics of the metric networks: full float32, also within autocast, and the faster memory format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and, on CUDA, no TF32 in convolutions: it keeps 10 of 23 bits and changes the score."""
    with torch.autocast(device.type, enabled=False):
        if device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        else:
            yield


def fastest_memory_format(images: Tensor) -> Tensor:
    """The same `N,C,H,W` in the memory format that is fastest for the metric networks.

    On the CPU that is channels_last (LPIPS of 1024 px in 70 % of the time, VGG with gradients in bfloat16 in
    60 %, values equal to 1e-6); gradients are returned contiguous. Other devices were not measured and keep
    their format. Not for networks with instance norm, see `pbvs.networks.layers`.
    """
    if images.device.type != "cpu":
        return images
    converted = images.contiguous(memory_format=torch.channels_last)
    if converted.requires_grad:
        converted.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    return converted
