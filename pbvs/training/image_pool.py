"""The image pool of pix2pixHD: the discriminator also sees fake images of earlier steps.

Shrivastava et al., CVPR 2017, section 2.3; rule of NVIDIA/pix2pixHD `util/image_pool.py` (BSD licence): until
the pool is full, every image is stored and returned; then, with probability 1/2, an image of the pool is
returned and the new one takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

_POOL = 3  # separates these random numbers from others under one seed


class ImagePool:
    """At most `size` images, on the CPU; size 0 returns every image as it is.

    What happens to the n-th image depends on `seed` and n alone.
    """

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed
        self.images: list[Tensor] = []
        self.n_queries = 0

    def query(self, images: Tensor) -> Tensor:
        """For each of `N,C,H,W`, in order, itself or an earlier one; same shape, type and device."""
        if not self.size:
            return images
        results: list[Tensor] = []
        for image in images:
            rng = np.random.default_rng([_POOL, self.seed, self.n_queries])
            self.n_queries += 1
            result = image
            if len(self.images) < self.size:
                self.images.append(image.to("cpu", copy=True))
            elif rng.random() > 0.5:
                index = int(rng.integers(self.size))
                result = self.images[index].to(image)
                self.images[index] = image.to("cpu", copy=True)
            results.append(result)
        return torch.stack(results)

    def shared_query(self, images: Tensor, fabric: Fabric) -> Tensor:
        """`query` with one pool for all processes: as one process would with the whole batch."""
        if not self.size or fabric.world_size == 1:
            return self.query(images)
        gathered = fabric.all_gather(images)  # processes,N,C,H,W
        assert isinstance(gathered, Tensor)
        return self.query(gathered.flatten(0, 1)).chunk(fabric.world_size)[fabric.global_rank]

    def state(self) -> dict[str, Any]:
        """The images and the number of queries, which is `n_asked` in the files of all versions."""
        return {"images": self.images, "n_asked": self.n_queries}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores `state`; a smaller pool keeps as many images as it holds."""
        self.images, self.n_queries = list(state["images"][: self.size]), int(state["n_asked"])
