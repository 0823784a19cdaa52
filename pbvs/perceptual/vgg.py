"""The perceptual loss of pix2pixHD: features of VGG-19.

Formula of NVIDIA/pix2pixHD `models/networks.py` (VGGLoss, BSD licence): mean absolute difference after
relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, weighted 1/32, 1/16, 1/8, 1/4 and 1, on images in [-1,1]
as they are (the published code does not normalize to ImageNet).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pbvs.perceptual.metric_weights import WeightsKind, load_metric_weights
from pbvs.perceptual.precision import fastest_memory_format

# Indices into torchvision's vgg19().features of the layers named above.
_RELUS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}


class VggDistance(nn.Module):
    """Distance of two `N,1|3,H,W` images in [-1,1] by VGG-19 features; one band is repeated to three.

    Raises:
        WeightsError: the VGG-19 weights of this kind are unavailable.
    """

    def __init__(self, kind: WeightsKind):
        super().__init__()
        from torchvision.models import vgg19  # takes seconds

        state, self.sha256 = load_metric_weights("vgg19", kind)
        features = vgg19(weights=None).features[: max(_RELUS) + 1]
        wanted = features.state_dict().keys()
        features.load_state_dict({k: state[f"features.{k}"] for k in wanted}, strict=True)
        # In-place ReLUs would overwrite the features that the loss has just read.
        self.features = nn.Sequential(*(nn.ReLU() if isinstance(m, nn.ReLU) else m for m in features))
        self.requires_grad_(False).eval()

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The weighted distance, a scalar; gradients flow to `fake` only."""
        a, b = (fastest_memory_format(image.expand(-1, 3, -1, -1)) for image in (fake, real.detach()))
        total = fake.new_zeros(())
        for index, layer in enumerate(self.features):
            a, b = layer(a), layer(b)
            if index in _RELUS:
                total = total + _RELUS[index] * F.l1_loss(a, b)
        return total
