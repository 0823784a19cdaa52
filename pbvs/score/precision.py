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
    """The same `N,C,H,W` laid out as the convolutions are fastest with; only for use without gradients.

    On the CPU that is channels_last (LPIPS of 1024 px in 70 % of the time, values equal to 1e-6); other
    devices were not measured and keep what they have.
    """
    if images.device.type != "cpu":
        return images
    return images.contiguous(memory_format=torch.channels_last)
