"""What survives a restart, each file whole or not there.

`best.safetensors` and `last.safetensors` hold the networks' weights (`G.<name>`, `D.<name>`, and
`G_ema.<name>` where an average was kept) with a header that says what they belong to; `training_state.pt`
holds everything that `STATE_PARTS` names.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pbvs.core.errors import CheckpointError
from pbvs.core.files import atomic_write

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "training_state.pt"
AVERAGE = "_ema"  # behind a network's name: its moving average

# Everything that must survive a restart. The order of the data, the learning rate and what is drawn at
# random need no entry: they follow from the seed and the number of images seen.
STATE_PARTS = (
    *("images_seen", "networks", "averages", "optimizers", "scalers", "model"),
    *("best_score", "validated_at", "validations_since_best", "term_sums", "steps_in_sums", "seconds"),
)


def save_weights(path: Path, networks: Mapping[str, nn.Module], header: Mapping[str, Any]) -> None:
    """Writes all networks' weights with a JSON-like `header` to one safetensors file.

    Raises:
        CheckpointError: it could not be written; what was at `path` is still there.
    """
    tensors = {
        f"{network}.{name}": tensor.detach().cpu().contiguous()
        for network, module in networks.items()
        for name, tensor in module.state_dict().items()
    }
    with _written(path) as beside:
        save_file(tensors, beside, metadata={"pbvs": json.dumps(dict(header), sort_keys=True)})


def read_header(path: Path) -> dict[str, Any]:
    """The header of a weights file, without its tensors.

    Raises:
        CheckpointError: the file is missing, torn, or not written by pbvs.
    """
    return _read(path, prefixes=())[0]


def load_weights(
    path: Path, network: str, *, unwrap: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header, and the state dict of one network (`G` or `D`) for use, on the CPU.

    For use is its moving average, where the training kept one: that is what was validated. `unwrap` takes the
    network itself.

    Raises:
        CheckpointError: the file is missing, torn, or not written by pbvs.
    """
    return _read(path, prefixes=(f"{network}.",) if unwrap else (f"{network}{AVERAGE}.", f"{network}."))


def _read(path: Path, prefixes: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of the first of `prefixes` that has any."""
    if not path.is_file():
        raise CheckpointError("there are no trained weights", where=path, next_step="train the task first")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as stream:
            header = (stream.metadata() or {}).get("pbvs")
            names = list(stream.keys())
            prefix = next((p for p in prefixes if any(name.startswith(p) for name in names)), None)
            if prefix is not None:
                wanted = [name for name in names if name.startswith(prefix)]
                tensors = {name.removeprefix(prefix): stream.get_tensor(name) for name in wanted}
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
    """Writes the training state; exactly `STATE_PARTS` must be given.

    Raises:
        CheckpointError: it could not be written; what was at `path` is still there.
    """
    assert set(state) == set(STATE_PARTS), sorted(set(state) ^ set(STATE_PARTS))
    with _written(path) as beside, beside.open("wb") as stream:
        torch.save(dict(state), stream)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """As `atomic_write`; what fails says so and what is left."""
    try:
        with atomic_write(path) as beside:
            yield beside
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kept = "the one before it is still there" if path.is_file() else "there is none before it"
        raise CheckpointError(
            f"the checkpoint could not be written: {reason}; {kept}",
            where=path,
            next_step="make room on the disk; the same command goes on from the last checkpoint",
        ) from error


def load_state(path: Path) -> dict[str, Any]:
    """Reads the training state.

    Raises:
        CheckpointError: the file is torn or of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(
            f"the training state cannot be read: {error}",
            where=path,
            next_step="start over with --fresh; the old run is kept aside with its weights",
        ) from error
    if not isinstance(state, dict) or set(state) != set(STATE_PARTS):
        raise CheckpointError(
            "the training state is of another version",
            where=path,
            next_step="start over with --fresh; the old run is kept aside with its weights",
        )
    return state
