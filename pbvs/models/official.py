"""NVIDIA's published pix2pixHD networks as modules of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pbvs.errors import CheckpointError
from pbvs.models.pix2pixhd import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig


def from_official(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Rebuilds an official generator (`netG` in `config`) or multi-scale discriminator.

    Args:
        config: arguments of the official `define_G` or `define_D`: `netG`, `input_nc`, `output_nc`,
            `ngf`, `n_downsample_global`, `n_blocks_global`, `n_local_enhancers`, `n_blocks_local`; or
            `input_nc`, `ndf`, `n_layers_D`, `num_D`; `norm` in both. What is left out has NVIDIA's default.
        state: the official state dict; names and shapes must match exactly.

    Raises:
        CheckpointError: an argument is unknown, or a name or shape does not match.
    """
    network = _generator(dict(config)) if "netG" in config else _discriminator(dict(config))
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"the official weights do not fit the network: {error}",
            next_step="give the arguments that the network was built with (opt.txt of its training)",
        ) from error
    return network


def _generator(config: dict[str, Any]) -> Generator:
    shape = GeneratorConfig(
        kind=config.pop("netG"),
        channels=config.pop("ngf", 64),
        downsamplings=config.pop("n_downsample_global", 4),
        blocks=config.pop("n_blocks_global", 9),
        enhancers=config.pop("n_local_enhancers", 1),
        enhancer_blocks=config.pop("n_blocks_local", 3),
        norm=config.pop("norm", "instance"),
    )
    network = Generator(shape, config.pop("input_nc"), config.pop("output_nc"))
    _refuse_unknown(config)
    return network


def _discriminator(config: dict[str, Any]) -> Discriminator:
    shape = DiscriminatorConfig(
        channels=config.pop("ndf", 64),
        layers=config.pop("n_layers_D", 3),
        scales=config.pop("num_D", 2),
        norm=config.pop("norm", "instance"),
    )
    network = Discriminator(shape, config.pop("input_nc"))
    _refuse_unknown(config)
    return network


def _refuse_unknown(rest: dict[str, Any]) -> None:
    if rest:
        raise CheckpointError(f"unknown arguments of an official network: {', '.join(sorted(rest))}")
