"""LPIPS, version 0.1: the score's perceptual term, and the same thing as a training loss.

Zhang et al. 2018, equation 1, as richzhang/PerceptualSimilarity (package lpips 0.1.4, BSD-2-Clause) has it:
features after five ReLUs, each pixel's vector scaled to length 1, squared differences weighted by the
official heads, averaged over the pixels, summed over the layers. One thing differs: the package adds its
epsilon to the length, outside the square root, whose gradient is then infinite at vectors of length 0;
here it stands inside. Values agree to 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lpips
import torch
from torch import Tensor, nn

from pbvs.errors import ScoreError, UsageError, WeightsError, nearest
from pbvs.files import sha256_of_file
from pbvs.score.networks import lpips_backbone
from pbvs.score.precision import fastest_layout
from pbvs.score.weights import WeightsKind, judge_state

Net = Literal["vgg", "alex"]
VERSION = "0.1"
JUDGE_OF_NET = {"vgg": "vgg16", "alex": "alexnet"}
# Squared lengths of feature vectors lie far above; a vector of length 0 stays 0, its gradient <= 1e5.
_EPSILON = 1e-10
# Without gradients a layer is compared in bands of rows of about this many values: they stay in the cache.
_BAND_VALUES = 1 << 19


class PerceptualDistance(nn.Module):
    """LPIPS with frozen networks; nothing of it is trained, gradients flow to the images.

    Args:
        kind: which weights the backbone gets; the heads are always the official ones.
        net: `vgg` (the score's) or `alex`.
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
        if net not in JUDGE_OF_NET:
            raise UsageError("unknown LPIPS net", where=net, next_step=nearest(net, list(JUDGE_OF_NET)))
        state, self.sha256 = judge_state(JUDGE_OF_NET[net], kind)
        backbone = _filled(lpips_backbone(net), state)
        self.slices = nn.ModuleList(getattr(backbone, f"slice{i}") for i in range(1, 6))
        heads, self.heads_sha256 = _official_heads(net)
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
        for index, part in enumerate(self.slices):
            # One slice of both at a time: the features of earlier ones are let go without gradients.
            a, b = part(a), part(b)
            total = total + _layer_distance(a, b, self.get_buffer(f"head{index}"))
        return total

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stays in evaluation mode, also as part of a model that is trained."""
        del mode
        return super().train(False)

    def _scaled(self, image: Tensor) -> Tensor:
        return fastest_layout((image - self.shift) / self.scale)  # one band becomes three by broadcasting


def _layer_distance(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """`N` weighted squared differences of unit vectors, averaged over the pixels of `N,C,H,W`."""
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _summed(a, b, head) / (a.shape[2] * a.shape[3])
    rows = max(1, _BAND_VALUES // (a.shape[1] * a.shape[3]))
    bands = zip(torch.split(a, rows, dim=2), torch.split(b, rows, dim=2), strict=True)
    total = torch.stack([_summed(x, y, head).double() for x, y in bands]).sum(dim=0)
    return (total / (a.shape[2] * a.shape[3])).float()


def _summed(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    if a.dtype.itemsize < 4:  # under autocast: the epsilon does not fit a float16
        a, b = a.float(), b.float()
    difference = unit_vectors(a) - unit_vectors(b)
    return (difference.square() * head).sum(dim=(1, 2, 3))


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
    """The five `1,C,1,1` heads that the lpips package carries, and the SHA-256 of their file."""
    path = Path(lpips.__file__).parent / "weights" / f"v{VERSION}" / f"{net}.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the LPIPS heads cannot be loaded: {error}", where=path, next_step="install lpips again"
        ) from error
    return [state[f"lin{i}.model.1.weight"] for i in range(5)], sha256_of_file(path)


def _check_shapes(x: Tensor, y: Tensor) -> None:
    fits = x.ndim == y.ndim == 4 and x.shape[0] == y.shape[0] and x.shape[2:] == y.shape[2:]
    if not fits or x.shape[1] not in (1, 3) or y.shape[1] not in (1, 3):
        raise ScoreError(f"LPIPS compares N,1|3,H,W of one size, not {tuple(x.shape)} and {tuple(y.shape)}")


def _check_range(image: Tensor) -> None:
    low, high = (float(v) for v in image.detach().aminmax())
    if not (low >= -1.001 and high <= 1.001):  # also true of NaN
        raise ScoreError(
            f"LPIPS takes values in [-1,1], not {low:g} to {high:g}",
            next_step="scale stored values with pbvs.pixels.model_from_levels",
        )
