"""Stand-in weights: seeded values in the shapes of the official files, for machines without those.

Results computed with them are not comparable to results of the official weights.

Each tensor's values depend only on the recipe, the file's name and the tensor's name, so a part of a
file equals that part of the whole. Convolutions and linear layers are uniform with the variance of He
et al. 2015, equation 10 (2 / fan-in), which keeps the mean square of activations from layer to layer;
batch norms are the identity (mean 0, variance 1, weight 1, bias 0) and other biases are 0.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pbvs.core.errors import WeightsError
from pbvs.core.files import atomic_write, sha256_of_file, write_json
from pbvs.core.types import Progress
from pbvs.perceptual.metric_weight_files import NOT_COMPARABLE, chosen, marker_of, recipe_in_marker
from pbvs.perceptual.official_networks import is_needed, whole_network

RECIPE = "pbvs stand-in 1"


def standin_state(name: str, *, whole: bool = False) -> dict[str, Tensor]:
    """Stand-in tensors under the official file's names.

    Args:
        name: a name in `METRIC_WEIGHT_FILES`.
        whole: also the tensors that no metric uses (the classifiers).
    """
    state = {}
    for key, tensor in whole_network(name).state_dict().items():
        if not (whole or is_needed(name, key)):
            continue
        if tensor.ndim >= 2:
            state[key] = _he_uniform(f"{RECIPE}/{name}/{key}", tensor.shape)
        elif key.endswith(("running_var", "bn.weight")):
            state[key] = torch.ones(tensor.shape, dtype=tensor.dtype)
        else:
            state[key] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    return state


def standin_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 in hex of the recipe and of the names, shapes and bytes of all tensors, sorted by name."""
    digest = hashlib.sha256(RECIPE.encode())
    for key in sorted(state):
        digest.update(f"\0{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _he_uniform(seed_text: str, shape: torch.Size) -> Tensor:
    """float32 uniform in +-sqrt(6 / fan-in), from the raw bits of PCG64, a stream that numpy keeps stable."""
    seed = int.from_bytes(hashlib.sha256(seed_text.encode()).digest(), "little")
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
    progress: Progress | None = None,
) -> list[Path]:
    """Writes whole stand-in files under the official names, as input for the reference packages.

    They are written to `torch_home/hub/checkpoints`, each with a marker file next to it; existing files of
    the same recipe are kept. Use with `TORCH_HOME=torch_home`.

    Args:
        torch_home: the value for TORCH_HOME.
        names: the weight files; all for None (1.5 GB).
        overwrite: also replace files that are not stand-ins of this recipe.
        progress: called with (files done, total).

    Returns:
        The files, in the order of `names`.

    Raises:
        UsageError: unknown name.
        WeightsError: another file has an official name, and `overwrite` is false.
    """
    files = chosen(names)
    paths = [torch_home / "hub" / "checkpoints" / file.file_name for file in files]
    exists = [path.exists() and recipe_in_marker(path) == RECIPE for path in paths]
    for path, is_standin in zip(paths, exists, strict=True):
        if path.exists() and not is_standin and not overwrite:
            raise WeightsError(
                "a file that is not a stand-in of this version has the official name",
                where=path,
                next_step="choose an empty folder, or use --overwrite",
            )
    for index, (file, path) in enumerate(zip(files, paths, strict=True)):
        if not exists[index]:
            # The marker first: a stand-in without its marker must never have an official name.
            note = {"kind": "standin", "marked": NOT_COMPARABLE, "judge": file.name, "recipe": RECIPE}
            with atomic_write(path) as tmp_path:
                torch.save(standin_state(file.name, whole=True), tmp_path)
                write_json(marker_of(path), {**note, "sha256": sha256_of_file(tmp_path)})
        if progress:
            progress(index + 1, len(files))
    return paths
