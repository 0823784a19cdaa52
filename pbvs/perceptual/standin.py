"""Stand-in weights: seeded values in the shapes of the official files, for machines without them.

Numbers made with them are not comparable to anything made with the official weights.

Each tensor's values depend on the recipe, the judge's name and the tensor's name alone, so a part of a
file equals that part of the whole. Convolutions and linear layers are uniform with the variance of He
et al. 2015, equation 10 (2 / fan-in), which keeps the mean square of activations from layer to layer;
batch norms are the identity (mean 0, variance 1, weight 1, bias 0) and other biases are 0.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pbvs.core.errors import WeightsError
from pbvs.core.files import atomic_write, sha256_of_file, write_json
from pbvs.perceptual.metric_weight_files import MetricWeightFile, chosen, marker_of, recipe_in_marker
from pbvs.perceptual.official_networks import is_needed, whole_network

RECIPE = "pbvs stand-in 1"
NOT_COMPARABLE = "stand-in weights: not comparable"


def standin_state(name: str, *, whole: bool = False) -> dict[str, Tensor]:
    """Stand-in tensors under the official file's names.

    Args:
        name: a judge.
        whole: also the tensors that no judge uses (the classifiers).
    """
    shapes = whole_network(name).state_dict()
    return {
        key: _values(name, key, tensor.shape, tensor.dtype)
        for key, tensor in shapes.items()
        if whole or is_needed(name, key)
    }


def standin_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 in hex of the recipe and of the names, shapes and bytes of all tensors, sorted by name."""
    digest = hashlib.sha256(RECIPE.encode())
    for key in sorted(state):
        digest.update(f"\0{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _values(name: str, key: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    if len(shape) >= 2:
        return _he_uniform(f"{RECIPE}/{name}/{key}", shape)
    if key.endswith(("running_var", "bn.weight")):
        return torch.ones(shape, dtype=dtype)
    return torch.zeros(shape, dtype=dtype)


def _he_uniform(words: str, shape: torch.Size) -> Tensor:
    """float32 uniform in +-sqrt(6 / fan-in); from raw bits, whose stream numpy keeps for good."""
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest(), "little")
    n_values = math.prod(shape)
    raw = np.random.PCG64(seed).random_raw((n_values + 1) // 2).astype("<u8", copy=False)
    bits = raw.view("<u4")[:n_values]
    bits >>= 8  # 24 bits fit a float32 without rounding
    values = bits.astype(np.float32)
    values -= np.float32(2**23 - 0.5)
    values *= np.float32(math.sqrt(6.0 / math.prod(shape[1:])) / 2**23)
    return torch.from_numpy(values.reshape(tuple(shape)))


def write_standin(
    torch_home: Path,
    names: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Writes whole stand-in files under the official names, for the reference packages to run on.

    They go to `torch_home/hub/checkpoints`, each with a marker beside it; files of the same recipe that
    are there already are kept. Use with `TORCH_HOME=torch_home`.

    Args:
        torch_home: the folder to be named by TORCH_HOME.
        names: the judges; all of them for None (1.5 GB).
        overwrite: also put them over files that are not stand-ins of this recipe.
        progress: told (files done, files in all).

    Returns:
        The files, in the order of `names`.

    Raises:
        UsageError: no judge is called so.
        WeightsError: something else lies under an official name, and `overwrite` is false.
    """
    folder = torch_home / "hub" / "checkpoints"
    files = chosen(names)
    done = [_is_there(folder / file.file_name, overwrite) for file in files]
    for index, file in enumerate(files):
        if not done[index]:
            _write_one(file, folder / file.file_name)
        if progress:
            progress(index + 1, len(files))
    return [folder / file.file_name for file in files]


def _is_there(path: Path, overwrite: bool) -> bool:
    if not path.exists():
        return False
    if recipe_in_marker(path) == RECIPE:
        return True
    if not overwrite:
        raise WeightsError(
            "a file that is not a stand-in of this version lies under the official name",
            where=path,
            next_step="choose an empty folder, or overwrite it on purpose",
        )
    return False


def _write_one(file: MetricWeightFile, path: Path) -> None:
    # The marker first: a stand-in without its marker must never lie under an official name.
    note = {"kind": "standin", "marked": NOT_COMPARABLE, "judge": file.name}
    with atomic_write(path) as beside:
        torch.save(standin_state(file.name, whole=True), beside)
        write_json(marker_of(path), {**note, "recipe": RECIPE, "sha256": sha256_of_file(beside)})
