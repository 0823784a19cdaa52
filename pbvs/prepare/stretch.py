"""The stretch by which 16-bit images become 8-bit, by a named rule, recorded with the data.

* `full` maps 0..65535 to 0..255 (the factor 255/65535), which darkens images of 11- or 12-bit sensors.
* `percentile` has one stretch per sensor, that is per family and modality: the low and the high percentile
  of all its valid 16-bit pixels, all bands together so that colours keep their balance. Test images get the
  same stretch.
* `percentile_image` uses the percentiles of each image's own valid pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pbvs.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Uint16Rule = Literal["full", "percentile", "percentile_image"]
Stretch = tuple[float, float]  # the values that become 0 and 255
Percent = tuple[float, float]  # low and high, in [0,100]

FULL: Stretch = (0.0, 65535.0)
PERCENT: Percent = (1.0, 99.0)


def checked_percent(percent: Percent) -> Percent:
    """The two percents as floats.

    Raises:
        UsageError: not 0 <= low < high <= 100.
    """
    low, high = float(percent[0]), float(percent[1])
    if not 0.0 <= low < high <= 100.0:
        raise UsageError(
            f"the percents of a stretch are 0 <= low < high <= 100, not {low:g} and {high:g}",
            next_step="for example 1 and 99",
        )
    return low, high


def stretch_of_histogram(counts: NDArray[np.int64], percent: Percent = PERCENT) -> Stretch:
    """The stretch of 16-bit pixels from their counts by value.

    Args:
        counts: `65536` counts of valid pixels.
        percent: low and high, in [0,100].

    Returns:
        The smallest values at or below which `percent` of the pixels are, at least 1 apart; `FULL` when
        there is no pixel.
    """
    import numpy as np

    total = int(counts.sum())
    if total == 0:
        return FULL
    below = np.cumsum(counts)
    low, high = (int(np.searchsorted(below, max(total * p / 100.0, 1.0))) for p in percent)
    return float(low), float(max(high, low + 1))
