"""The image pool of pix2pixHD: the discriminator sees images made in earlier steps, too.

Shrivastava et al., CVPR 2017, section 2.3; rule of NVIDIA/pix2pixHD `util/image_pool.py` (BSD licence): until
the pool is full, every image is kept and seen; then, half of the time, one of the pool is seen in place of
the new one, which takes its place there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

_POOL = 3  # keeps this chance apart from others under one seed


class ImagePool:
    """At most `size` images, on the CPU; with size 0 every image is given back as it is.

    What happens to the n-th image depends on `seed` and n alone.
    """

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed
        self.images: list[Tensor] = []
        self.n_asked = 0

    def query(self, images: Tensor) -> Tensor:
        """For each of `N,C,H,W`, in order, itself or an earlier one; same shape, type and device."""
        return torch.stack([self._one(image) for image in images]) if self.size else images

    def shared_query(self, images: Tensor, fabric: Fabric) -> Tensor:
        """`query` with one pool for all processes: as one process would with the whole batch."""
        if not self.size or fabric.world_size == 1:
            return self.query(images)
        everyones = fabric.all_gather(images)  # processes,N,C,H,W
        assert isinstance(everyones, Tensor)
        return self.query(everyones.flatten(0, 1)).chunk(fabric.world_size)[fabric.global_rank]

    def _one(self, image: Tensor) -> Tensor:
        rng = np.random.default_rng([_POOL, self.seed, self.n_asked])
        self.n_asked += 1
        if len(self.images) < self.size:
            self.images.append(image.to("cpu", copy=True))
            return image
        if rng.random() <= 0.5:
            return image
        place = int(rng.integers(self.size))
        earlier, self.images[place] = self.images[place], image.to("cpu", copy=True)
        return earlier.to(image)

    def state(self) -> dict[str, Any]:
        """The images and how often one was asked for."""
        return {"images": self.images, "n_asked": self.n_asked}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave; a pool that is smaller now keeps as many of them."""
        self.images, self.n_asked = list(state["images"][: self.size]), int(state["n_asked"])
