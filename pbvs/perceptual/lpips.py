"""LPIPS, version 0.1: the score's perceptual term, and the same thing as a training loss.

Zhang et al. 2018, equation 1, as richzhang/PerceptualSimilarity (package lpips 0.1.4, BSD-2-Clause) has it:
features after some of its layers, each pixel's vector scaled to length 1, squared differences weighted by the
official heads, averaged over the pixels, summed over the layers. One thing differs: the package adds its
epsilon to the length, outside the square root, whose gradient is then infinite at vectors of length 0;
here it stands inside. Values agree to 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import lpips
import torch
from torch import Tensor, nn

from pbvs.core.errors import ScoreError, UsageError, WeightsError, did_you_mean
from pbvs.core.files import sha256_of_file
from pbvs.perceptual.metric_weights import WeightsKind, load_metric_weights
from pbvs.perceptual.official_networks import lpips_backbone
from pbvs.perceptual.precision import fastest_layout

Net = Literal["vgg", "alex", "squeeze"]
VERSION = "0.1"
BACKBONE_OF_NET = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
# Squared lengths of feature vectors lie far above; a vector of length 0 stays 0, its gradient <= 1e5.
_EPSILON = 1e-10
# Without gradients VGG's layers are computed in strips of rows of at most about this many values (64 MB): at
# 1024 px 1.0 GB less at the same speed. Smaller ones compute too many rows twice.
_STRIP_VALUES = 1 << 24
# Features are compared in bands of about this many values (4 MB): they stay in the cache, and threads are not
# woken too often.
_BAND_VALUES = 1 << 20


class PerceptualDistance(nn.Module):
    """LPIPS with frozen networks; nothing of it is trained, gradients flow to the images.

    Args:
        kind: which weights the backbone gets; the heads are always the official ones.
        net: `vgg` (the score's), `alex` or `squeeze`.
        check_range: refuse values outside [-1,1]; switched off in training, to save the time.

    Attributes:
        sha256: of the backbone's weights.
        heads_sha256: of the file of heads in the lpips package.

    Raises:
        UsageError: unknown net.
        WeightsError: the backbone's weights of this kind are not to be had.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: WeightsKind, net: Net = "vgg", *, check_range: bool = True):
        super().__init__()
        if net not in BACKBONE_OF_NET:
            raise UsageError(
                "unknown LPIPS net", where=net, next_step=did_you_mean(net, list(BACKBONE_OF_NET))
            )
        state, self.sha256 = load_metric_weights(BACKBONE_OF_NET[net], kind)
        backbone = _filled(lpips_backbone(net), state)
        heads, self.heads_sha256 = _official_heads(net)
        slices = [getattr(backbone, f"slice{i + 1}") for i in range(len(heads))]
        self.stages = nn.ModuleList(map(_Stage, slices, [*slices[1:], nn.Sequential()]))
        for index, head in enumerate(heads):
            self.register_buffer(f"head{index}", head)
        scaling = lpips.ScalingLayer()
        self.register_buffer("shift", scaling.shift)
        self.register_buffer("scale", scaling.scale)
        self.check_range = check_range
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """LPIPS of each pair.

        Args:
            x, y: `N,1|3,H,W` float in [-1,1], the same shape but for the bands; one is repeated to three.

        Returns:
            `N` distances, 0 for equal images. Gradients flow to whichever asks for them.

        Raises:
            ScoreError: shapes that do not fit, or (with `check_range`) values outside [-1,1] by over 1e-3.
        """
        _check_shapes(x, y)
        if self.check_range:
            _check_range(x)
            _check_range(y)
        a, b = self._scaled(x), self._scaled(y)
        total = a.new_zeros(len(a), dtype=torch.float32)
        with_gradients = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        compare = _compared if with_gradients else _compared_in_strips
        for index, stage in enumerate(self.stages):
            # One stage of both at a time: the features of earlier ones are let go without gradients.
            distance, a, b = compare(cast(_Stage, stage), a, b, self.get_buffer(f"head{index}"))
            total = total + distance
        return total

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stays in evaluation mode, also as part of a model that is trained."""
        del mode
        return super().train(False)

    def _scaled(self, image: Tensor) -> Tensor:
        return fastest_layout((image - self.shift) / self.scale)  # one band becomes three by broadcasting


class _Stage(nn.Module):
    """What lies between two compared layers: `body` up to the layer, then `pool` towards the next one.

    Attributes:
        halo_rows: how many rows at an inner border of a strip the body gets wrong, for want of neighbours;
            None where the stage is not made for strips.
    """

    def __init__(self, part: nn.Sequential, followed_by: nn.Sequential):
        super().__init__()
        self.body = nn.Sequential(*(layer for layer in part if not isinstance(layer, nn.MaxPool2d)))
        self.pool = nn.Sequential(*(layer for layer in followed_by if isinstance(layer, nn.MaxPool2d)))
        goes = all(map(_goes_in_strips, self.body)) and all(p.kernel_size == p.stride == 2 for p in self.pool)
        self.halo_rows = sum(isinstance(layer, nn.Conv2d) for layer in self.body) if goes else None


def _goes_in_strips(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (3, 3) and layer.stride == layer.padding == (1, 1)
    return isinstance(layer, nn.ReLU)


def _compared(stage: _Stage, a: Tensor, b: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`N` distances at one layer, averaged over its pixels, and what the next stage is given of both."""
    a, b = stage.body(a), stage.body(b)
    return _summed(a, b, head) / (a.shape[2] * a.shape[3]), stage.pool(a), stage.pool(b)


def _compared_in_strips(stage: _Stage, a: Tensor, b: Tensor, head: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_compared`, without gradients and with as little memory as can be.

    A strip is computed with so many rows above and below it that its own come out as those of the whole.
    """
    n, _, height, width = a.shape
    rows, halo = height, 0
    if stage.halo_rows is not None:
        # An even number: the pool takes two at a time.
        rows, halo = max(2, _STRIP_VALUES // (n * head.shape[1] * width) // 2 * 2), stage.halo_rows
    total, n_pixels = a.new_zeros(n, dtype=torch.float64), 0
    pooled: tuple[list[Tensor], list[Tensor]] = ([], [])
    for top in range(0, max(height - 1, 1), rows):
        # A single row left over goes with the strip before it, as the pool leaves it out.
        bottom = height if top + rows >= height - 1 else top + rows
        above, below = min(top, halo), min(height - bottom, halo)
        strips = []
        for side, kept in zip((a, b), pooled, strict=True):
            strip = stage.body(side[:, :, top - above : bottom + below])
            strips.append(strip[:, :, above : strip.shape[2] - below])
            kept.append(stage.pool(strips[-1]))
        total += _summed_in_bands(strips[0], strips[1], head)
        n_pixels += strips[0].shape[2] * strips[0].shape[3]
    below_a, below_b = (torch.cat(kept, dim=2) if len(kept) > 1 else kept[0] for kept in pooled)
    return (total / n_pixels).float(), below_a, below_b


def _summed(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """`N` weighted squared differences of unit vectors, summed over the pixels of `N,C,H,W`."""
    if a.dtype.itemsize < 4:  # under autocast: the epsilon does not fit a float16
        a, b = a.float(), b.float()
    difference = unit_vectors(a) - unit_vectors(b)
    return (difference.square() * head).sum(dim=(1, 2, 3))


def _summed_in_bands(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """As `_summed`, in float64 over bands of rows, reusing memory: a third of the time."""
    rows = max(1, _BAND_VALUES // (a.shape[1] * a.shape[3]))
    total = a.new_zeros(len(a), dtype=torch.float64)
    for x, y in zip(torch.split(a, rows, dim=2), torch.split(b, rows, dim=2), strict=True):
        # Both are rounded alike before they are subtracted, so equal images are exactly 0 apart.
        difference = _unit_rows(x).sub_(_unit_rows(y)).square_()
        total += (difference @ head.flatten()).double().sum(dim=1)
    return total


def _unit_rows(features: Tensor) -> Tensor:
    """`N,H*W,C` float32: `unit_vectors` as rows, which is how channels_last lies in memory."""
    rows = features.float().movedim(1, -1).flatten(1, 2)
    squared_length = torch.linalg.vecdot(rows, rows).unsqueeze(-1)
    unit: Tensor = rows * squared_length.add_(_EPSILON).rsqrt_()
    return unit


def unit_vectors(features: Tensor) -> Tensor:
    """`N,C,H,W` with each pixel's vector of length 1; those of length 0 stay, with a finite gradient."""
    squared_length = features.square().sum(dim=1, keepdim=True)
    return features * torch.rsqrt(squared_length + _EPSILON)


def _filled(backbone: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The backbone with `features.<i>.<...>` of torchvision's file put to `slice<n>.<i>.<...>`."""
    wanted = {key: state["features." + key.split(".", 1)[1]] for key in backbone.state_dict()}
    backbone.load_state_dict(wanted, strict=True, assign=True)
    return backbone


def _official_heads(net: Net) -> tuple[list[Tensor], str]:
    """The `1,C,1,1` heads that the lpips package carries, and the SHA-256 of their file."""
    path = Path(lpips.__file__).parent / "weights" / f"v{VERSION}" / f"{net}.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the LPIPS heads cannot be loaded: {error}", where=path, next_step="install lpips again"
        ) from error
    return [state[f"lin{i}.model.1.weight"] for i in range(len(state))], sha256_of_file(path)


def _check_shapes(x: Tensor, y: Tensor) -> None:
    fits = x.ndim == y.ndim == 4 and x.shape[0] == y.shape[0] and x.shape[2:] == y.shape[2:]
    if not fits or x.shape[1] not in (1, 3) or y.shape[1] not in (1, 3):
        raise ScoreError(f"LPIPS compares N,1|3,H,W of one size, not {tuple(x.shape)} and {tuple(y.shape)}")


def _check_range(image: Tensor) -> None:
    low, high = (float(v) for v in image.detach().aminmax())
    if not (low >= -1.001 and high <= 1.001):  # also true of NaN
        raise ScoreError(
            f"LPIPS takes values in [-1,1], not {low:g} to {high:g}",
            next_step="scale stored values with pbvs.core.pixels.model_from_levels",
        )
