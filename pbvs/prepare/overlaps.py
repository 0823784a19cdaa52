"""On how much of a location's grid two captures are both valid.

A capture that is valid throughout needs no look: what it shares with another is what the other covers. Only
pairs of which both are partial are counted, from their masks, and kept in `overlaps.csv`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePath

import numpy as np

from pbvs.archives.scan import Problem
from pbvs.core.files import fingerprint
from pbvs.prepare.plan import Item, Place
from pbvs.prepare.prepared_folder import Overlap
from pbvs.prepare.rasters import read_valid
from pbvs.prepare.records import Record

_STRIP_PX = 1 << 25  # pixels of masks held at once

Partial = list[tuple[Item, Record]]  # captures of one location, in order of their results


def partial_pairs(made: Iterable[tuple[Item, Record]]) -> list[Partial]:
    """By location the captures that are valid in part only, where there are such of two modalities."""
    places: dict[Place, Partial] = {}
    for item, record in sorted(made, key=lambda one: one[0].out):
        if record.out_bytes and record.valid_fraction < 1.0:
            places.setdefault(item.place, []).append((item, record))
    return [partial for partial in places.values() if len({_modality(item) for item, _ in partial}) > 1]


def overlaps_of(out: Path, partial: Partial, remembered: Mapping[str, list[Overlap]]) -> list[Overlap]:
    """The overlap of every two partial captures of different modality of one location.

    Args:
        out: the prepared folder.
        partial: the captures, see `partial_pairs`.
        remembered: by what they were made of; an unchanged location is not looked at again.

    Raises:
        ImageError: a prepared image is torn.
    """
    provenance = fingerprint([[item.out, record.sha256, record.made_by] for item, record in partial])
    if known := remembered.get(provenance):
        return known
    pairs = [
        (a, b)
        for a, b in combinations(range(len(partial)), 2)
        if _modality(partial[a][0]) != _modality(partial[b][0])
    ]
    names = [item.out for item, _ in partial]
    size_px = partial[0][1].height_px, partial[0][1].width_px
    fractions = _joint_fractions([out / name for name in names], pairs, size_px)
    return [
        (names[a], names[b], fraction, provenance) for (a, b), fraction in zip(pairs, fractions, strict=True)
    ]


def _modality(item: Item) -> str:
    return item.seen.entry.modality


def _joint_fractions(
    paths: Sequence[Path], pairs: Sequence[tuple[int, int]], size_px: tuple[int, int]
) -> list[float]:
    """Parts of the grid, rounded down to 1e-6; the masks are read a strip of rows at a time."""
    height, width = size_px
    rows = max(1, _STRIP_PX // (width * len(paths)))
    n_both = np.zeros(len(pairs), np.int64)
    for top in range(0, height, rows):
        box = (top, 0, min(rows, height - top), width)
        masks = [read_valid(path, box) for path in paths]
        n_both += [int(np.count_nonzero(masks[a] & masks[b])) for a, b in pairs]
    return [math.floor(int(n) * 1_000_000 / (height * width)) / 1e6 for n in n_both]


def too_small_overlaps(overlaps: Iterable[Overlap], least: float, keys: Mapping[str, str]) -> list[Problem]:
    """A problem for each pair that is both valid on less than `least` of its grid.

    `keys` gives the source's path by that of the result.
    """
    return [
        Problem(
            keys[a],
            "overlap",
            f"is valid on {100 * fraction:.1f} % of its location together with {PurePath(keys[b]).name}, "
            f"less than {100 * least:.0f} %",
        )
        for a, b, fraction, _ in overlaps
        if fraction < least
    ]


def overlap_rows(overlaps: Iterable[Overlap], items: Mapping[str, Item]) -> list[tuple[str, ...]]:
    """The rows of `overlaps.csv`, sorted; `items` by their results."""
    return sorted(
        (*items[a].place, a, b, f"{fraction:.6f}", provenance) for a, b, fraction, provenance in overlaps
    )
