"""Pairs as tensors: one crop, one flip and one turn for source, target and mask, by position alone."""

from __future__ import annotations

import re
from typing import TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from pbvs.core import errors
from pbvs.core.errors import ImageError, PbvsError, UsageError
from pbvs.dataset.crops import coarse_size, valid_corners
from pbvs.dataset.index import Capture
from pbvs.dataset.pairs import Pair, PairSampler
from pbvs.prepare.grid import Valid
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.resample import Crop

CROP_TRIES = 8  # draws of a crop before a valid one is looked for
MIN_VALID = 0.5  # of a crop's pixels
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
        crop_px: side of a square crop in working pixels; None takes the whole.
        flips: whether to mirror at random both ways and, where the result is square, to turn by quarters.
        seed: of crops and flips, 0 or more.
        min_valid: the part of a crop's pixels that is to be valid in both images, in [0,1]: up to 8 crops
            are drawn, then one is looked for; if there is none, it is the crop with most valid pixels.

    Raises:
        UsageError: `crop_px` is larger than `size_px`, or a number is out of range.
    """

    def __init__(
        self,
        draws: PairSampler,
        *,
        size_px: tuple[int, int],
        crop_px: int | None = None,
        flips: bool = True,
        seed: int = 0,
        min_valid: float = MIN_VALID,
    ) -> None:
        if min(size_px) < 1 or seed < 0 or (crop_px is not None and crop_px < 1):
            raise UsageError("size_px and crop_px are 1 pixel or more, seed is 0 or more")
        if not 0.0 <= min_valid <= 1.0:
            raise UsageError(f"min_valid is a part of 1, not {min_valid}")
        if crop_px is not None and crop_px > min(size_px):
            raise UsageError(
                f"a crop of {crop_px} pixels is larger than the working size {size_px[0]} x {size_px[1]}",
                next_step="choose a smaller crop or a larger size",
            )
        self.draws, self.size_px, self.crop_px = draws, size_px, crop_px
        self.flips, self.seed, self.min_valid = flips, seed, min_valid

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
        rng = np.random.default_rng([_CROPS, self.seed, n])
        crop, shown = self._drawn_crop(rng, pair)
        source, _ = crop.cut(read_values(pair.source.path, crop.box), shown)
        target, valid = crop.cut(read_values(pair.target.path, crop.box), shown)
        images: list[NDArray] = [source, target, valid[:, :, None]]
        if self.flips:
            images = _turned(images, rng)
        tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]
        return {"source": tensors[0], "target": tensors[1], "mask": tensors[2], "name": pair.name}

    def _drawn_crop(self, rng: np.random.Generator, pair: Pair) -> tuple[Crop, Valid]:
        """A crop, and where both images are valid in its box; of the masks too only that box is read."""
        stored_px = _common_size(pair)
        if self.crop_px is None:
            whole = Crop(0, 0, *self.size_px, self.size_px, stored_px)
            return whole, _both_valid(pair, whole)
        tried = []
        for n_tried in range(CROP_TRIES + 1):
            corner = self._corner(rng) if n_tried < CROP_TRIES else self._searched_corner(rng, pair)
            crop = Crop(*corner, self.crop_px, self.crop_px, self.size_px, stored_px)
            shown = _both_valid(pair, crop)
            part = crop.valid_part(shown)
            if part >= self.min_valid:
                return crop, shown
            tried.append((part, -n_tried, crop, shown))
        return max(tried)[2:]  # nowhere is enough: the most there is

    def _corner(self, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of a crop anywhere."""
        assert self.crop_px is not None
        rows, columns = (side - self.crop_px + 1 for side in self.size_px)
        return int(rng.integers(rows)), int(rng.integers(columns))

    def _searched_corner(self, rng: np.random.Generator, pair: Pair) -> tuple[int, int]:
        """Top and left of a crop that is valid enough, by the whole masks read coarsely."""
        assert self.crop_px is not None
        coarse_px = coarse_size(_common_size(pair), self.size_px, self.crop_px)
        valid: Valid = np.ones(coarse_px, bool)
        for capture in _with_mask(pair):
            valid &= read_valid(capture.path, size_px=coarse_px)
        corners = valid_corners(valid, self.size_px, self.crop_px, self.min_valid)
        top, left = corners[int(rng.integers(len(corners)))]
        return int(top), int(left)


def _common_size(pair: Pair) -> tuple[int, int]:
    sizes = [(capture.height_px, capture.width_px) for capture in (pair.source, pair.target)]
    if sizes[0] != sizes[1]:
        raise ImageError(
            f"source and target of {pair.name} differ in size: {sizes[0]} and {sizes[1]}",
            where=pair.target.path,
            next_step="run `pbvs data prepare` again",
        )
    return sizes[0]


def _both_valid(pair: Pair, crop: Crop) -> Valid:
    """`h,w` bool of the stored pixels in the crop's box: where both images of the pair are valid."""
    valid: Valid = np.ones(crop.box_px, bool)
    for capture in _with_mask(pair):
        valid &= read_valid(capture.path, crop.box)
    return valid


def _with_mask(pair: Pair) -> list[Capture]:
    """Those of the two that are not valid everywhere: no other mask need be read."""
    return [capture for capture in (pair.source, pair.target) if capture.valid_fraction < 1.0]


def _turned(images: list[NDArray], rng: np.random.Generator) -> list[NDArray]:
    """Mirrors up-down and left-right at random and, if square, turns by a quarter; all `H,W,C` alike."""
    up_down, left_right, quarter = (bool(rng.integers(2)) for _ in range(3))
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
