"""Headers remembered from one scan of a root to the next, so that only new and changed files are opened.

One file a root in the cache folder: a line that tells what it is, with the SHA-256 of the line that follows.
What is torn, changed, or written by another version or for another root is not used, and written anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import rasterio

import pbvs
from pbvs.archives.headers import Header
from pbvs.core.errors import PbvsError
from pbvs.core.files import atomic_write, cache_folder

_LOG = logging.getLogger(__name__)
_SCHEMA = 1
# A file system may keep times to two seconds only: a later change of so young a file would not show.
_YOUNG_NS = 2_000_000_000


class CachedHeader(NamedTuple):
    """The header of a file as it was at that size and time of change."""

    n_bytes: int
    mtime_ns: int
    header: Header


def is_lasting(mtime_ns: int) -> bool:
    """Whether a file changed long enough ago that any later change will show in its time."""
    return mtime_ns < time.time_ns() - _YOUNG_NS


def load_headers(root: Path) -> dict[str, CachedHeader]:
    """What is remembered of the files below `root`, by their place below it; nothing when in doubt."""
    try:
        return _unpacked(_path(root).read_bytes(), root)
    except (PbvsError, OSError):  # as good as none; should it be the folder's fault, writing will tell
        return {}


def save_headers(root: Path, known: Mapping[str, CachedHeader]) -> None:
    """Remembers the headers of the files below `root`, in place of what was; a failure is only logged."""
    try:
        with atomic_write(_path(root)) as beside:
            beside.write_bytes(_packed(root, known))
    except (PbvsError, OSError) as error:
        _LOG.warning("the next scan opens every file again: this one cannot be remembered: %s", error)


def _path(root: Path) -> Path:
    name = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_folder() / "scan" / f"{name}.json"


def _about(root: Path, body: bytes) -> bytes:
    """The first line of a cache file: all on which the truth of its body depends, but for the files."""
    about = {
        "schema": _SCHEMA,
        "root": str(root.resolve()),
        # Another version may read a header otherwise, another GDAL name a CRS otherwise.
        "made_with": [pbvs.__version__, rasterio.__version__, rasterio.__gdal_version__],
        "header": Header._fields,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(about).encode()


def _packed(root: Path, known: Mapping[str, CachedHeader]) -> bytes:
    numbers: dict[Header, int] = {}  # equal headers are written once
    rows = [(file, *k[:2], numbers.setdefault(k.header, len(numbers))) for file, k in known.items()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    body = json.dumps([list(numbers), *columns], separators=(",", ":")).encode()
    return _about(root, body) + b"\n" + body


def _unpacked(packed: bytes, root: Path) -> dict[str, CachedHeader]:
    about, _, body = packed.partition(b"\n")
    if about != _about(root, body):
        return {}
    told, *columns = json.loads(body)
    headers = [_header(*values) for values in told]
    return {
        file: CachedHeader(n_bytes, mtime_ns, headers[number])
        for file, n_bytes, mtime_ns, number in zip(*columns, strict=True)
    }


def _header(
    height: int, width: int, bands: int, dtype: str, crs: str, transform: Any, nodata: Any, palette: bool
) -> Header:
    return Header(height, width, bands, dtype, crs, transform and tuple(transform), nodata, palette)
