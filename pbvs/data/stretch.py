"""The numbers by which 16-bit images become 8-bit, by a named rule, recorded with the data.

`full` maps 0..65535 to 0..255 (the factor 255/65535), which darkens images of 11- or 12-bit sensors.
`percentile` maps the 1st to the 99th percentile of all valid 16-bit pixels of one city and modality to
0..255, all bands together so that colours keep their balance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pbvs.data.warp import Valid
from pbvs.errors import DataError
from pbvs.pixels import Stored

Uint16Rule = Literal["full", "percentile"]
Stretch = tuple[float, float]  # the values that become 0 and 255

FULL: Stretch = (0.0, 65535.0)
LOW_PERCENT, HIGH_PERCENT = 1.0, 99.0
_N_VALUES = 65536


def percentile_stretch(paths: Iterable[Path], read: Callable[[Path], tuple[Stored, Valid]]) -> Stretch:
    """The stretch of one group of 16-bit files, from one histogram filled file by file.

    Args:
        paths: the files; one that cannot be read is passed over (it is told of where it is prepared).
        read: gives an `H,W,C` image and its `H,W` validity, or raises `DataError`.

    Returns:
        The smallest values at or below which 1 % and 99 % of the valid pixels lie, at least 1 apart;
        `FULL` when no pixel is valid.
    """
    counts = np.zeros(_N_VALUES, np.int64)
    for path in paths:
        try:
            stored, valid = read(path)
        except DataError:
            continue
        counts += np.bincount(stored[valid].ravel(), minlength=_N_VALUES)
    return stretch_of_histogram(counts)


def stretch_of_histogram(counts: NDArray[np.int64]) -> Stretch:
    """As `percentile_stretch`, of `65536` counts by value."""
    total = int(counts.sum())
    if total == 0:
        return FULL
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(below, total * p / 100.0)) for p in (LOW_PERCENT, HIGH_PERCENT))
    return float(low), float(max(high, low + 1))
