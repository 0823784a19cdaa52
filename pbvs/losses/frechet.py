"""The Fréchet distance as a loss: the third term of the score, which the published solutions leave out.

The distance is that of `pbvs.score.frechet` (Heusel et al. 2017, equation 6), between the features of
generated images and the moments of all training targets. A batch is too small a sample of what a network
makes, so its features, with their gradient, are joined by those of the last images before it, without. The
batch then holds only a part of the gradient; `sqrt(n / batch)` gives it back (after the decoupling of
population and batch in arXiv 2604.28190, "representation Fréchet loss").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from pbvs.core.errors import TrainingError

_RANK = 1e-10  # singular values below this part of the largest are rounding


@dataclass(frozen=True)
class Moments:
    """Of the targets' features, float64.

    Attributes:
        mean: `D`.
        root: `r,D` with root'root = covariance, r at most D.
        n: images they were taken over.
    """

    mean: Tensor
    root: Tensor
    n: int

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of `n,D` features.

        Raises:
            TrainingError: fewer than 2 images, or features that are all equal or not finite.
        """
        rows = features.detach().double()
        if len(rows) < 2 or not torch.isfinite(rows).all():
            raise TrainingError(
                f"the Fréchet loss needs finite features of at least 2 targets, not of {len(rows)}",
                next_step="add training data, or set the weight of the frechet loss to 0",
            )
        mean = rows.mean(dim=0)
        centred = (rows - mean) / math.sqrt(len(rows) - 1)
        if not centred.any():
            raise TrainingError(
                "all training targets have the same features: there is no distribution to learn",
                next_step="look at the targets, or set the weight of the frechet loss to 0",
            )
        root = centred if len(rows) <= rows.shape[1] else torch.linalg.qr(centred, mode="r").R
        return cls(mean, root, len(rows))


def frechet_distance(features: Tensor, moments: Moments) -> Tensor:
    """The Fréchet distance of `n,D` features, n at least 2, to the moments: a float64 scalar, 0 or more.

    The trace of the root of the product of covariances is the nuclear norm of `centred root'`. Its gradient
    is `U V'` of the singular vectors: finite for any rank, and at equal sets it cancels all other terms.
    """
    rows = features.double()
    mean = rows.mean(dim=0)
    centred = (rows - mean) / math.sqrt(len(rows) - 1)
    product = centred @ moments.root.T
    u, s, vh = torch.linalg.svd(product.detach(), full_matrices=False)
    kept = s > _RANK * s.max()
    nuclear = ((u[:, kept] @ vh[kept]) * product).sum()
    between = (mean - moments.mean).square().sum()
    distance = between + centred.square().sum() + moments.root.square().sum() - 2.0 * nuclear
    positive: Tensor = distance.clamp(min=0.0)
    return positive


class FrechetLoss(nn.Module):
    """The distance of a stream of generated images to the targets, as the score has it or plain.

    Args:
        moments: of the targets.
        queue: images before the batch whose features are joined to it; 0: none.
        arctan_weight: the score's term (2/pi) arctan(weight x distance); None: the distance itself.
    """

    queue: Tensor
    mean: Tensor
    root: Tensor

    def __init__(self, moments: Moments, queue: int = 192, arctan_weight: float | None = 1.0):
        super().__init__()
        self.length, self.arctan_weight, self.n_moments = queue, arctan_weight, moments.n
        self.register_buffer("mean", moments.mean, persistent=False)
        self.register_buffer("root", moments.root, persistent=False)
        # In a run's state: a resumed run goes on with the same population.
        self.register_buffer("queue", moments.mean.new_zeros((0, len(moments.mean))), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """The loss of a batch's features `N,D` (with gradient), a float64 scalar; the queue takes them in.

        With several processes the population is that of all of them, and the gradients are those of one
        process with the whole batch.
        """
        everyones, n_processes = self._gathered(features.double()), 1
        if distributed.is_available() and distributed.is_initialized():
            n_processes = distributed.get_world_size()
        population = torch.cat([self.queue, everyones])
        if self.length:
            self.queue = population.detach()[-self.length :]
        if len(population) < 2:  # nothing can be said of one image's distribution
            return features.double().sum() * 0.0
        distance = frechet_distance(population, Moments(self.mean, self.root, self.n_moments))
        if self.arctan_weight is not None:
            distance = 2.0 / math.pi * torch.arctan(self.arctan_weight * distance)
        share = math.sqrt(len(population) / len(everyones)) * n_processes
        # The value stays the distance; the gradient is scaled.
        return distance.detach() + (distance - distance.detach()) * share

    @staticmethod
    def _gathered(features: Tensor) -> Tensor:
        """The features of all processes, in their order; only this one's have a gradient."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return features
        parts = [torch.empty_like(features) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, features.detach().contiguous())
        parts[distributed.get_rank()] = features
        return torch.cat(parts)
