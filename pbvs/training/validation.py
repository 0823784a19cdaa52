"""Scores a network on held-out locations with the task score itself, and keeps pictures of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from pbvs import pixels
from pbvs.score.judge import Judge
from pbvs.score.rules import DEFAULT_FID_LAYER

Stored = NDArray[np.uint8]


class Validator:
    """Scores the generator on the first `images` draws of `dataset` (whole images, no flips).

    Pixels without a known target are given the target's own value, so they count in no term.
    """

    def __init__(self, dataset: Dataset, images: int, judge: Judge, samples: Path, n_samples: int = 4):
        self.dataset, self.images, self.judge = dataset, images, judge
        self.samples, self.n_samples = samples, n_samples

    def score(self, network: nn.Module, images_seen: int) -> dict[str, float]:
        """The task score and its parts; writes a sample grid `source | made | target`, a row an image."""
        rows: list[Stored] = []
        was_training = network.training
        network.eval()
        result = self.judge.score_pairs(self._pairs(network, rows))
        network.train(was_training)
        pixels.write_png(self.samples / f"{images_seen:08d}.png", _stacked(rows))
        return {
            "score": result.score,
            f"fid{DEFAULT_FID_LAYER}": result.fid[DEFAULT_FID_LAYER],
            "lpips": result.lpips,
            "l1": result.l1,
            "l2": result.l2,
        }

    def _pairs(self, network: nn.Module, rows: list[Stored]) -> Iterator[tuple[str, Stored, Stored]]:
        device = next(network.parameters()).device
        for i in range(self.images):
            item = self.dataset[i]
            with torch.inference_mode():
                made = network(pixels.model_from_levels(item["source"][None].to(device)))
            target = item["target"][None].to(torch.float64)
            levels = torch.where(item["mask"][None], pixels.levels_from_model(made.cpu()), target)
            stored, true = pixels.stored_from_levels(levels), pixels.stored_from_levels(target)
            if i < self.n_samples:
                rows.append(_row(pixels.stored_from_levels(item["source"][None]), stored, true))
            yield item["name"], stored, true


def _row(*images: Stored) -> Stored:
    return np.concatenate([np.broadcast_to(i, (*i.shape[:2], 3)) for i in images], axis=1)


def _stacked(rows: list[Stored]) -> Stored:
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows], axis=0)
