"""Weights of the metrics: loading them, and the public interface to their files.

Official weights are used only after their SHA-256 has been checked; if they are missing, loading fails at
once and uses no network. Stand-in weights are never a silent fallback: the caller selects them.
"""

from __future__ import annotations

import pickle

import torch
from torch import Tensor

from pbvs.core.errors import WeightsError
from pbvs.perceptual.download import fetch, pack, unpack
from pbvs.perceptual.metric_weight_files import (
    METRIC_WEIGHT_FILES,
    NOT_COMPARABLE,
    FileRow,
    MetricWeightFile,
    WeightsKind,
    check,
    disclaimer,
    hub_folder,
    metric_weight_file,
    not_usable,
    status,
)
from pbvs.perceptual.official_networks import is_needed
from pbvs.perceptual.standin import standin_sha256, standin_state, write_standin

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


def load_metric_weights(name: str, kind: WeightsKind) -> tuple[dict[str, Tensor], str]:
    """The tensors that the metric network `name` uses, under the official file's names, and a SHA-256 in hex.

    For `official` the hash is the file's; for `standin` it is that of the recipe and the tensors.

    Raises:
        UsageError: unknown name.
        WeightsError: the official file is missing, truncated or wrong.
    """
    file = metric_weight_file(name)
    if kind == "standin":
        state = standin_state(name)
        return state, standin_sha256(state)
    row = status([name])[0]
    if row.state != "ok":
        raise not_usable(row)
    try:
        whole = torch.load(row.file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"the weights cannot be loaded: {error}", where=row.file) from error
    return {key: tensor for key, tensor in whole.items() if is_needed(name, key)}, file.sha256
