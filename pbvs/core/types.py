"""Type aliases shared by the whole package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image8 = NDArray[np.uint8]
"""An 8-bit image as stored in a file: `H,W,C uint8`, RGB order; `H,W` where a docstring says so."""

Mask = NDArray[np.bool_]
"""A mask of pixels: `H,W bool`, True where a pixel is valid or selected."""

Progress = Callable[[int, int], None]
"""A progress callback: `progress(done, total)`, in whatever unit the caller counts."""
