"""LPIPS, version 0.1: the perceptual term of the score, and a training loss.

Zhang et al. 2018, equation 1, as in richzhang/PerceptualSimilarity (package lpips 0.1.4, BSD-2-Clause):
features after some of its layers, each pixel's vector scaled to length 1, squared differences weighted by the
official heads, averaged over the pixels, summed over the layers. One difference: the package adds its
epsilon to the length, outside the square root, so the gradient is infinite at vectors of length 0;
here it is inside. Values agree to 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pbvs.core.errors import ScoreError, UsageError, WeightsError, did_you_mean
from pbvs.core.files import sha256_of_file
from pbvs.perceptual.metric_weights import WeightsKind, load_metric_weights
from pbvs.perceptual.official_networks import lpips_backbone
from pbvs.perceptual.precision import fastest_memory_format

Net = Literal["vgg", "alex", "squeeze"]
VERSION = "0.1"
BACKBONE_OF_NET = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
# Squared lengths of feature vectors are far larger; a vector of length 0 stays 0, its gradient <= 1e5.
_EPSILON = 1e-10
# Without gradients VGG's layers are computed in strips of rows of at most about this many values (64 MB): at
# 1024 px 1.0 GB less at the same speed. Smaller strips compute too many rows twice.
_STRIP_VALUES = 1 << 24
# Features are compared in bands of about this many values (4 MB): they stay in the cache, and the overhead of
# threads stays small.
_BAND_VALUES = 1 << 20


class PerceptualDistance(nn.Module):
    """LPIPS with frozen networks: no parameter is trained, gradients flow to the images.

    Args:
        kind: which weights the backbone gets; the heads are always the official ones.
        net: `vgg` (the score's), `alex` or `squeeze`.
        check_range: refuse values outside [-1,1]; off in training, to save time.

    Attributes:
        sha256: of the backbone's weights.
        heads_sha256: of the file of heads in the lpips package.

    Raises:
        UsageError: unknown net.
        WeightsError: the backbone's weights of this kind are unavailable.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: WeightsKind, net: Net = "vgg", *, check_range: bool = True):
        super().__init__()
        if net not in BACKBONE_OF_NET:
            raise UsageError(
                "unknown LPIPS net", where=net, next_step=did_you_mean(net, list(BACKBONE_OF_NET))
            )
        import lpips  # imports torchvision.models, which takes seconds

        state, self.sha256 = load_metric_weights(BACKBONE_OF_NET[net], kind)
        backbone = lpips_backbone(net)
        # `features.<i>.<...>` of torchvision's file is `slice<n>.<i>.<...>` here.
        wanted = {key: state["features." + key.split(".", 1)[1]] for key in backbone.state_dict()}
        backbone.load_state_dict(wanted, strict=True, assign=True)
        path = Path(lpips.__file__).parent / "weights" / f"v{VERSION}" / f"{net}.pth"
        try:
            heads = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"the LPIPS heads cannot be loaded: {error}", where=path, next_step="reinstall lpips"
            ) from error
        self.heads_sha256 = sha256_of_file(path)
        slices = [getattr(backbone, f"slice{i + 1}") for i in range(len(heads))]
        self.stages = nn.ModuleList(map(_Stage, slices, [*slices[1:], nn.Sequential()]))
        for index in range(len(heads)):  # each `1,C,1,1`
            self.register_buffer(f"head{index}", heads[f"lin{index}.model.1.weight"])
        scaling = lpips.ScalingLayer()
        self.register_buffer("shift", scaling.shift)
        self.register_buffer("scale", scaling.scale)
        self.check_range = check_range
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """LPIPS of each pair.

        Args:
            x, y: `N,1|3,H,W` float in [-1,1], of one `N`, `H` and `W`; one band is repeated to three.

        Returns:
            `N` distances, 0 for equal images. Gradients flow to each input that requires them.

        Raises:
            ScoreError: shapes that do not match, or (with `check_range`) values outside [-1,1] by over 1e-3.
        """
        same_size = x.ndim == y.ndim == 4 and x.shape[0] == y.shape[0] and x.shape[2:] == y.shape[2:]
        if not same_size or x.shape[1] not in (1, 3) or y.shape[1] not in (1, 3):
            raise ScoreError(
                f"LPIPS compares N,1|3,H,W of one size, not {tuple(x.shape)} and {tuple(y.shape)}"
            )
        for image in (x, y) if self.check_range else ():
            low, high = (float(v) for v in image.detach().aminmax())
            if not (low >= -1.001 and high <= 1.001):  # also true of NaN
                raise ScoreError(
                    f"LPIPS needs values in [-1,1], not {low:g} to {high:g}",
                    next_step="scale stored values with pbvs.core.pixels.normalize",
                )
        # One band becomes three by broadcasting.
        a, b = (fastest_memory_format((image - self.shift) / self.scale) for image in (x, y))
        total = a.new_zeros(len(a), dtype=torch.float32)
        with_gradients = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        compare = _compare if with_gradients else _compare_in_strips
        for index, stage in enumerate(self.stages):
            # One stage of both at a time: without gradients the features of earlier stages are freed.
            distance, a, b = compare(cast(_Stage, stage), a, b, self.get_buffer(f"head{index}"))
            total = total + distance
        return total

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stays in evaluation mode, also as part of a model in training."""
        del mode
        return super().train(False)


class _Stage(nn.Module):
    """The layers between two compared ones: `body` up to the compared layer, then `pool` to the next stage.

    Attributes:
        halo_rows: the number of rows at an inner border of a strip that the body computes wrong, because
            their neighbours are missing; None if the stage cannot be computed in strips.
    """

    def __init__(self, part: nn.Sequential, followed_by: nn.Sequential):
        super().__init__()
        self.body = nn.Sequential(*(layer for layer in part if not isinstance(layer, nn.MaxPool2d)))
        self.pool = nn.Sequential(*(layer for layer in followed_by if isinstance(layer, nn.MaxPool2d)))
        convolutions = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        in_strips = (
            all(isinstance(layer, nn.Conv2d | nn.ReLU) for layer in self.body)
            and all(c.kernel_size == (3, 3) and c.stride == c.padding == (1, 1) for c in convolutions)
            and all(p.kernel_size == p.stride == 2 for p in self.pool)
        )
        self.halo_rows = len(convolutions) if in_strips else None


def _compare(stage: _Stage, a: Tensor, b: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The `N` distances at one layer, averaged over its pixels, and both inputs of the next stage."""
    a, b = stage.body(a), stage.body(b)
    x, y = (f.float() if f.dtype.itemsize < 4 else f for f in (a, b))  # float16 cannot hold the epsilon
    difference = unit_vectors(x) - unit_vectors(y)
    distance = (difference.square() * head).sum(dim=(1, 2, 3)) / (a.shape[2] * a.shape[3])
    return distance, stage.pool(a), stage.pool(b)


def _compare_in_strips(stage: _Stage, a: Tensor, b: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_compare`, without gradients and with little memory.

    Each strip is computed with enough rows above and below it that its own rows equal those of the whole.
    """
    n, _, height, width = a.shape
    rows, halo = height, 0
    if stage.halo_rows is not None:
        # An even number: the pool reads two rows at a time.
        rows, halo = max(2, _STRIP_VALUES // (n * head.shape[1] * width) // 2 * 2), stage.halo_rows
    total, n_pixels = a.new_zeros(n, dtype=torch.float64), 0
    pooled: tuple[list[Tensor], list[Tensor]] = ([], [])
    for top in range(0, max(height - 1, 1), rows):
        # A single last row joins the strip before it, because the pool drops it.
        bottom = height if top + rows >= height - 1 else top + rows
        above, below = min(top, halo), min(height - bottom, halo)
        strips = []
        for image, kept in zip((a, b), pooled, strict=True):
            strip = stage.body(image[:, :, top - above : bottom + below])
            strips.append(strip[:, :, above : strip.shape[2] - below])
            kept.append(stage.pool(strips[-1]))
        total += _sum_in_bands(strips[0], strips[1], head)
        n_pixels += strips[0].shape[2] * strips[0].shape[3]
    next_a, next_b = (torch.cat(kept, dim=2) if len(kept) > 1 else kept[0] for kept in pooled)
    return (total / n_pixels).float(), next_a, next_b


def _sum_in_bands(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """The weighted squared differences of unit vectors, summed per image in float64, over bands of rows.

    In-place: a third of the time of the formula in `_compare`.
    """
    rows = max(1, _BAND_VALUES // (a.shape[1] * a.shape[3]))
    total = a.new_zeros(len(a), dtype=torch.float64)
    for x, y in zip(torch.split(a, rows, dim=2), torch.split(b, rows, dim=2), strict=True):
        # Both are rounded alike before the subtraction, so equal images have distance 0 exactly.
        difference = _unit_rows(x).sub_(_unit_rows(y)).square_()
        total += (difference @ head.flatten()).double().sum(dim=1)
    return total


def _unit_rows(features: Tensor) -> Tensor:
    """`unit_vectors` as rows `N,H*W,C` float32, the order of channels_last in memory."""
    rows = features.float().movedim(1, -1).flatten(1, 2)
    squared_length = torch.linalg.vecdot(rows, rows).unsqueeze(-1)
    unit: Tensor = rows * squared_length.add_(_EPSILON).rsqrt_()
    return unit


def unit_vectors(features: Tensor) -> Tensor:
    """`N,C,H,W` with each pixel's vector scaled to length 1; zero vectors stay 0, with a finite gradient."""
    squared_length = features.square().sum(dim=1, keepdim=True)
    return features * torch.rsqrt(squared_length + _EPSILON)
