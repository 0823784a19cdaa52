"""What survives a restart; every file is written atomically.

`best.safetensors` and `last.safetensors` hold the networks' weights (`G.<name>`, `D.<name>`, and
`G_ema.<name>` where an average was kept) with the run's record; `training_state.pt` holds everything that
`STATE_PARTS` names.
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
from pbvs.training.run_record import RunRecord

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "training_state.pt"
AVERAGE = "_ema"  # suffix of a network's name: its moving average

# Everything that must survive a restart. Data order, learning rate and random numbers need no entry: they
# follow from the seed and the number of images seen.
STATE_PARTS = (
    *("images_seen", "networks", "averages", "optimizers", "scalers", "model"),
    *("best_score", "validated_at", "validations_since_best", "term_sums", "steps_in_sums", "seconds"),
    "validation_px",
)
_ADDED = {"validation_px": None}  # parts that states of 0.1.0 lack, with their values


def save_weights(path: Path, networks: Mapping[str, nn.Module], record: RunRecord) -> None:
    """Writes all networks' weights with the run's record to one safetensors file.

    Raises:
        CheckpointError: it could not be written; the file before it stays.
    """
    tensors = {
        f"{network}.{name}": tensor.detach().cpu().contiguous()
        for network, module in networks.items()
        for name, tensor in module.state_dict().items()
    }
    with _atomic(path) as tmp_path:
        save_file(tensors, tmp_path, metadata={"pbvs": record.to_json()})


def read_record(path: Path) -> RunRecord:
    """The record in a weights file, without its tensors.

    Raises:
        CheckpointError: the file is missing, corrupt, or not written by pbvs.
    """
    with _open_weights(path) as (record, _):
        return record


def load_weights(path: Path, *, unaveraged: bool = False) -> tuple[RunRecord, dict[str, dict[str, Tensor]]]:
    """The record, and the state dict of every network for inference, on the CPU.

    A network's moving average, where training kept one, stands for the network: it was validated.
    `unaveraged` loads the networks themselves.

    Raises:
        CheckpointError: the file is missing, corrupt, or not written by pbvs.
    """
    with _open_weights(path) as (record, stream):
        names = list(stream.keys())
        networks = {name.partition(".")[0].removesuffix(AVERAGE) for name in names}
        states: dict[str, dict[str, Tensor]] = {}
        for network in sorted(networks):
            prefixes = (f"{network}.",) if unaveraged else (f"{network}{AVERAGE}.", f"{network}.")
            prefix = next(p for p in prefixes if any(name.startswith(p) for name in names))
            states[network] = {
                name.removeprefix(prefix): stream.get_tensor(name)
                for name in names
                if name.startswith(prefix)
            }
    return record, states


@contextmanager
def _open_weights(path: Path) -> Iterator[tuple[RunRecord, Any]]:
    """The record, and the open safetensors file."""
    if not path.is_file():
        raise CheckpointError("there are no trained weights", where=path, next_step="train the task first")
    try:
        with safe_open(path, framework="pt") as stream:
            header = (stream.metadata() or {}).get("pbvs")
            if header is None:
                raise CheckpointError("the weights file was not written by pbvs", where=path)
            yield RunRecord.from_dict(json.loads(header), path), stream
    except SafetensorError as error:
        raise CheckpointError(
            f"the weights file is truncated, corrupt or of another kind: {error}",
            where=path,
            next_step="delete it and retrain; training resumes from its last checkpoint",
        ) from error


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes the training state, exactly the `STATE_PARTS`.

    Raises:
        CheckpointError: it could not be written; the file before it stays.
    """
    assert set(state) == set(STATE_PARTS), sorted(set(state) ^ set(STATE_PARTS))
    with _atomic(path) as tmp_path, tmp_path.open("wb") as stream:
        torch.save(dict(state), stream)


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """As `atomic_write`; a failure becomes a CheckpointError that says which file is left."""
    try:
        with atomic_write(path) as tmp_path:
            yield tmp_path
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
        CheckpointError: the file is corrupt or of another version.
    """
    next_step = "start over with --fresh; the old run is kept aside with its weights"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        message = f"the training state cannot be read: {error}"
        raise CheckpointError(message, where=path, next_step=next_step) from error
    if not isinstance(state, dict) or set(_ADDED | state) != set(STATE_PARTS):
        raise CheckpointError("the training state is of another version", where=path, next_step=next_step)
    return _ADDED | state
