"""A cache of headers, so that a scan opens only the files that are new or changed since the previous scan.

One file per root in the cache folder. Its first line describes the second line and holds its SHA-256. A file
that is truncated or corrupt, or written by another version or for another root, is ignored and replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import rasterio

import pbvs
from pbvs.archives.headers import Header
from pbvs.core.errors import PbvsError
from pbvs.core.files import atomic_write, cache_folder

_LOG = logging.getLogger(__name__)
_SCHEMA = 1
# Some file systems round times to two seconds: a later change of a younger file might not show.
_YOUNG_NS = 2_000_000_000


class CachedHeader(NamedTuple):
    """The header of a file at this size and modification time."""

    n_bytes: int
    mtime_ns: int
    header: Header


def is_lasting(mtime_ns: int) -> bool:
    """Whether a file is old enough for any later change to show in its modification time."""
    return mtime_ns < time.time_ns() - _YOUNG_NS


def load_headers(root: Path) -> dict[str, CachedHeader]:
    """The cached headers of the files below `root`, by path below it; empty when the cache is invalid."""
    try:
        about, _, body = _path(root).read_bytes().partition(b"\n")
        if about != _about(root, body):
            return {}
    except (PbvsError, OSError):  # no cache yet, or an unusable folder, which writing will report
        return {}
    rows, *columns = json.loads(body)
    headers = [Header._make((*row[:5], row[5] and tuple(row[5]), *row[6:])) for row in rows]
    return {
        file: CachedHeader(n_bytes, mtime_ns, headers[index])
        for file, n_bytes, mtime_ns, index in zip(*columns, strict=True)
    }


def save_headers(root: Path, cached: Mapping[str, CachedHeader]) -> None:
    """Replaces the cache of `root`; a failure is only logged."""
    indices: dict[Header, int] = {}  # equal headers are written once
    rows = [(file, *c[:2], indices.setdefault(c.header, len(indices))) for file, c in cached.items()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    body = json.dumps([list(indices), *columns], separators=(",", ":")).encode()
    try:
        with atomic_write(_path(root)) as tmp_path:
            tmp_path.write_bytes(_about(root, body) + b"\n" + body)
    except (PbvsError, OSError) as error:
        _LOG.warning("the headers cannot be cached, the next scan opens every file again: %s", error)


def _path(root: Path) -> Path:
    name = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_folder() / "scan" / f"{name}.json"


def _about(root: Path, body: bytes) -> bytes:
    """The first line of a cache file: everything that its validity depends on, apart from the files."""
    about = {
        "schema": _SCHEMA,
        "root": str(root.resolve()),
        # Another version may read headers differently, another GDAL may name a CRS differently.
        "made_with": [pbvs.__version__, rasterio.__version__, rasterio.__gdal_version__],
        "header": Header._fields,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(about).encode()
