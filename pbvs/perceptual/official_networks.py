"""The metric networks without values: built on the meta device, so nothing is initialized or downloaded.

lpips, pytorch_fid and torchvision.models are imported on first use: their import takes seconds.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import nn

# The prefix of the tensors that a metric uses; the unused classifiers of VGG and AlexNet are the larger part.
_NEEDED = dict.fromkeys(("vgg16", "vgg19", "alexnet", "squeezenet1_1"), "features.")


def is_needed(name: str, tensor_name: str) -> bool:
    """Whether the metric network `name` uses this tensor of its file."""
    if name == "inception":
        return not tensor_name.startswith("fc.")
    return tensor_name.startswith(_NEEDED[name])


def whole_network(name: str) -> nn.Module:
    """The network of the official file `name`, on the meta device."""
    from torchvision import models

    with torch.device("meta"):
        if name != "inception":
            return cast(nn.Module, getattr(models, name)(weights=None))
        from pytorch_fid import inception as fid

        # As `fid_inception_v3` of mseitzer/pytorch-fid 0.3.0 (Apache-2.0), without its download.
        net = models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
        net.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
        net.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
        net.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
        net.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
        net.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
        net.Mixed_7b = fid.FIDInceptionE_1(1280)
        net.Mixed_7c = fid.FIDInceptionE_2(2048)
    return cast(nn.Module, net)


def lpips_backbone(net: str) -> nn.Module:
    """The `vgg`, `alex` or `squeeze` of the lpips package, in slices `slice1...`, on the meta device."""
    from lpips import pretrained_networks

    classes = {
        "vgg": pretrained_networks.vgg16,
        "alex": pretrained_networks.alexnet,
        "squeeze": pretrained_networks.squeezenet,
    }
    with torch.device("meta"), warnings.catch_warnings():
        # lpips 0.1.4 passes the deprecated `pretrained=`, for which torchvision warns.
        warnings.simplefilter("ignore", UserWarning)
        return cast(nn.Module, classes[net](pretrained=False, requires_grad=False))
