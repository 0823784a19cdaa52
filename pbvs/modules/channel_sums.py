"""What a chain of nodes makes of a stored RGB image through one table, where only channel sums matter.

An 8-bit pixel has one of 766 sums of its three bands. Whatever follows a sum pixel by pixel is therefore a
table of 766 values, and the image is made from whole numbers at about the speed of memory.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbvs import pixels

N_SUMS = 3 * int(pixels.WHITE) + 1
_ROWS_PX = 1 << 17  # pixels at a time: what is between stays in the cache


def channel_sums(stored: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """`H,W` sums of the bands of `H,W,3 uint8`, 0 to 765."""
    red, green, blue = cv2.split(stored)
    # Sums of bytes wrap; how often is the high byte. Each step is one instruction for 64 pixels.
    two = red + green
    low = two + blue
    high = (two < red).view(np.uint8) + (low < blue).view(np.uint8)
    return cv2.merge((low, high)).view("<u2")[:, :, 0]


def through_table(stored: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`H,W,1`: the table's entry for each pixel's channel sum.

    Args:
        stored: `H,W,3`.
        table: `766`.
    """
    height, width = stored.shape[:2]
    out = np.empty((height, width, 1), np.uint8)
    rows = max(1, _ROWS_PX // width)
    for top in range(0, height, rows):
        table.take(channel_sums(stored[top : top + rows]), out=out[top : top + rows, :, 0], mode="clip")
    return out


def table_of(operator: Callable[[Tensor], Tensor]) -> NDArray[np.uint8]:
    """`766` stored values: what `operator` makes of every channel sum, rounded as images are.

    Args:
        operator: levels `1,3,1,766` to levels `1,1,1,766`; its result may depend on a pixel's sum alone.
    """
    sums = torch.arange(N_SUMS)
    thirds = torch.stack([(sums + band) // 3 for band in range(3)])  # whole numbers that add up to the sum
    levels = thirds.to(torch.float64)[None, :, None, :]
    return pixels.stored_from_levels(operator(levels)).reshape(N_SUMS)
