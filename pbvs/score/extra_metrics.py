"""Extra metrics of image quality, which no rule of the challenge uses but papers report.

All are torchmetrics' (Apache-2.0), of images in [0,1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbvs.core import pixels

_VIF_MIN_PX = 41  # torchmetrics' smallest side for its four scales


def extra_metrics_of(pred: NDArray[np.uint8], target: NDArray[np.uint8]) -> dict[str, float | None]:
    """The extra metrics of one pair.

    Args:
        pred, target: `H,W,1|3`, of one shape.

    Returns:
        By name: `psnr` in dB, `ssim`, `mae` (mean absolute error in [0,1]), `ncc` (normalized
        cross-correlation, Pearson's), `vif`, and `angular_error` (the mean angle between the colours of a
        pixel, in radians). None where a metric is undefined: PSNR of equal images, NCC of a constant image,
        VIF under 41 pixels, angles of one band or with black.
    """
    from torchmetrics.functional import image, regression  # takes a second, which few scorings need

    a, b = (pixels.float255_from_stored(stored).double() / pixels.WHITE for stored in (pred, target))
    is_constant = bool(a.min() == a.max() or b.min() == b.max())
    metrics: dict[str, Any] = {
        "psnr": image.peak_signal_noise_ratio(a, b, data_range=(0.0, 1.0)),
        "ssim": image.structural_similarity_index_measure(a, b, data_range=(0.0, 1.0)),
        "mae": (a - b).abs().mean(),
        "ncc": None if is_constant else regression.pearson_corrcoef(a.flatten(), b.flatten()),
        "vif": image.visual_information_fidelity(a, b) if min(a.shape[2:]) >= _VIF_MIN_PX else None,
        "angular_error": image.spectral_angle_mapper(a, b) if a.shape[1] == 3 else None,
    }
    numbers = {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def mean_extra_metrics(rows: list[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric over the images that have it; None where none has."""
    means: dict[str, float | None] = {}
    for name in rows[0] if rows else ():
        values = [value for row in rows if (value := row[name]) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means
