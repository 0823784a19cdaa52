"""An image on an edge of the graph: whoever reads it says at which size, and whether in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pbvs.core import pixels
from pbvs.core.types import Image8

Size = tuple[int, int]  # height, width


class Picture(Protocol):
    """One image per item of the batch."""

    def float255(self, size_px: Size) -> Tensor:
        """`N,C,H,W float64` in [0,255] at a size; not rounded if a network made it."""

    def stored(self, size_px: Size | None) -> list[Image8]:
        """`H,W,C uint8` of each at a size, resized once in whole numbers; None keeps each one's own size."""


class Sources:
    """Images as they were read from files, each of its own size."""

    def __init__(self, images: Sequence[Image8]):
        self.images = list(images)

    def float255(self, size_px: Size) -> Tensor:
        """See `Picture`."""
        return torch.cat([pixels.float255_from_stored(image) for image in self.stored(size_px)])

    def stored(self, size_px: Size | None) -> list[Image8]:
        """See `Picture`."""
        if size_px is None:
            return self.images
        return [pixels.resize(image, size_px) for image in self.images]


class Computed:
    """What a node computed: float255 `N,C,H,W`."""

    def __init__(self, images: Tensor):
        self.images = images

    def float255(self, size_px: Size) -> Tensor:
        """See `Picture`."""
        return pixels.resize_float255(self.images, size_px)

    def stored(self, size_px: Size | None) -> list[Image8]:
        """See `Picture`."""
        rounded = [pixels.stored_from_float255(image[None]) for image in self.images]
        return rounded if size_px is None else [pixels.resize(image, size_px) for image in rounded]
