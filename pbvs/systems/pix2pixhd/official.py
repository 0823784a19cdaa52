"""NVIDIA's published pix2pixHD networks as modules of ours, and ours as its files."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from pbvs.core.errors import CheckpointError
from pbvs.core.files import atomic_write
from pbvs.networks.state_dicts import load_strictly, without_stale
from pbvs.systems.pix2pixhd.config import DiscriminatorConfig, GeneratorConfig
from pbvs.systems.pix2pixhd.network import Discriminator, Generator
from pbvs.systems.pix2pixhd.official_config import is_generator, network_arguments

_DATA_PARALLEL = "module."


def from_official(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Generator | Discriminator:
    """Rebuilds an official generator or multi-scale discriminator, which one `state` tells.

    Args:
        config: arguments of the official `define_G` or `define_D`: `netG`, `input_nc`, `output_nc`,
            `ngf`, `n_downsample_global`, `n_blocks_global`, `n_local_enhancers`, `n_blocks_local`; or
            `input_nc`, `ndf`, `n_layers_D`, `num_D`, `getIntermFeat`, `use_sigmoid`; `norm` in both. What
            is left out follows from the names and shapes in `state`.
        state: the official state dict, also as `DataParallel` leaves it (all names begin with
            `module.`); names and shapes must match exactly.

    Returns:
        The network in float32 on the CPU, in training mode as the published code leaves it.

    Raises:
        CheckpointError: an argument is unknown, or a name or shape does not match (lists every one).
    """
    state = _plain_names(state)
    arguments = network_arguments(config, state)
    try:
        network = _generator(arguments) if is_generator(state) else _discriminator(arguments)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CheckpointError(f"no official network has these arguments: {wrong}") from error
    load_strictly(
        network,
        without_stale(network, state),
        next_step="give the arguments that the network was built with (opt.txt of its training), or none: "
        "they follow from the weights",
    )
    return network


def to_official(network: Generator | Discriminator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of the official network equal to ours, and its state dict on the CPU."""
    config = _generator_config(network) if isinstance(network, Generator) else _discriminator_config(network)
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    return config, state


def load_official(path: Path, config: Mapping[str, Any] | None = None) -> Generator | Discriminator:
    """The network of a published `*_net_G.pth` or `*_net_D.pth`; `config` as for `from_official`.

    Raises:
        CheckpointError: as `read_official` and `from_official`, naming the file.
    """
    state = read_official(path)
    try:
        return from_official(config or {}, state)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=path, next_step=error.next_step) from error


def write_official(
    folder: Path, networks: Mapping[str, Generator | Discriminator], epoch: str = "latest"
) -> list[Path]:
    """Writes `<epoch>_net_<name>.pth` for each network (`G`, `D`), as the published code saves them.

    Each is a plain state dict, whole or not there; the same weights give the same bytes.

    Returns:
        The files, in the order of `networks`.
    """
    paths: list[Path] = []
    for name, network in networks.items():
        path = official_path(folder, name, epoch)
        with atomic_write(path) as beside, beside.open("wb") as stream:
            # Given a stream, torch puts no file name into the archive.
            torch.save(to_official(network)[1], stream)
        paths.append(path)
    return paths


def official_path(folder: Path, name: str, epoch: str = "latest") -> Path:
    """Where the published code saves the network `G` or `D`."""
    return folder / f"{epoch}_net_{name}.pth"


def read_official(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.pth` file, on the CPU, read without running anything in it.

    Raises:
        CheckpointError: the file is missing, torn, or holds something else than tensors by name.
    """
    if not path.is_file():
        raise CheckpointError("there is no such weights file", where=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not _is_state(state):
        raise CheckpointError(
            f"the file holds {_kind(state)}, not a network's state dict",
            where=path,
            next_step="give the *_net_G.pth or *_net_D.pth that pix2pixHD saved",
        )
    return _plain_names(state)


# What torch's readers raise on bytes that are no archive, or an archive cut short.
_UNREADABLE = (
    OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError,
    TypeError, AssertionError, struct.error,
)  # fmt: skip


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    with path.open("rb") as stream:
        start = stream.read(64).lstrip()
    if start.startswith(b"<"):
        what = "the file is a web page, not weights: the download went to a page about them"
    elif start.startswith(b"version https://git-lfs"):
        what = "the file is only a pointer of Git LFS, not the weights themselves"
    elif "Unsupported global" in str(error) or "Unsupported class" in str(error):
        what = "the file holds program objects besides tensors, which are not run (weights_only)"
    else:
        what = f"the weights file is torn or of another kind ({type(error).__name__})"
    return CheckpointError(what, where=path, next_step="fetch the file again, and compare its size or hash")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _kind(value: Any) -> str:
    """What a file holds, for people."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(repr(k) for k in list(value)[:5]) or 'nothing in it'}"
    return f"a {type(value).__name__}"


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that `DataParallel` puts before every one."""
    wrapped = bool(state) and all(name.startswith(_DATA_PARALLEL) for name in state)
    return {name.removeprefix(_DATA_PARALLEL) if wrapped else name: v for name, v in state.items()}


def _generator(arguments: Mapping[str, Any]) -> Generator:
    shape = GeneratorConfig(
        kind=arguments["netG"],
        channels=arguments["ngf"],
        n_downsample=arguments["n_downsample_global"],
        blocks=arguments["n_blocks_global"],
        local_enhancers=arguments.get("n_local_enhancers", 1),
        enhancer_blocks=arguments.get("n_blocks_local", 3),
        norm=arguments["norm"],
    )
    return Generator(shape, arguments["input_nc"], arguments["output_nc"])


def _generator_config(network: Generator) -> dict[str, Any]:
    shape = network.config
    return {
        "netG": shape.kind,
        "input_nc": network.bands_in,
        "output_nc": network.bands_out,
        "ngf": shape.channels,
        "n_downsample_global": shape.n_downsample,
        "n_blocks_global": shape.blocks,
        "n_local_enhancers": shape.local_enhancers,
        "n_blocks_local": shape.enhancer_blocks,
        "norm": shape.norm,
    }


def _discriminator(arguments: Mapping[str, Any]) -> Discriminator:
    shape = DiscriminatorConfig(
        channels=arguments["ndf"],
        layers=arguments["n_layers_D"],
        scales=arguments["num_D"],
        norm=arguments["norm"],
    )
    only_verdicts = not arguments["getIntermFeat"]
    sigmoid = only_verdicts and bool(arguments["use_sigmoid"])
    return Discriminator(shape, arguments["input_nc"], only_verdicts=only_verdicts, sigmoid=sigmoid)


def _discriminator_config(network: Discriminator) -> dict[str, Any]:
    shape = network.config
    return {
        "input_nc": network.bands_in,
        "ndf": shape.channels,
        "n_layers_D": shape.layers,
        "num_D": shape.scales,
        "norm": shape.norm,
        "use_sigmoid": network.sigmoid,
        "getIntermFeat": not network.only_verdicts,
    }
