"""The pixel term of the score: L1 (mean absolute error) and L2 (root mean square error), in [0,1].

L1 is the 2026 rule. L2 is the 2024 rule: equation 5 of the winning solution is the Euclidean norm, but the
published scores are only possible when it is divided by the root of the number of values. Both are computed
per image; the score is their mean over the images. The same functions are training losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pbvs.core.errors import ScoreError


def l1(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error of each image.

    Args:
        pred, target: `N,C,H,W` float of one shape, in [0,1] (not checked).
        mask: `N,1,H,W` bool, true where the pixel counts; None for all pixels.

    Returns:
        `N`, in the type of the differences, at least float32. An image whose mask is all false has error 0
        and gradient 0.

    Raises:
        ScoreError: shapes that do not match.
    """
    return _mean(_difference(pred, target, mask).abs(), mask)


def l2(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root mean square error of each image; arguments, result and errors as `l1`.

    The gradient of the root is infinite at 0; for equal images it is set to 0, the value stays exact.
    """
    mean_square = _mean(_difference(pred, target, mask).square(), mask)
    differs = mean_square != 0  # true of NaN, which must stay NaN
    # The inner `where` keeps the infinite gradient out of the graph; multiplying it by 0 would yield NaN.
    root = torch.where(differs, mean_square, torch.ones_like(mean_square)).sqrt()
    return torch.where(differs, root, torch.zeros_like(root))


def _difference(pred: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    if pred.ndim != 4 or pred.shape != target.shape:
        raise ScoreError(
            f"pixel errors compare N,C,H,W of one shape, not {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    expected = (pred.shape[0], 1, *pred.shape[2:])
    if mask is not None and (mask.shape != expected or mask.dtype != torch.bool):
        raise ScoreError(
            f"the mask of images {tuple(pred.shape)} is {expected} bool, not {tuple(mask.shape)} {mask.dtype}"
        )
    if torch.promote_types(pred.dtype, target.dtype).itemsize < 4:
        return pred.float() - target.float()  # half types lose squares of small differences
    return pred - target


def _mean(errors: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return errors.mean(dim=(1, 2, 3))
    # `where`, not a product with the mask: pixels outside it may be NaN.
    counted = torch.where(mask, errors, torch.zeros_like(errors)).sum(dim=(1, 2, 3))
    n_values = mask.sum(dim=(1, 2, 3)) * errors.shape[1]
    return counted / n_values.clamp(min=1)
