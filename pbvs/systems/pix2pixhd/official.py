"""NVIDIA's published pix2pixHD networks as our modules, and our networks as its files."""

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
# Official arguments, and the fields of our configs that they set.
_GENERATOR = {
    "ngf": "channels",
    "n_downsample_global": "n_downsample",
    "n_blocks_global": "blocks",
    "n_local_enhancers": "local_enhancers",
    "n_blocks_local": "enhancer_blocks",
    "norm": "norm",
}
_DISCRIMINATOR = {"ndf": "channels", "n_layers_D": "layers", "num_D": "scales", "norm": "norm"}


def from_official(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Generator | Discriminator:
    """Rebuilds the official generator or multi-scale discriminator that `state` is of.

    Args:
        config: arguments of the official `define_G` or `define_D`: `netG`, `input_nc`, `output_nc`,
            `ngf`, `n_downsample_global`, `n_blocks_global`, `n_local_enhancers`, `n_blocks_local`; or
            `input_nc`, `ndf`, `n_layers_D`, `num_D`, `getIntermFeat`, `use_sigmoid`; `norm` in both. The
            others follow from the names and shapes in `state`.
        state: the official state dict, also of a `DataParallel` (all names begin with `module.`); names and
            shapes must match exactly.

    Returns:
        The network in float32 on the CPU, in training mode as in the published code.

    Raises:
        CheckpointError: an argument is unknown, or a name or shape does not match (lists every one).
    """
    state = _plain_names(state)
    arguments = network_arguments(config, state)
    names = _GENERATOR if is_generator(state) else _DISCRIMINATOR
    fields = {field: arguments[name] for name, field in names.items() if name in arguments}
    network: Generator | Discriminator
    try:
        if is_generator(state):
            shape = GeneratorConfig(kind=arguments["netG"], **fields)
            network = Generator(shape, arguments["input_nc"], arguments["output_nc"])
        else:
            network = Discriminator(
                DiscriminatorConfig(**fields),
                arguments["input_nc"],
                return_features=bool(arguments["getIntermFeat"]),
                # It has no effect together with features.
                sigmoid=not arguments["getIntermFeat"] and bool(arguments["use_sigmoid"]),
            )
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
    config: dict[str, Any] = {"input_nc": network.bands_in}
    if isinstance(network, Generator):
        config = {"netG": network.config.kind, **config, "output_nc": network.bands_out}
        config |= {name: getattr(network.config, field) for name, field in _GENERATOR.items()}
    else:
        config |= {name: getattr(network.config, field) for name, field in _DISCRIMINATOR.items()}
        config |= {"use_sigmoid": network.sigmoid, "getIntermFeat": network.return_features}
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

    Each is a plain state dict, written atomically; equal weights give equal bytes.

    Returns:
        The files, in the order of `networks`.
    """
    paths: list[Path] = []
    for name, network in networks.items():
        path = official_path(folder, name, epoch)
        with atomic_write(path) as tmp_path, tmp_path.open("wb") as stream:
            # To a stream, torch writes no file name into the archive.
            torch.save(to_official(network)[1], stream)
        paths.append(path)
    return paths


def official_path(folder: Path, name: str, epoch: str = "latest") -> Path:
    """The file to which the published code saves the network `G` or `D`."""
    return folder / f"{epoch}_net_{name}.pth"


def read_official(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.pth` file, on the CPU, read without running code in it.

    Raises:
        CheckpointError: the file is missing, truncated or corrupt, or holds no tensors by name.
    """
    if not path.is_file():
        raise CheckpointError("there is no such weights file", where=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if isinstance(state, dict):
        if state and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            return _plain_names(state)
        content = f"a dict with {', '.join(repr(k) for k in list(state)[:5]) or 'nothing in it'}"
    else:
        content = f"a {type(state).__name__}"
    raise CheckpointError(
        f"the file holds {content}, not a network's state dict",
        where=path,
        next_step="give the *_net_G.pth or *_net_D.pth that pix2pixHD saved",
    )


# The errors of torch's readers for bytes that are no archive, or a truncated one.
_UNREADABLE = (
    OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError,
    TypeError, AssertionError, struct.error,
)  # fmt: skip


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    with path.open("rb") as stream:
        start = stream.read(64).lstrip()
    if start.startswith(b"<"):
        what = "the file is a web page, not weights: the download link led to a page about them"
    elif start.startswith(b"version https://git-lfs"):
        what = "the file is only a pointer of Git LFS, not the weights themselves"
    elif "Unsupported global" in str(error) or "Unsupported class" in str(error):
        what = "the file holds program objects besides tensors, which are not run (weights_only)"
    else:
        what = f"the weights file is truncated, corrupt or of another kind ({type(error).__name__})"
    return CheckpointError(what, where=path, next_step="fetch the file again, and compare its size or hash")


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the prefix that `DataParallel` adds to every name."""
    wrapped = bool(state) and all(name.startswith(_DATA_PARALLEL) for name in state)
    return {name.removeprefix(_DATA_PARALLEL) if wrapped else name: v for name, v in state.items()}
