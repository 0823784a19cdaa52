"""Numbers taken from the published networks: the files of `PBVS_GOLDEN` when set, else our copies."""

import json
import os
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(os.environ.get("PBVS_GOLDEN") or Path(__file__).parents[1] / "golden" / "pix2pixhd")


class GoldenFile:
    """One file: its config, and its arrays as tensors."""

    def __init__(self, path):
        self.path = path
        with np.load(path) as arrays:
            self.config = json.loads(str(arrays["config"]))
            self.arrays = {k: torch.from_numpy(arrays[k]) for k in arrays.files if k != "config"}

    def below(self, prefix):
        """The arrays whose names begin so, without that."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


def golden_paths(kind):
    """Files that hold `steps`, a `generator` or a `discriminator`, by their keys; sorted."""
    return [path for path in sorted(FOLDER.glob("*.npz")) if _kind(path) == kind]


def _kind(path):
    with np.load(path) as arrays:
        names = set(arrays.files)
    if any(name.startswith("before/") for name in names):
        return "steps"
    if not any(name.startswith("state/") for name in names):
        raise ValueError(f"{path} holds neither a network nor steps")
    return "generator" if "output/y" in names else "discriminator"
