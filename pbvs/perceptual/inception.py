"""Features of the FID: the four layers of pytorch-fid's InceptionV3, in one pass.

The default resizing is pytorch-fid's; torchmetrics' two serve to find out which one another scorer used
(`image/fid.py` of torchmetrics 1.9, Apache-2.0, with `antialias` off and on; off it calls
torch-fidelity's copy of TensorFlow 1's resizing).

Network, blocks, resizing and averaging as mseitzer/pytorch-fid 0.3.0 (Apache-2.0): `inception.py`
(`resize_input`, `normalize_input`) and `fid_score.py` (`get_activations`).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pbvs.core.challenge import FID_LAYERS
from pbvs.core.errors import ScoreError
from pbvs.perceptual.metric_weights import WeightsKind, load_metric_weights
from pbvs.perceptual.official_networks import whole_network
from pbvs.perceptual.precision import fastest_memory_format, full_precision

_SIDE_PX = 299
# The layers of each block, as `InceptionV3` of pytorch-fid cuts the network.
_BLOCKS = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)

ResizeRule = Literal["pytorch-fid", "torchmetrics", "torchmetrics-antialias"]
RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)


class InceptionFeatures(nn.Module):
    """The FID's feature network, frozen; `sha256` is that of its weights.

    Raises:
        WeightsError: the Inception weights of this kind are unavailable.
    """

    def __init__(self, kind: WeightsKind, device: str | torch.device = "cpu"):
        super().__init__()
        state, self.sha256 = load_metric_weights("inception", kind)
        net = whole_network("inception")
        net.fc = nn.Identity()  # the classifier is not used, and not in `state`
        net.load_state_dict(state, strict=True, assign=True)
        pools = (nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2), nn.Identity(), nn.AdaptiveAvgPool2d(1))
        self.blocks = nn.ModuleList(
            nn.Sequential(*map(net.get_submodule, names), pool)
            for names, pool in zip(_BLOCKS, pools, strict=True)
        ).to(device)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, unit: Tensor, resize: ResizeRule = "pytorch-fid") -> dict[int, Tensor]:
        """Features of each image at each layer.

        Args:
            unit: `N,1|3,H,W float32 in [0,1]`, on any device; one band is repeated to three.
            resize: the rule for resizing to 299 x 299 and scaling to the network's range.

        Returns:
            `{64: N,64, 192: N,192, 768: N,768, 2048: N,2048}`, float64, on the CPU.

        Raises:
            ScoreError: other shape, number of bands, type or range.
        """
        return self.of_resized(self.resized(unit, resize))

    @torch.inference_mode()
    def resized(self, unit: Tensor, resize: ResizeRule = "pytorch-fid") -> Tensor:
        """The network's input, `N,3,299,299` in about [-1,1]; arguments and errors as `forward`."""
        if unit.ndim != 4 or unit.shape[1] not in (1, 3) or unit.dtype != torch.float32:
            raise ScoreError(f"features need N,1|3,H,W float32, not {tuple(unit.shape)} {unit.dtype}")
        low, high = (float(v) for v in unit.aminmax())
        if not (low >= 0.0 and high <= 1.0):  # also true of NaN
            raise ScoreError(f"features need values in [0,1], not {low:g} to {high:g}")
        device = next(self.parameters()).device
        size = (_SIDE_PX, _SIDE_PX)
        with full_precision(device):
            x = unit.to(device)
            if resize == "pytorch-fid":  # bilinear without antialiasing, also when shrinking
                x = 2.0 * F.interpolate(x, size=size, mode="bilinear", align_corners=False) - 1.0
            else:
                x = 255.0 * x
                if resize == "torchmetrics-antialias":
                    x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
                else:
                    x = _resize_as_tensorflow_1(_resize_as_tensorflow_1(x, 2), 3)
                x = (x - 128.0) / 128.0
            return x.expand(-1, 3, -1, -1)

    @torch.inference_mode()
    def of_resized(self, x: Tensor) -> dict[int, Tensor]:
        """As `forward`, for the output of `resized`. Larger batches are faster, with the same values."""
        with full_precision(x.device):
            x = fastest_memory_format(x)
            features = {}
            for layer, block in zip(FID_LAYERS, self.blocks, strict=True):
                x = block(x)
                features[layer] = F.adaptive_avg_pool2d(x, 1).flatten(1).double().cpu()
        return features


def _resize_as_tensorflow_1(x: Tensor, dim: int) -> Tensor:
    """Bilinear along `dim`, with output pixel i at i * old / new, so that the first pixels coincide."""
    old = x.shape[dim]
    position = torch.arange(_SIDE_PX, device=x.device) * (old / _SIDE_PX)
    first = position.floor().long()
    weight = (position - first).to(x.dtype).view(-1, *[1] * (x.ndim - 1 - dim))
    lower, upper = x.index_select(dim, first), x.index_select(dim, (first + 1).clamp(max=old - 1))
    return lower + (upper - lower) * weight
