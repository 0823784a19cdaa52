"""Caches of a scorer: features of images and distances of pairs, by the contents of the images.

A cached value equals the computed one bit for bit: everything it depends on is in its key.
"""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pbvs.core.errors import PbvsError
from pbvs.core.files import atomic_write, cache_folder
from pbvs.core.types import Image8

Rows = dict[int, NDArray[np.float32]]  # one image's features at each layer

_LOG = logging.getLogger(__name__)
_SCHEMA = 1
_HASH_BYTES = 32


class FeatureCache(Protocol):
    """Looked up before each costly computation; the key of an image is its `contents`."""

    def features(self, image: bytes) -> Rows | None:
        """The FID features of an image; None if not cached."""

    def keep_features(self, image: bytes, rows: Rows, *, is_target: bool) -> None:
        """Stores the features of an image."""

    def distance(self, pred: bytes, target: bytes) -> float | None:
        """The LPIPS of a pair; None if not cached."""

    def keep_distance(self, pred: bytes, target: bytes, distance: float) -> None:
        """Stores the LPIPS of a pair."""


class TargetFeatures:
    """Keeps the targets' features in memory: 12 kB per image.

    LPIPS's features of a target are computed each time: they would take 128 MB for 512 px.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Rows] = {}

    def features(self, image: bytes) -> Rows | None:
        """See `FeatureCache`."""
        return self._rows.get(image)

    def keep_features(self, image: bytes, rows: Rows, *, is_target: bool) -> None:
        """See `FeatureCache`."""
        if is_target:
            self._rows[image] = rows

    def distance(self, pred: bytes, target: bytes) -> float | None:
        """See `FeatureCache`."""
        return None

    def keep_distance(self, pred: bytes, target: bytes, distance: float) -> None:
        """See `FeatureCache`."""


class DiskCache:
    """Keeps all features and distances in the user's cache folder, one small file each.

    Each file starts with the SHA-256 of the bytes that follow; a corrupt or foreign file is ignored and
    rewritten. If the folder is not writable, scoring goes on after one warning.

    Args:
        identity: everything besides the images that a value depends on: weights, networks, the resizing.
        folder: None for `score` in the user's cache folder.
    """

    def __init__(self, identity: str, folder: Path | None = None) -> None:
        # Another version of torch or another device may round differently.
        self._identity = f"{_SCHEMA} {identity} {torch.__version__}"
        self._folder = cache_folder() / "score" if folder is None else folder
        self._is_writable = True

    def features(self, image: bytes) -> Rows | None:
        """See `FeatureCache`."""
        arrays = _read(self._path("features", image))
        if arrays is None:
            return None
        return {int(name.removeprefix("layer")): row for name, row in arrays.items()}

    def keep_features(self, image: bytes, rows: Rows, *, is_target: bool) -> None:
        """See `FeatureCache`."""
        self._write(self._path("features", image), {f"layer{layer}": row for layer, row in rows.items()})

    def distance(self, pred: bytes, target: bytes) -> float | None:
        """See `FeatureCache`."""
        arrays = _read(self._path("lpips", pred + target))
        return None if arrays is None else float(arrays["distance"])

    def keep_distance(self, pred: bytes, target: bytes, distance: float) -> None:
        """See `FeatureCache`."""
        self._write(self._path("lpips", pred + target), {"distance": np.array(distance, np.float64)})

    def _path(self, kind: str, key: bytes) -> Path:
        name = hashlib.sha256(f"{kind} {self._identity} ".encode() + key).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.npz"

    def _write(self, path: Path, arrays: dict[str, NDArray]) -> None:
        if not self._is_writable:
            return
        stream = io.BytesIO()
        np.savez(stream, **arrays)  # type: ignore[arg-type]
        packed = stream.getvalue()
        try:
            with atomic_write(path) as tmp_path:
                tmp_path.write_bytes(hashlib.sha256(packed).digest() + packed)
        except (PbvsError, OSError) as error:
            self._is_writable = False
            _LOG.warning("the cache is not writable, the next scoring computes everything again: %s", error)


def contents(image: Image8) -> bytes:
    """A digest of an image's shape and values."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _read(path: Path) -> dict[str, NDArray] | None:
    """The arrays of a file; None if it is missing or its hash is wrong."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None  # if the folder is at fault, `_write` warns
    digest, packed = whole[:_HASH_BYTES], whole[_HASH_BYTES:]
    if hashlib.sha256(packed).digest() != digest:
        return None
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
