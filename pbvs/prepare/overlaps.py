"""The fraction of a location's grid on which two captures are both valid.

A capture that is valid throughout needs no reading: its overlap with another is what the other covers. Only
pairs of two partial captures are counted, from their masks, and cached in `overlaps.csv`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path, PurePath

import numpy as np

from pbvs.archives.scan import Problem
from pbvs.core.files import fingerprint
from pbvs.prepare.plan import FamilyLocation, Item
from pbvs.prepare.prepared_folder import Overlap
from pbvs.prepare.rasters import read_valid
from pbvs.prepare.records import Record

_STRIP_PX = 1 << 25  # pixels of masks held at once

Partial = list[tuple[Item, Record]]  # captures of one location, in order of their results


def partial_pairs(finished: Iterable[tuple[Item, Record]]) -> list[Partial]:
    """The partially valid captures of each location that has them in two modalities."""
    locations: dict[FamilyLocation, Partial] = {}
    for item, record in sorted(finished, key=lambda pair: pair[0].out):
        if record.out_bytes and record.valid_fraction < 1.0:
            locations.setdefault(item.location, []).append((item, record))
    return [partial for partial in locations.values() if len({item.modality for item, _ in partial}) > 1]


def overlaps_of(out: Path, partial: Partial, cached: Mapping[str, list[Overlap]]) -> list[Overlap]:
    """The overlap of every two partial captures of different modality of one location.

    Args:
        out: the prepared folder.
        partial: the captures, see `partial_pairs`.
        cached: earlier overlaps by provenance; an unchanged location is not read again.

    Returns:
        The overlaps, fractions of the grid rounded down to 1e-6.

    Raises:
        ImageError: a prepared image is truncated or corrupt.
    """
    provenance = fingerprint([[item.out, record.sha256, record.recipe] for item, record in partial])
    if provenance in cached:
        return cached[provenance]
    items = [item for item, _ in partial]
    pairs = [(a, b) for a, b in combinations(range(len(items)), 2) if items[a].modality != items[b].modality]
    height, width = partial[0][1].height_px, partial[0][1].width_px
    rows = max(1, _STRIP_PX // (width * len(items)))
    n_both = np.zeros(len(pairs), np.int64)
    for top in range(0, height, rows):
        box = (top, 0, min(rows, height - top), width)
        masks = [read_valid(out / item.out, box) for item in items]
        n_both += [int(np.count_nonzero(masks[a] & masks[b])) for a, b in pairs]
    fractions = [math.floor(int(n) * 1_000_000 / (height * width)) / 1e6 for n in n_both]
    return [
        (items[a].out, items[b].out, fraction, provenance)
        for (a, b), fraction in zip(pairs, fractions, strict=True)
    ]


def too_small_overlaps(
    overlaps: Iterable[Overlap], min_fraction: float, keys: Mapping[str, str]
) -> list[Problem]:
    """A problem per pair that is jointly valid on less than `min_fraction` of its grid.

    `keys` maps the path of a result to that of its source.
    """
    return [
        Problem(
            keys[a],
            "overlap",
            f"is valid on {100 * fraction:.1f} % of its location together with {PurePath(keys[b]).name}, "
            f"less than {100 * min_fraction:.0f} %",
        )
        for a, b, fraction, _ in overlaps
        if fraction < min_fraction
    ]


def overlap_rows(overlaps: Iterable[Overlap], items: Mapping[str, Item]) -> list[tuple[str, ...]]:
    """The rows of `overlaps.csv`, sorted; `items` by their results."""
    return sorted(
        (*items[a].location, a, b, f"{fraction:.6f}", provenance) for a, b, fraction, provenance in overlaps
    )
