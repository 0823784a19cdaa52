"""Scores a network on held-out locations with the task score itself, and keeps pictures of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from pbvs.core import pixels
from pbvs.score.rules import DEFAULT_FID_LAYER
from pbvs.score.scorer import Scorer

Stored = NDArray[np.uint8]
_BLOCK_PX = 16


@dataclass(frozen=True)
class Validation:
    """What a validation found: every value by its curve's name, and a grid of pictures, `H,W,3`."""

    values: dict[str, float]
    grid: Stored


class Validator:
    """Scores the generator on the first `images` draws of `dataset` (whole images, no flips).

    Pixels without a known target are given the target's own value, so they count in no term. The network
    runs in float32 whatever it is trained in, as translation runs it.
    """

    def __init__(self, dataset: Dataset, images: int, judge: Scorer, samples: Path, n_samples: int = 4):
        self.dataset, self.images, self.judge = dataset, images, judge
        self.samples, self.n_samples = samples, n_samples

    def score(self, network: nn.Module, images_seen: int) -> Validation:
        """The task score, its parts, and two signs of trouble beside the targets' own values.

        Writes a sample grid `source | made | target`, a row an image.
        """
        rows: list[Stored] = []
        signs: list[tuple[float, ...]] = []
        was_training = network.training
        network.eval()
        result = self.judge.score_pairs(self._pairs(network, rows, signs))
        network.train(was_training)
        grid = _stacked(rows)
        pixels.write_png(self.samples / f"{images_seen:08d}.png", grid)
        saturated, saturated_targets, checkers, checkers_targets = np.mean(signs, axis=0).tolist()
        values = {
            "score": result.score,
            f"fid{DEFAULT_FID_LAYER}": result.fid[DEFAULT_FID_LAYER],
            "lpips": result.lpips,
            "l1": result.l1,
            "l2": result.l2,
            "saturated": saturated,
            "saturated_in_targets": saturated_targets,
            "checkerboard": checkers,
            "checkerboard_in_targets": checkers_targets,
        }
        return Validation(values, grid)

    def _pairs(
        self, network: nn.Module, rows: list[Stored], signs: list[tuple[float, ...]]
    ) -> Iterator[tuple[str, Stored, Stored]]:
        device = next(network.parameters()).device
        for i in range(self.images):
            item = self.dataset[i]
            with torch.inference_mode():
                made = network(pixels.normalize(item["source"][None].to(device)))
            target = item["target"][None].to(torch.float64)
            levels = torch.where(item["mask"][None], pixels.denormalize(made.cpu()), target)
            stored, true = pixels.stored_from_float255(levels), pixels.stored_from_float255(target)
            if i < self.n_samples:
                rows.append(_row(pixels.stored_from_float255(item["source"][None]), stored, true))
            signs.append((saturated(stored), saturated(true), checkerboard(stored), checkerboard(true)))
            yield item["name"], stored, true


def saturated(image: Stored) -> float:
    """The part of an image's values (`H,W,C uint8`) that are black or white, 0 or 255."""
    return float(np.mean((image == 0) | (image == int(pixels.WHITE))))


def checkerboard(image: Stored) -> float:
    """How strongly an image (`H,W,C uint8`) alternates from pixel to pixel, as upsampling may make it.

    The root mean square, over blocks of 16 px and bands, of the amplitude of period 2 in rows, columns and
    both: an image that is 0.5 + a and 0.5 - a in turn (of [0,1]) has a; white noise has its deviation / 9.2;
    even slopes have none.
    """
    unit = image.astype(np.float64) / pixels.WHITE
    power = sum(_alternating_power(unit, axes) for axes in ((0,), (1,), (0, 1)))
    return math.sqrt(power)


def _alternating_power(unit: NDArray[np.float64], axes: tuple[int, ...]) -> float:
    """The mean squared amplitude of period 2 along `axes`."""
    for axis in axes:  # what is even along the axis is taken out, what alternates stays as it is
        moved = np.moveaxis(unit, axis, 0)
        even = (2.0 * moved[1:-1] - moved[:-2] - moved[2:]) / 4.0
        sign = np.resize([1.0, -1.0], len(even)).reshape(-1, 1, 1)
        unit = np.moveaxis(even * sign, 0, axis)
    side = min(_BLOCK_PX, *(n // 2 * 2 for n in unit.shape[:2]))
    down, along = (n // side for n in unit.shape[:2])
    blocks = unit[: down * side, : along * side].reshape(down, side, along, side, -1)
    return float(np.mean(blocks.mean(axis=(1, 3)) ** 2))


def _row(*images: Stored) -> Stored:
    return np.concatenate([np.broadcast_to(i, (*i.shape[:2], 3)) for i in images], axis=1)


def _stacked(rows: list[Stored]) -> Stored:
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows], axis=0)
