"""The judges' weights: the one place where they are loaded, and the face of all that handles their files.

Official weights are used only after their SHA-256 has been checked; where they are missing, loading fails
at once and touches no network. There is no silent substitute: stand-in weights are asked for by name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pbvs.core.errors import WeightsError
from pbvs.perceptual.download import fetch, pack, unpack
from pbvs.perceptual.metric_weight_files import (
    METRIC_WEIGHT_FILES,
    FileRow,
    MetricWeightFile,
    check,
    hub_folder,
    metric_weight_file,
    not_usable,
    status,
)
from pbvs.perceptual.official_networks import is_needed
from pbvs.perceptual.standin import NOT_COMPARABLE, standin_sha256, standin_state, write_standin

__all__ = [
    "METRIC_WEIGHT_FILES",
    "NOT_COMPARABLE",
    "FileRow",
    "MetricWeightFile",
    "WeightsKind",
    "check",
    "disclaimer",
    "fetch",
    "hub_folder",
    "load_metric_weights",
    "metric_weight_file",
    "pack",
    "status",
    "unpack",
    "write_standin",
]

WeightsKind = Literal["official", "standin"]


def disclaimer(kind: WeightsKind) -> str | None:
    """The words that everything made with weights of this kind must carry; None for official ones."""
    return NOT_COMPARABLE if kind == "standin" else None


def load_metric_weights(name: str, kind: WeightsKind) -> tuple[dict[str, Tensor], str]:
    """The tensors that the judge `name` uses, under the official file's names, and a SHA-256 in hex.

    For `official` the hash is the file's; for `standin` it is that of the recipe and the tensors.

    Raises:
        UsageError: no judge is called so.
        WeightsError: the official file is missing, torn or wrong.
    """
    file = metric_weight_file(name)
    if kind == "standin":
        state = standin_state(name)
        return state, standin_sha256(state)
    row = status([name])[0]
    if row.state != "ok":
        raise not_usable(row)
    whole = _load(row.file)
    return {key: tensor for key, tensor in whole.items() if is_needed(name, key)}, file.sha256


def _load(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"the weights cannot be loaded: {error}", where=path) from error
    return dict(loaded)
