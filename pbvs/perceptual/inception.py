"""Features of the FID: the four layers of pytorch-fid's InceptionV3, in one pass.

pytorch-fid's own rule brings images to the network's size; torchmetrics' two are there to find out which one
somebody else used (`image/fid.py` of torchmetrics 1.9, Apache-2.0, with `antialias` off and on; off it calls
torch-fidelity's copy of TensorFlow 1's resizing).

Network, blocks, resizing and averaging as mseitzer/pytorch-fid 0.3.0 (Apache-2.0): `inception.py`
(`resize_input`, `normalize_input`) and `fid_score.py` (`get_activations`).
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pbvs.core.challenge import FID_LAYERS
from pbvs.core.errors import ScoreError
from pbvs.perceptual.metric_weights import WeightsKind, load_metric_weights
from pbvs.perceptual.official_networks import whole_network
from pbvs.perceptual.precision import fastest_layout, full_precision

_SIDE_PX = 299

ResizeRule = Literal["pytorch-fid", "torchmetrics", "torchmetrics-antialias"]
RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)


class InceptionFeatures(nn.Module):
    """The FID's feature network, frozen; `sha256` is that of its weights.

    Raises:
        WeightsError: the Inception weights of this kind are not to be had.
    """

    def __init__(self, kind: WeightsKind, device: str | torch.device = "cpu"):
        super().__init__()
        state, self.sha256 = load_metric_weights("inception", kind)
        self.blocks = _blocks(state).to(device)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, unit: Tensor, resize: ResizeRule = "pytorch-fid") -> dict[int, Tensor]:
        """Features of each image at each layer.

        Args:
            unit: `N,1|3,H,W float32 in [0,1]`, on any device; one band is repeated to three.
            resize: how images come to 299 x 299 and to the network's range.

        Returns:
            `{64: N,64, 192: N,192, 768: N,768, 2048: N,2048}`, float64, on the CPU.

        Raises:
            ScoreError: other shape, number of bands, type or range.
        """
        return self.of_resized(self.resized(unit, resize))

    @torch.inference_mode()
    def resized(self, unit: Tensor, resize: ResizeRule = "pytorch-fid") -> Tensor:
        """What the network itself is given, `N,3,299,299`; arguments and errors as `forward`."""
        _check(unit)
        device = next(self.parameters()).device
        with full_precision(device):
            return _resized(unit.to(device), resize).expand(-1, 3, -1, -1)

    @torch.inference_mode()
    def of_resized(self, x: Tensor) -> dict[int, Tensor]:
        """As `forward`, of what `resized` gave. Several images at once are faster; values are the same."""
        with full_precision(x.device):
            x = fastest_layout(x)
            features = {}
            for layer, block in zip(FID_LAYERS, self.blocks, strict=True):
                x = block(x)
                features[layer] = F.adaptive_avg_pool2d(x, 1).flatten(1).double().cpu()
        return features


def _resized(unit: Tensor, rule: ResizeRule) -> Tensor:
    """`N,C,H,W` in [0,1] to `N,C,299,299` in about [-1,1]."""
    size = (_SIDE_PX, _SIDE_PX)
    if rule == "pytorch-fid":  # bilinear without antialiasing, also when shrinking
        return 2.0 * F.interpolate(unit, size=size, mode="bilinear", align_corners=False) - 1.0
    levels = 255.0 * unit
    if rule == "torchmetrics-antialias":
        x = F.interpolate(levels, size=size, mode="bilinear", align_corners=False, antialias=True)
    else:
        x = _resized_as_tensorflow_1(_resized_as_tensorflow_1(levels, 2), 3)
    return (x - 128.0) / 128.0


def _resized_as_tensorflow_1(x: Tensor, dim: int) -> Tensor:
    """Bilinear along `dim`, where pixel i lies at i * old / new, so that the first pixels coincide."""
    old = x.shape[dim]
    at = torch.arange(_SIDE_PX, device=x.device) * (old / _SIDE_PX)
    first = at.floor().long()
    weight = (at - first).to(x.dtype).view(-1, *[1] * (x.ndim - 1 - dim))
    lower, upper = x.index_select(dim, first), x.index_select(dim, (first + 1).clamp(max=old - 1))
    return lower + (upper - lower) * weight


def _check(unit: Tensor) -> None:
    if unit.ndim != 4 or unit.shape[1] not in (1, 3) or unit.dtype != torch.float32:
        raise ScoreError(f"features are taken of N,1|3,H,W float32, not of {tuple(unit.shape)} {unit.dtype}")
    low, high = (float(v) for v in unit.aminmax())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        raise ScoreError(f"features are taken of values in [0,1], not of {low:g} to {high:g}")


def _blocks(state: dict[str, Tensor]) -> nn.ModuleList:
    """The network cut behind the four layers, as `InceptionV3` of pytorch-fid cuts it."""
    net = whole_network("inception")
    net.fc = nn.Identity()  # the classifier is not used, and not in `state`
    net.load_state_dict(state, strict=True, assign=True)

    def part(*names: str) -> list[nn.Module]:
        return [cast(nn.Module, getattr(net, name)) for name in names]

    mixed_5_6 = [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")]
    return nn.ModuleList(
        [
            nn.Sequential(*part("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"), nn.MaxPool2d(3, 2)),
            nn.Sequential(*part("Conv2d_3b_1x1", "Conv2d_4a_3x3"), nn.MaxPool2d(3, 2)),
            nn.Sequential(*part(*mixed_5_6)),
            nn.Sequential(*part("Mixed_7a", "Mixed_7b", "Mixed_7c"), nn.AdaptiveAvgPool2d(1)),
        ]
    )
