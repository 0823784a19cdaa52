"""Scores a system on held-out locations with the task score itself, and keeps pictures of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from pbvs.core import pixels
from pbvs.core.types import Image8, Mask
from pbvs.graph.trained import run
from pbvs.score.rules import DEFAULT_FID_LAYER
from pbvs.score.scorer import Scorer
from pbvs.training.loop import Validation
from pbvs.training.system import Translation

_BLOCK_PX = 16


class Validator:
    """Scores a system on the first `images` pairs of `dataset` (whole images, no flips).

    Pixels without a known target are given the target's own value, so they count in no term. The networks
    run in float32 whatever they are trained in, and the image is resized to the target's size, as
    translation does.

    Attributes:
        size_px: height and width of the targets; scores of other sizes do not compare.
    """

    def __init__(
        self,
        dataset: Dataset,
        images: int,
        scorer: Scorer,
        samples: Path,
        size_px: tuple[int, int] | None = None,
        n_samples: int = 4,
    ):
        self.dataset, self.images, self.scorer = dataset, images, scorer
        self.samples, self.size_px, self.n_samples = samples, size_px, n_samples

    def score(self, translation: Translation, images_seen: int) -> Validation:
        """The task score, its parts, and two signs of trouble beside the targets' own values.

        Writes a sample grid, `source | pred | target` per row.
        """
        rows: list[Image8] = []
        signs: list[tuple[float, ...]] = []
        modes = {name: network.training for name, network in translation.networks.items()}
        result = self.scorer.score_pairs(self._pairs(translation.eval(), rows, signs))
        for name, network in translation.networks.items():
            network.train(modes[name])
        width = max(row.shape[1] for row in rows)
        grid = np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows], axis=0)
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
        self, translation: Translation, rows: list[Image8], signs: list[tuple[float, ...]]
    ) -> Iterator[tuple[str, Image8, Image8]]:
        for i in range(self.images):
            item = self.dataset[i]
            source, target = item["source"][None], item["target"][None].to(torch.float64)
            size_px = (target.shape[2], target.shape[3])
            pred = pixels.resize_float255(run(translation, source), size_px)
            mask: Mask = item["mask"][None]
            stored = pixels.stored_from_float255(torch.where(torch.as_tensor(mask), pred, target))
            true = pixels.stored_from_float255(target)
            if i < self.n_samples:
                source_image = pixels.resize(pixels.stored_from_float255(source), size_px)
                row = [np.broadcast_to(image, (*size_px, 3)) for image in (source_image, stored, true)]
                rows.append(np.concatenate(row, axis=1))
            signs.append((saturated(stored), saturated(true), checkerboard(stored), checkerboard(true)))
            yield item["name"], stored, true


def saturated(image: Image8) -> float:
    """The part of an image's values (`H,W,C uint8`) that are black or white, 0 or 255."""
    return float(np.mean((image == 0) | (image == int(pixels.WHITE))))


def checkerboard(image: Image8) -> float:
    """How strongly an image (`H,W,C uint8`) alternates from pixel to pixel, as upsampling may make it.

    The root mean square, over blocks of 16 px and bands, of the amplitude of period 2 in rows, columns and
    both: an image that is 0.5 + a and 0.5 - a in turn (of [0,1]) has a; white noise has its deviation / 9.2;
    even slopes have none.
    """
    unit = image.astype(np.float64) / pixels.WHITE
    power = 0.0
    for axes in ((0,), (1,), (0, 1)):
        kept = unit
        for axis in axes:  # what is even along the axis is taken out, what alternates stays as it is
            moved = np.moveaxis(kept, axis, 0)
            even = (2.0 * moved[1:-1] - moved[:-2] - moved[2:]) / 4.0
            sign = np.resize([1.0, -1.0], len(even)).reshape(-1, 1, 1)
            kept = np.moveaxis(even * sign, 0, axis)
        side = min(_BLOCK_PX, *(n // 2 * 2 for n in kept.shape[:2]))
        down, along = (n // side for n in kept.shape[:2])
        blocks = kept[: down * side, : along * side].reshape(down, side, along, side, -1)
        power += float(np.mean(blocks.mean(axis=(1, 3)) ** 2))
    return math.sqrt(power)
