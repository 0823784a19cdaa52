"""Type aliases shared by the whole package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # commands that open no image skip the import of numpy
    import numpy as np
    from numpy.typing import NDArray

Image8: TypeAlias = "NDArray[np.uint8]"
"""An 8-bit image as stored in a file: `H,W,C uint8`, RGB order; `H,W` where a docstring says so."""

Mask: TypeAlias = "NDArray[np.bool_]"
"""A mask of pixels: `H,W bool`, True where a pixel is valid or selected."""

Progress = Callable[[int, int], None]
"""A progress callback: `progress(done, total)`, in whatever unit the caller counts."""
