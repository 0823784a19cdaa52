"""What survives a restart, each file whole or not there.

`best.safetensors` and `last.safetensors` hold the networks' weights (`G.<name>`, `D.<name>`) with a header
that says what they belong to; `training_state.pt` holds everything that `STATE_PARTS` names.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pbvs.errors import CheckpointError
from pbvs.files import written_whole

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "training_state.pt"

# Everything that must survive a restart. The data order needs no entry of its own: it follows from the
# number of images seen. The networks use no random numbers after their first weights.
STATE_PARTS = ("images_seen", "networks", "optimizers", "best_score", "term_sums", "steps_in_sums", "seconds")


def save_weights(path: Path, networks: Mapping[str, nn.Module], header: Mapping[str, Any]) -> None:
    """Writes all networks' weights with a JSON-like `header` to one safetensors file."""
    tensors = {
        f"{network}.{name}": tensor.detach().cpu().contiguous()
        for network, module in networks.items()
        for name, tensor in module.state_dict().items()
    }
    with written_whole(path) as beside:
        save_file(tensors, beside, metadata={"pbvs": json.dumps(dict(header), sort_keys=True)})


def read_header(path: Path) -> dict[str, Any]:
    """The header of a weights file, without its tensors.

    Raises:
        CheckpointError: the file is missing, torn, or not written by pbvs.
    """
    return _read(path, prefix=None)[0]


def load_weights(path: Path, network: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header, and the state dict of one network (`G` or `D`), on the CPU.

    Raises:
        CheckpointError: the file is missing, torn, or not written by pbvs.
    """
    return _read(path, prefix=f"{network}.")


def _read(path: Path, prefix: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError("there are no trained weights", where=path, next_step="train the task first")
    try:
        with safe_open(path, framework="pt") as stream:
            header = (stream.metadata() or {}).get("pbvs")
            names = [k for k in stream.keys() if prefix and k.startswith(prefix)]  # noqa: SIM118
            tensors = {name.removeprefix(prefix or ""): stream.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise CheckpointError(
            f"the weights file is torn or of another kind: {error}",
            where=path,
            next_step="take it away and train again; training goes on from its last checkpoint",
        ) from error
    if header is None:
        raise CheckpointError("the weights file was not written by pbvs", where=path)
    return json.loads(header), tensors


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes the training state; exactly `STATE_PARTS` must be given."""
    assert set(state) == set(STATE_PARTS), sorted(set(state) ^ set(STATE_PARTS))
    with written_whole(path) as beside:
        torch.save(dict(state), beside)


def load_state(path: Path) -> dict[str, Any]:
    """Reads the training state.

    Raises:
        CheckpointError: the file is torn or of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(
            f"the training state cannot be read: {error}", where=path, next_step="start over with --fresh"
        ) from error
    if not isinstance(state, dict) or set(state) != set(STATE_PARTS):
        raise CheckpointError(
            "the training state is of another version", where=path, next_step="start over with --fresh"
        )
    return state
