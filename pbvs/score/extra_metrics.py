"""Further measures of image quality, which no rule of the challenge uses but papers report.

All are torchmetrics' (Apache-2.0), of images in [0,1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pbvs.core import pixels

COLUMNS = ("psnr", "ssim", "mae", "ncc", "vif", "angular_error")
_VIF_LEAST_PX = 41  # torchmetrics' smallest side for its four scales


def extra_metrics_of(made: NDArray[np.uint8], real: NDArray[np.uint8]) -> dict[str, float | None]:
    """The measures of one pair.

    Args:
        made, real: `H,W,1|3`, one shape.

    Returns:
        By the names of `COLUMNS`: PSNR in dB, SSIM, mean absolute error in [0,1], normalised
        cross-correlation (Pearson's), VIF, and the mean angle between the colours of a pixel in radians.
        None where a measure is not a number: PSNR of equal images, NCC of an even one, VIF under 41 pixels,
        angles of one band or with black.
    """
    from torchmetrics.functional import image, regression  # takes a second, which few scorings need

    a, b = (pixels.float255_from_stored(stored).double() / pixels.WHITE for stored in (made, real))
    is_even = bool(a.min() == a.max() or b.min() == b.max())
    found = {
        "psnr": image.peak_signal_noise_ratio(a, b, data_range=(0.0, 1.0)),
        "ssim": image.structural_similarity_index_measure(a, b, data_range=(0.0, 1.0)),
        "mae": (a - b).abs().mean(),
        "ncc": None if is_even else regression.pearson_corrcoef(a.flatten(), b.flatten()),
        "vif": image.visual_information_fidelity(a, b) if min(a.shape[2:]) >= _VIF_LEAST_PX else None,
        "angular_error": image.spectral_angle_mapper(a, b) if a.shape[1] == 3 else None,
    }
    return {name: _number(found[name]) for name in COLUMNS}


def mean_extra_metrics(rows: list[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each measure over the images that have it; None where none has."""
    means: dict[str, float | None] = {}
    for name in rows[0] if rows else ():
        values = [value for row in rows if (value := row[name]) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def _number(value: Any) -> float | None:
    number = math.nan if value is None else float(torch.as_tensor(value))
    return number if math.isfinite(number) else None
