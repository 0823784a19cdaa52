"""Pairs as tensors: one crop, one flip and one turn for source, target and mask, by position alone."""

from __future__ import annotations

import re
from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from pbvs import errors
from pbvs.data.crops import Crop, read_crop, read_validity, stored_box
from pbvs.data.index import Capture
from pbvs.data.pairs import Pair, PairDraws
from pbvs.data.warp import Valid
from pbvs.errors import ImageError, PbvsError, UsageError

CROP_TRIES = 8  # draws of a crop before the best of them is taken
LEAST_VALID = 0.5  # of a crop's pixels
_CROPS = 2  # keeps this chance apart from that of the draws under one seed


class Sample(TypedDict):
    """One pair: `source` and `target` `C,H,W uint8`, `mask` `1,H,W bool` (both valid), `name` of the pair."""

    source: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    name: str


class PairDataset(Dataset[Sample]):
    """Reads the pairs of `draws`; item `n` depends on the global position `n` and the seeds alone.

    Args:
        draws: which pairs.
        size_px: working size (height, width): every image counts as resized to it (by `pixels.resize`).
        crop_px: side of a square crop in working pixels; None takes the whole. A crop holds at least half
            valid pixels: up to 8 are drawn, then the best is taken.
        flips: whether to mirror at random both ways and, where the result is square, to turn by quarters.
        seed: of crops and flips, 0 or more.

    Raises:
        UsageError: `crop_px` is larger than `size_px`, or a number is out of range.
    """

    def __init__(
        self,
        draws: PairDraws,
        *,
        size_px: tuple[int, int],
        crop_px: int | None = None,
        flips: bool = True,
        seed: int = 0,
    ) -> None:
        if min(size_px) < 1 or seed < 0 or (crop_px is not None and crop_px < 1):
            raise UsageError("size_px and crop_px are 1 pixel or more, seed is 0 or more")
        if crop_px is not None and crop_px > min(size_px):
            raise UsageError(
                f"a crop of {crop_px} pixels is larger than the working size {size_px[0]} x {size_px[1]}",
                next_step="choose a smaller crop or a larger size",
            )
        self.draws, self.size_px, self.crop_px, self.flips, self.seed = draws, size_px, crop_px, flips, seed

    def __len__(self) -> int:
        """Draws an epoch; positions go on beyond it."""
        return len(self.draws)

    def __getitem__(self, n: int) -> Sample:
        """The sample at global position `n`.

        Raises:
            ImageError: a file is missing, torn or not on its location's grid.
        """
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # OpenCV's own threads can lock up after a fork
        pair = self.draws.draw(n)
        chance = np.random.default_rng([_CROPS, self.seed, n])
        stored_px = _common_size(pair)
        valid = _joint_validity(pair)
        crop = self._draw_crop(chance, valid, stored_px)
        source, seen_in_source = read_crop(pair.source.path, valid, crop, stored_px)
        target, seen_in_target = read_crop(pair.target.path, valid, crop, stored_px)
        images = [source, target, (seen_in_source & seen_in_target)[:, :, None]]
        if self.flips:
            images = _turned(images, chance)
        tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]
        return {"source": tensors[0], "target": tensors[1], "mask": tensors[2], "name": pair.name}

    def _draw_crop(
        self, chance: np.random.Generator, valid: Valid | None, stored_px: tuple[int, int]
    ) -> Crop:
        height, width = self.size_px
        if self.crop_px is None:
            return Crop(0, 0, height, width, self.size_px)
        best, most = None, -1.0
        for _ in range(CROP_TRIES):
            top = int(chance.integers(height - self.crop_px + 1))
            left = int(chance.integers(width - self.crop_px + 1))
            crop = Crop(top, left, self.crop_px, self.crop_px, self.size_px)
            part = 1.0 if valid is None else _valid_part(valid, crop, stored_px)
            if part > most:
                best, most = crop, part
            if most >= LEAST_VALID:
                break
        assert best is not None  # the first try is better than none
        return best


def _common_size(pair: Pair) -> tuple[int, int]:
    sizes = [(capture.height_px, capture.width_px) for capture in (pair.source, pair.target)]
    if sizes[0] != sizes[1]:
        raise ImageError(
            f"source and target of {pair.name} differ in size: {sizes[0]} and {sizes[1]}",
            where=pair.target.path,
            next_step="run `pbvs data prepare` again",
        )
    return sizes[0]


def _joint_validity(pair: Pair) -> Valid | None:
    """`H,W` bool where both are valid; None where that is everywhere."""
    masks = [mask for mask in map(_validity, (pair.source, pair.target)) if mask is not None]
    if not masks:
        return None
    return masks[0] if len(masks) == 1 else masks[0] & masks[1]


def _validity(capture: Capture) -> Valid | None:
    return read_validity(capture.path, capture.valid_fraction)


def _valid_part(valid: Valid, crop: Crop, stored_px: tuple[int, int]) -> float:
    top, left, height, width = stored_box(crop, stored_px)
    return float(valid[top : top + height, left : left + width].mean())


def _turned(images: list[NDArray], chance: np.random.Generator) -> list[NDArray]:
    """Mirrors up-down and left-right at random and, if square, turns by a quarter; all `H,W,C` alike."""
    up_down, left_right, quarter = (bool(chance.integers(2)) for _ in range(3))
    height, width = images[0].shape[:2]
    if up_down:
        images = [image[::-1] for image in images]
    if left_right:
        images = [image[:, ::-1] for image in images]
    if quarter and height == width:
        images = [image.transpose(1, 0, 2) for image in images]
    return images


_ERROR_IN_TRACEBACK = re.compile(r"pbvs\.errors\.(?P<kind>\w+): ")


def from_worker(error: PbvsError) -> PbvsError:
    """The error as it was raised in a DataLoader's worker.

    torch raises the worker's error again with the worker's traceback as its text; users are to see the text
    itself. An error of the main process is given back as it is.
    """
    found = list(_ERROR_IN_TRACEBACK.finditer(error.what))
    if not found:
        return error
    text = error.what[found[-1].end() :].rstrip()
    kind = getattr(errors, found[-1]["kind"], type(error))
    what, *rest = text.split("\n  where: ", 1)
    where, *step = rest[0].split("\n  next:  ", 1) if rest else ("",)
    original = kind(what, where=where or None, next_step=step[0] if step else None)
    assert isinstance(original, PbvsError)
    return original
