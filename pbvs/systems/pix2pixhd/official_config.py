"""Arguments of NVIDIA's published networks: their names and variants, and how they follow from weights.

The arguments are those of `define_G` and `define_D` (NVIDIA/pix2pixHD models/networks.py, BSD licence).
All of them follow from the names and shapes in a state dict, so any may be omitted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from pbvs.core.errors import CheckpointError, did_you_mean

GENERATOR_ARGUMENTS = (
    "netG", "input_nc", "output_nc", "ngf", "n_downsample_global", "n_blocks_global",
    "n_local_enhancers", "n_blocks_local", "norm",
)  # fmt: skip
DISCRIMINATOR_ARGUMENTS = (
    "input_nc", "ndf", "n_layers_D", "num_D", "norm", "getIntermFeat", "use_sigmoid",
)  # fmt: skip

# Other names of an argument: in the classes behind `define_G` and `define_D`, and in the options.
_ALIASES = {
    "n_downsampling": "n_downsample_global",
    "n_blocks": "n_blocks_global",
    "n_layers": "n_layers_D",
    "norm_layer": "norm",
    "no_lsgan": "use_sigmoid",
}
# Arguments that have no effect at these values; other values are refused. None: at any value.
_WITHOUT_EFFECT: dict[str, Collection[Any] | None] = {
    "gpu_ids": None,
    "padding_type": ("reflect",),
    "use_dropout": (False,),
}
_NORMS = {"BatchNorm2d": "batch", "InstanceNorm2d": "instance"}


def network_arguments(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """All arguments of the official network: those in `config`, the others from `state`.

    Raises:
        CheckpointError: an argument is unknown or not supported, or `state` is of no such network.
    """
    from_state = arguments_of(state)
    given: dict[str, Any] = {}
    for name, value in config.items():
        if name not in _WITHOUT_EFFECT:
            given[_ALIASES.get(name, name)] = value
        elif (allowed := _WITHOUT_EFFECT[name]) is not None and value not in allowed:
            only = ", ".join(map(repr, allowed))
            raise CheckpointError(f"official networks with {name} = {value!r} are not supported, only {only}")
    if "no_ganFeat_loss" in given:
        given["getIntermFeat"] = not given.pop("no_ganFeat_loss")
    if given.get("netG") == "encoder":
        raise CheckpointError("the encoder of instance features (netE) is not used here")
    known = GENERATOR_ARGUMENTS if is_generator(state) else DISCRIMINATOR_ARGUMENTS
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise CheckpointError(
            f"unknown arguments of this official network: {', '.join(unknown)}; "
            f"{did_you_mean(unknown[0], [*known])}",
            next_step="give arguments of define_G or define_D; the others follow from the weights",
        )
    for name, value in given.items():
        if name in ("input_nc", "output_nc") and (not isinstance(value, int) or value is True or value < 1):
            raise CheckpointError(f"{name} = {value!r} is not a number of bands")
    if "norm" in given:
        given["norm"] = _NORMS.get(given["norm"], given["norm"])
    return {**from_state, **given}


def is_generator(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a generator's weights, by their names."""
    return "model.1.weight" in state


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of the official network that `state` is of, from its names and shapes.

    Raises:
        CheckpointError: no pix2pixHD network has such names.
    """
    first = next((k for k in _FIRST if k in state and state[k].dim() == 4), None)
    if first is None:
        some = ", ".join(list(state)[:3]) or "none"
        raise CheckpointError(f"these are not the weights of a pix2pixHD network; their first names: {some}")
    if is_generator(state):
        return _generator_arguments(state)
    return _discriminator_arguments(state, first)


# The first convolution of a generator, and of a discriminator with features and without.
_FIRST = ("model.1.weight", "scale0_layer0.0.weight", "layer0.0.weight")


def _generator_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    local_enhancers = _enhancers(state)
    first, last = state["model.1.weight"], state[f"{last_convolution(state)}.weight"]
    convolutions = _convolutions(r"model\.(\d+)\.weight", state)
    arguments = {
        "netG": "local" if local_enhancers else "global",
        "input_nc": first.shape[1],
        "output_nc": last.shape[0],
        "ngf": first.shape[0] // 2**local_enhancers,
        "n_downsample_global": (len(convolutions) - (1 if local_enhancers else 2)) // 2,
        "n_blocks_global": len(_convolutions(r"model\.(\d+)\.conv_block\.1\.weight", state)),
        "norm": _norm(state),
    }
    if local_enhancers:
        blocks = len(_convolutions(r"model1_2\.(\d+)\.conv_block\.1\.weight", state))
        arguments |= {"n_local_enhancers": local_enhancers, "n_blocks_local": blocks}
    return arguments


def last_convolution(state: Mapping[str, Tensor]) -> str:
    """The name of a generator's last convolution, whose outputs are the image's bands."""
    local_enhancers = _enhancers(state)
    body = f"model{local_enhancers}_2" if local_enhancers else "model"
    found = _convolutions(body + r"\.(\d+)\.weight", state)
    if not found:
        raise CheckpointError(f"the weights are incomplete: nothing of {body} is there")
    return f"{body}.{found[-1]}"


def _enhancers(state: Mapping[str, Tensor]) -> int:
    return max(_convolutions(r"model(\d+)_1\.1\.weight", state), default=0)


def _discriminator_arguments(state: Mapping[str, Tensor], first: str) -> dict[str, Any]:
    features = first.startswith("scale")
    if features:
        scales = _convolutions(r"scale(\d+)_layer0\.0\.weight", state)
        layers = _convolutions(r"scale0_layer(\d+)\.0\.weight", state)
    else:
        scales = _convolutions(r"layer(\d+)\.0\.weight", state)
        layers = _convolutions(r"layer0\.(\d+)\.weight", state)
    return {
        "input_nc": state[first].shape[1],
        "ndf": state[first].shape[0],
        "n_layers_D": len(layers) - 2,
        "num_D": len(scales),
        "norm": _norm(state),
        "getIntermFeat": features,
        "use_sigmoid": False,  # it has no weights
    }


def _norm(state: Mapping[str, Tensor]) -> str:
    """Batch norm has weights, one vector each; the official instance norm has none."""
    return "batch" if any(k.endswith(".weight") and v.dim() == 1 for k, v in state.items()) else "instance"


def _convolutions(pattern: str, state: Mapping[str, Tensor]) -> list[int]:
    """The numbers that `pattern` matches in names of convolutions' weights, sorted."""
    found = ((re.fullmatch(pattern, name), tensor) for name, tensor in state.items())
    return sorted(int(match[1]) for match, tensor in found if match and tensor.dim() == 4)
