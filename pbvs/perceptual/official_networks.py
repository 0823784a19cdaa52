"""The judges' networks without values: built on the meta device, so nothing is drawn or downloaded."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from lpips import pretrained_networks
from pytorch_fid import inception as fid
from torch import nn
from torchvision import models

# What each judge uses of its file; the classifiers of VGG and AlexNet are most of theirs.
_NEEDED = dict.fromkeys(("vgg16", "vgg19", "alexnet", "squeezenet1_1"), "features.")


def is_needed(name: str, tensor_name: str) -> bool:
    """Whether the judge `name` uses the tensor of this name in its file."""
    if name == "inception":
        return not tensor_name.startswith("fc.")
    return tensor_name.startswith(_NEEDED[name])


def whole_network(name: str) -> nn.Module:
    """The network that the official file `name` belongs to, on the meta device."""
    with torch.device("meta"):
        if name == "inception":
            return _fid_inception()
        return cast(nn.Module, getattr(models, name)(weights=None))


def lpips_backbone(net: str) -> nn.Module:
    """The `vgg`, `alex` or `squeeze` of the lpips package, in slices `slice1...`, on the meta device."""
    kinds = {
        "vgg": pretrained_networks.vgg16,
        "alex": pretrained_networks.alexnet,
        "squeeze": pretrained_networks.squeezenet,
    }
    with torch.device("meta"), warnings.catch_warnings():
        # lpips 0.1.4 still asks torchvision by `pretrained=`, which torchvision warns of.
        warnings.simplefilter("ignore", UserWarning)
        return cast(nn.Module, kinds[net](pretrained=False, requires_grad=False))


def _fid_inception() -> nn.Module:
    """As `fid_inception_v3` of mseitzer/pytorch-fid 0.3.0 (Apache-2.0), less its download."""
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
