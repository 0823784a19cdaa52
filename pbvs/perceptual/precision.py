"""How the judges compute: whole float32, whatever the training has switched on, in the faster layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and, on CUDA, no TF32 in convolutions: it keeps 10 bits of 23 and moves the score."""
    with torch.autocast(device.type, enabled=False):
        if device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                yield
        else:
            yield


def fastest_layout(images: Tensor) -> Tensor:
    """The same `N,C,H,W` laid out as the judges' convolutions are fastest with; gradients come back as usual.

    On the CPU that is channels_last (LPIPS of 1024 px in 70 % of the time, VGG with gradients in bfloat16 in
    60 %, values equal to 1e-6); other devices were not measured and keep what they have. Not for networks
    with instance norm, see `pbvs.networks.layers`.
    """
    if images.device.type != "cpu":
        return images
    laid_out = images.contiguous(memory_format=torch.channels_last)
    if laid_out.requires_grad:
        laid_out.register_hook(_contiguous)  # type: ignore[no-untyped-call]
    return laid_out


def _contiguous(gradient: Tensor) -> Tensor:
    return gradient.contiguous()
