"""Pairs as tensors: one crop, one flip and one turn for all views and the mask, by position alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from pbvs.core import errors
from pbvs.core.errors import ImageError, PbvsError, UsageError
from pbvs.core.types import Mask
from pbvs.dataset.crops import coarse_size, valid_corners
from pbvs.dataset.index import Capture
from pbvs.dataset.pairs import Pair, PairSampler
from pbvs.dataset.views import PAIR, SOURCE, TARGET, View, reduced
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.resample import Crop

CROP_TRIES = 8  # crops drawn before a valid one is searched for
MIN_VALID = 0.5  # of a crop's pixels
_CROPS, _PARTNERS = 2, 4  # keep the random numbers of crops and partners apart under one seed
_PARTNER_TRIES = 16

Size = tuple[int, int]  # height, width
Entry = tuple[str, int]  # what is read: an image of the pair, and how many times smaller
Key = tuple[Size, Size, int]
Derive = Callable[[Capture], Capture]


class PairDataset(Dataset[dict[str, Any]]):
    """Reads the pairs of `sampler`; item `n` depends on the global position `n` and the seeds alone.

    An item has one `C,H,W uint8` tensor per view, `mask` (`1,H,W bool` at the target's size, true where all
    images of the pair are valid), and the pair's `name`.

    Args:
        sampler: which pairs.
        size_px: working size (height, width): every image counts as resized to it (by `pixels.resize`).
        crop_px: side of a square crop in working pixels; None takes the whole image.
        flips: whether to mirror at random both ways and, where the result is square, to turn by quarters.
        seed: of crops and flips, 0 or more.
        min_valid: the fraction of a crop's pixels that should be valid in all its images, in [0,1]: up to 8
            crops are drawn, then one is searched for; if there is none, the most valid crop is taken.
        views: what the item holds, by name.
        paired: whether source and target show one location; else the target is drawn at another one, with
            a crop and flips of its own.
        derived: for each upstream node that a view is of, the capture that it made of a source capture.
        source_size_px: working size of all but the target, where that differs; for whole images only.

    Raises:
        UsageError: `crop_px` is larger than `size_px`, or a number is out of range.
    """

    def __init__(
        self,
        sampler: PairSampler,
        *,
        size_px: Size,
        crop_px: int | None = None,
        flips: bool = True,
        seed: int = 0,
        min_valid: float = MIN_VALID,
        views: Mapping[str, View] = PAIR,
        paired: bool = True,
        derived: Mapping[str, Derive] | None = None,
        source_size_px: Size | None = None,
    ) -> None:
        if min(size_px) < 1 or seed < 0 or (crop_px is not None and crop_px < 1):
            raise UsageError("size_px and crop_px are 1 pixel or more, seed is 0 or more")
        if not 0.0 <= min_valid <= 1.0:
            raise UsageError(f"min_valid is a fraction in [0,1], not {min_valid}")
        if crop_px is not None and crop_px > min(size_px):
            raise UsageError(
                f"a crop of {crop_px} pixels is larger than the working size {size_px[0]} x {size_px[1]}",
                next_step="choose a smaller crop or a larger size",
            )
        assert source_size_px is None or (crop_px is None and not flips)
        self.sampler, self.size_px, self.crop_px = sampler, size_px, crop_px
        self.flips, self.seed, self.min_valid = flips, seed, min_valid
        self.views, self.paired, self.derived = dict(views), paired, dict(derived or {})
        self._entries: dict[str, Entry] = {name: (view.of, view.read_low) for name, view in views.items()}
        self.source_size_px = source_size_px or size_px

    def __len__(self) -> int:
        """Pairs per epoch; positions go on beyond it."""
        return len(self.sampler)

    def __getitem__(self, n: int) -> dict[str, Any]:
        """The item at global position `n`.

        Raises:
            ImageError: a file is missing, corrupt or not on its location's grid.
        """
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # OpenCV's own threads can lock up after a fork
        pair = self.sampler.pair_at(n)
        rng = np.random.default_rng([_CROPS, self.seed, n])
        captures = {entry: self._capture(entry[0], pair) for entry in sorted(self._entries.values())}
        target = self._entries[TARGET]
        if self.paired:
            images, mask = self._cut(captures, target, rng)
        else:
            others = {entry: capture for entry, capture in captures.items() if entry != target}
            images, _ = self._cut(others, min(others), rng)
            of_partner, mask = self._cut({target: self._partner(n, pair).target}, target, rng)
            images |= of_partner
        item: dict[str, Any] = {
            name: _tensor(view.apply(images[self._entries[name]], self.seed, n))
            for name, view in self.views.items()
        }
        height, width = item[TARGET].shape[1:]
        if mask.shape != (height, width):  # a target reduced by another filter
            mask = reduced(mask.astype(np.float32)[:, :, None], self.views[TARGET].low, "area")[:, :, 0] > 0.5
        return {**item, "mask": _tensor(mask[:, :, None]), "name": pair.name}

    def _capture(self, of: str, pair: Pair) -> Capture:
        if of in (SOURCE, TARGET):
            return pair.source if of == SOURCE else pair.target
        return self.derived[of](pair.source)

    def _partner(self, n: int, pair: Pair) -> Pair:
        """A pair of another location, as far as some tries find one."""
        rng = np.random.default_rng([_PARTNERS, self.seed, n])
        other = pair
        for _ in range(_PARTNER_TRIES):
            other = self.sampler.pair_at(int(rng.integers(max(1, len(self.sampler)))))
            if other.location != pair.location:
                break
        return other

    def _cut(
        self, captures: Mapping[Entry, Capture], target: Entry, rng: np.random.Generator
    ) -> tuple[dict[Entry, Any], Mask]:
        """One crop of all captures, flipped alike, and where all are valid, at the size of `target`."""
        crops, valid = self._draw_crop(captures, rng)
        images: dict[Entry, NDArray] = {}
        masks: dict[Entry, Mask] = {}
        for entry, capture in captures.items():
            key = self._key(entry, capture)
            values = read_values(capture.path, crops[key].box)
            images[entry], masks[entry] = crops[key].cut(values, valid[key])
        size_px = images[target].shape[:2]
        mask = np.logical_and.reduce(
            [mask if mask.shape == size_px else _nearest(mask, size_px) for mask in masks.values()]
        )
        if self.flips:
            flipped = _flip([*images.values(), mask[:, :, None]], rng)
            images, mask = dict(zip(images, flipped[:-1], strict=True)), flipped[-1][:, :, 0]
        return images, mask

    def _key(self, entry: Entry, capture: Capture) -> Key:
        """What two captures must agree in to be cut with one mask: stored and working size, and factor."""
        of, low = entry
        height, width = self.size_px if of == TARGET else self.source_size_px
        return (capture.height_px, capture.width_px), (max(1, height // low), max(1, width // low)), low

    def _draw_crop(
        self, captures: Mapping[Entry, Capture], rng: np.random.Generator
    ) -> tuple[dict[Key, Crop], dict[Key, Mask]]:
        """A crop, and where all captures of one stored size are valid in its box; only that box is read."""
        _check_one_grid(captures)
        keys = {entry: self._key(entry, capture) for entry, capture in captures.items()}
        step = math.lcm(*(low for _, _, low in keys.values()))

        def at(top: int, left: int, size: int | None) -> tuple[dict[Key, Crop], dict[Key, Mask]]:
            top, left = top - top % step, left - left % step
            crops, valid = {}, {}
            for key in keys.values():
                stored_px, size_px, low = key
                part = size_px if size is None else (size // low, size // low)
                crops[key] = Crop(top // low, left // low, *part, size_px, stored_px)
                valid[key] = np.ones(crops[key].box_px, bool)
                for entry, capture in captures.items():
                    # Whatever is stored at one size counts together, also where working sizes differ.
                    if keys[entry][0] == stored_px and capture.valid_fraction < 1.0:
                        valid[key] &= read_valid(capture.path, crops[key].box)
            return crops, valid

        if self.crop_px is None:
            return at(0, 0, None)
        tried = []
        for n_tried in range(CROP_TRIES + 1):
            if n_tried < CROP_TRIES:
                top, left = (int(rng.integers(side - self.crop_px + 1)) for side in self.size_px)
            else:
                top, left = self._search_corner(captures, rng)
            crops, valid = at(top, left, self.crop_px)
            fraction = min(crop.valid_fraction(valid[key]) for key, crop in crops.items())
            if fraction >= self.min_valid:
                return crops, valid
            tried.append((fraction, -n_tried, crops, valid))
        return max(tried, key=lambda one: one[:2])[2:]  # nowhere is enough: the most there is

    def _search_corner(self, captures: Mapping[Entry, Capture], rng: np.random.Generator) -> Size:
        """Top and left of a crop that is valid enough, by the whole masks read coarsely."""
        assert self.crop_px is not None
        smallest = min((capture.height_px, capture.width_px) for capture in captures.values())
        coarse_px = coarse_size(smallest, self.size_px, self.crop_px)
        valid: Mask = np.ones(coarse_px, bool)
        for capture in captures.values():
            if capture.valid_fraction < 1.0:
                valid &= read_valid(capture.path, size_px=coarse_px)
        corners = valid_corners(valid, self.size_px, self.crop_px, self.min_valid)
        top, left = corners[int(rng.integers(len(corners)))]
        return int(top), int(left)


def _check_one_grid(captures: Mapping[Entry, Capture]) -> None:
    """Source and target of one location lie on one grid."""
    by_name = {of: capture for (of, _), capture in captures.items()}
    if not {SOURCE, TARGET} <= set(by_name):
        return
    source, target = by_name[SOURCE], by_name[TARGET]
    sizes = [(capture.height_px, capture.width_px) for capture in (source, target)]
    if sizes[0] != sizes[1]:
        raise ImageError(
            f"source and target differ in size: {source.path} has {sizes[0]}, the target {sizes[1]}",
            where=target.path,
            next_step="run `pbvs data prepare` again",
        )


def _nearest(mask: Mask, size_px: Size) -> Mask:
    resized = cv2.resize(mask.astype(np.uint8), size_px[::-1], interpolation=cv2.INTER_NEAREST)
    return resized.astype(bool)


def _tensor(image: NDArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _flip(images: list[NDArray], rng: np.random.Generator) -> list[NDArray]:
    """Mirrors up-down and left-right at random and, if square, turns by a quarter; all `H,W,C` alike."""
    up_down, left_right, quarter = (bool(rng.integers(2)) for _ in range(3))
    if up_down:
        images = [image[::-1] for image in images]
    if left_right:
        images = [image[:, ::-1] for image in images]
    if quarter and all(image.shape[0] == image.shape[1] for image in images):
        images = [image.transpose(1, 0, 2) for image in images]
    return images


_ERROR_IN_TRACEBACK = re.compile(r"pbvs\.core\.errors\.(?P<kind>\w+): ")


def from_worker(error: PbvsError) -> PbvsError:
    """The error as it was raised in a DataLoader's worker.

    torch raises the worker's error again with the worker's traceback as its text; users should see the text
    itself. An error of the main process is returned as it is.
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
