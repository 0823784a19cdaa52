"""What a judge may remember: features of images and distances of pairs, by the contents of the images.

A value given back from memory is bit for bit the one that was computed: whatever decides it is in its key.
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

Stored8 = NDArray[np.uint8]
Rows = dict[int, NDArray[np.float32]]  # one image's features at each layer

_LOG = logging.getLogger(__name__)
_SCHEMA = 1
_HASH_BYTES = 32


class Memory(Protocol):
    """Asked before anything costly is computed; images go by their `contents`."""

    def features(self, image: bytes) -> Rows | None:
        """The FID features of an image; None where they are not known."""

    def keep_features(self, image: bytes, rows: Rows, *, is_target: bool) -> None:
        """Takes what was computed."""

    def distance(self, made: bytes, real: bytes) -> float | None:
        """The LPIPS of a pair; None where it is not known."""

    def keep_distance(self, made: bytes, real: bytes, distance: float) -> None:
        """Takes what was computed."""


class TargetFeatures:
    """Remembers the targets' features as long as it lives: 12 kB an image.

    LPIPS's features of a target are computed each time: they would be 128 MB for 512 px.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Rows] = {}

    def features(self, image: bytes) -> Rows | None:
        """See `Memory`."""
        return self._rows.get(image)

    def keep_features(self, image: bytes, rows: Rows, *, is_target: bool) -> None:
        """See `Memory`."""
        if is_target:
            self._rows[image] = rows

    def distance(self, made: bytes, real: bytes) -> float | None:
        """See `Memory`."""
        return None

    def keep_distance(self, made: bytes, real: bytes, distance: float) -> None:
        """See `Memory`."""


class FileMemory:
    """Remembers all features and distances in the user's cache folder, a small file each.

    A file holds the SHA-256 of the bytes that follow it; one that is torn or foreign counts as none, and is
    written anew. Where the folder cannot be written to, one warning says so, and scoring goes on without.

    Args:
        judge: everything beside the images that decides a value: weights, networks, how images are resized.
        folder: None takes `score` in the user's cache folder.
    """

    def __init__(self, judge: str, folder: Path | None = None) -> None:
        # Another version of torch or another device may round otherwise.
        self._judge = f"{_SCHEMA} {judge} {torch.__version__}"
        self._folder = cache_folder() / "score" if folder is None else folder
        self._is_writable = True

    def features(self, image: bytes) -> Rows | None:
        """See `Memory`."""
        known = _read(self._path("features", image))
        if known is None:
            return None
        return {int(name.removeprefix("layer")): row for name, row in known.items()}

    def keep_features(self, image: bytes, rows: Rows, *, is_target: bool) -> None:
        """See `Memory`."""
        self._write(self._path("features", image), {f"layer{layer}": row for layer, row in rows.items()})

    def distance(self, made: bytes, real: bytes) -> float | None:
        """See `Memory`."""
        known = _read(self._path("lpips", made + real))
        return None if known is None else float(known["distance"])

    def keep_distance(self, made: bytes, real: bytes, distance: float) -> None:
        """See `Memory`."""
        self._write(self._path("lpips", made + real), {"distance": np.array(distance, np.float64)})

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
            with atomic_write(path) as beside:
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
