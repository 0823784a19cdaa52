"""What a judge may remember: features of images and distances of pairs, by the contents of the images.

A value given back from memory is bit for bit the one that was computed: whatever decides it is in its key.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pbvs.errors import PbvsError
from pbvs.files import cache_folder, written_whole

Stored8 = NDArray[np.uint8]
Rows = dict[int, NDArray[np.float32]]  # one image's features at each layer

_LOG = logging.getLogger(__name__)
_SCHEMA = 1
_HASH_BYTES = 32


class Memory(Protocol):
    """Asked before anything costly is computed."""

    def features(self, image: Stored8, is_target: bool, compute: Callable[[], Rows]) -> Rows:
        """The FID features of an image, by `compute` when it is new."""

    def distance(self, made: Stored8, real: Stored8, compute: Callable[[], float]) -> float:
        """The LPIPS of a pair, by `compute` when it is new."""


class NoMemory:
    """Computes everything."""

    def features(self, image: Stored8, is_target: bool, compute: Callable[[], Rows]) -> Rows:
        """See `Memory`."""
        return compute()

    def distance(self, made: Stored8, real: Stored8, compute: Callable[[], float]) -> float:
        """See `Memory`."""
        return compute()


class TargetFeatures(NoMemory):
    """Remembers the targets' features as long as it lives: 12 kB an image. For validation while training.

    LPIPS's features of a target are computed each time: they would be 128 MB for 512 px.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Rows] = {}

    def features(self, image: Stored8, is_target: bool, compute: Callable[[], Rows]) -> Rows:
        """See `Memory`."""
        if not is_target:
            return compute()
        key = contents(image)
        if key not in self._rows:
            self._rows[key] = compute()
        return self._rows[key]


class FileMemory:
    """Remembers all features and distances in the user's cache folder, a small file each.

    A file holds the SHA-256 of the bytes that follow it; one that is torn or foreign is computed and written
    anew. Where the folder cannot be written to, one warning says so, and scoring goes on without.

    Args:
        judge: everything beside the images that decides a value: weights, networks, how images are resized.
        folder: None takes `score` in the user's cache folder.
    """

    def __init__(self, judge: str, folder: Path | None = None) -> None:
        # Another version of torch or another device may round otherwise.
        self._judge = f"{_SCHEMA} {judge} {torch.__version__}"
        self._folder = cache_folder() / "score" if folder is None else folder
        self._is_writable = True

    def features(self, image: Stored8, is_target: bool, compute: Callable[[], Rows]) -> Rows:
        """See `Memory`."""
        path = self._path("features", contents(image))
        known = _read(path)
        if known is not None:
            return {int(name.removeprefix("layer")): known[name] for name in known}
        rows = compute()
        self._write(path, {f"layer{layer}": row for layer, row in rows.items()})
        return rows

    def distance(self, made: Stored8, real: Stored8, compute: Callable[[], float]) -> float:
        """See `Memory`."""
        path = self._path("lpips", contents(made) + contents(real))
        known = _read(path)
        if known is not None:
            return float(known["distance"])
        distance = compute()
        self._write(path, {"distance": np.array(distance, np.float64)})
        return distance

    def _path(self, what: str, of: bytes) -> Path:
        name = hashlib.sha256(f"{what} {self._judge} ".encode() + of).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.npz"

    def _write(self, path: Path, values: dict[str, NDArray]) -> None:
        if not self._is_writable:
            return
        stream = io.BytesIO()
        np.savez(stream, **values)  # type: ignore[arg-type]
        packed = stream.getvalue()
        try:
            with written_whole(path) as beside:
                beside.write_bytes(hashlib.sha256(packed).digest() + packed)
        except (PbvsError, OSError) as error:
            self._is_writable = False
            _LOG.warning("the next scoring computes everything again: nothing can be remembered: %s", error)


def contents(image: Stored8) -> bytes:
    """A digest of an image's shape and values."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _read(path: Path) -> dict[str, NDArray] | None:
    """What a file holds; None where there is none, or one that cannot be trusted."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None  # should it be the folder's fault, writing will tell
    told, packed = whole[:_HASH_BYTES], whole[_HASH_BYTES:]
    if hashlib.sha256(packed).digest() != told:
        return None
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
