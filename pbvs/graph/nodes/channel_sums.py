"""A chain of nodes applied to a stored RGB image as one look-up table (LUT), where only channel sums matter.

An 8-bit pixel has one of 766 sums of its three bands. A chain that works on the sum pixel by pixel is
therefore a LUT of 766 values, applied in whole numbers in five times the time of a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pbvs.core import pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pbvs.core.types import Image8

N_SUMS = 3 * int(pixels.WHITE) + 1
_BAND_PX = 1 << 18  # pixels at a time: intermediate results stay in the cache


def channel_sums(stored: Image8) -> NDArray[np.uint16]:
    """`H,W` sums of the bands of `H,W,3 uint8`, 0 to 765."""
    import numpy as np

    sums = np.empty(stored.shape[:2], np.uint16)
    for rows, sums_of_rows in _row_bands(stored):
        sums[rows] = sums_of_rows
    return sums


def apply_lut(stored: Image8, lut: NDArray[np.uint8]) -> Image8:
    """`H,W,1`: the entry for each pixel's channel sum.

    Args:
        stored: `H,W,3`.
        lut: `766`.
    """
    import cv2
    import numpy as np

    out = np.empty(stored.shape[:2], np.uint8)
    padded = np.pad(lut, (0, (1 << 16) - N_SUMS))
    takes_16_bits = int(cv2.__version__.split(".")[0]) >= 5  # then it is twice as fast as numpy's take
    for rows, sums in _row_bands(stored):
        if takes_16_bits:
            cv2.LUT(sums, padded, out[rows])
        else:
            lut.take(sums, mode="clip", out=out[rows])
    return out[:, :, None]


def _row_bands(stored: Image8) -> Iterator[tuple[slice, NDArray[np.uint16]]]:
    """Yields bands of rows with their channel sums, in memory that the next band overwrites.

    Sums of bytes wrap; the number of wraps is the high byte: each step is one instruction for 64 pixels.
    """
    import cv2
    import numpy as np

    height, width = stored.shape[:2]
    n_rows = max(1, min(height, _BAND_PX // width))
    scratch = np.empty((5, n_rows, width), np.uint8)
    both = np.empty((n_rows, width, 2), np.uint8)
    for top in range(0, height, n_rows):
        n = min(n_rows, height - top)
        red, green, blue, wrapped, high = scratch[:, :n]
        cv2.split(stored[top : top + n], [red, green, blue])
        np.add(red, green, out=green)
        np.less(green, red, out=wrapped.view(np.bool_))
        np.add(green, blue, out=green)
        np.less(green, blue, out=high.view(np.bool_))
        np.add(wrapped, high, out=high)
        pair = cv2.merge((green, high), both[:n])
        yield slice(top, top + n), pair.view("<u2")[:, :, 0]


def lut_of(operator: Callable[[Tensor], Tensor]) -> NDArray[np.uint8]:
    """`766` uint8: the result of `operator` for every channel sum, rounded as images are.

    Args:
        operator: float255 `1,3,1,766` to `1,1,1,766`; its result may depend on a pixel's sum alone.
    """
    import torch

    sums = torch.arange(N_SUMS)
    thirds = torch.stack([(sums + band) // 3 for band in range(3)])  # whole numbers that add up to the sum
    images = thirds.to(torch.float64)[None, :, None, :]
    return pixels.stored_from_float255(operator(images)).reshape(N_SUMS)
