"""The stretches of the 16-bit rule `percentile`: one histogram per sensor, counted in threads and cached.

The files are read again only when the contents of one changed, or one was added or removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import DataError, ImageError
from pbvs.core.files import fingerprint, write_text
from pbvs.prepare.capture import value_histogram
from pbvs.prepare.ranks import Ranks
from pbvs.prepare.records import Contents, Record, content_hash, wrap_write_errors
from pbvs.prepare.stretch import Percent, Stretch, stretch_of_histogram
from pbvs.prepare.work import in_threads

HISTOGRAMS_NAME = "histograms.json"
N_VALUES = 65536

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Histogram:
    """The `65536` counts of a group by value, and the fingerprint of the contents of its files."""

    provenance: str
    counts: NDArray[np.int64]


def group_stretches(
    root: Path,
    out: Path,
    groups: Mapping[str, Iterable[str]],
    percent: Percent,
    known: Mapping[str, Record],
    *,
    mine: Callable[[str], bool],
    ranks: Ranks,
    workers: int,
) -> tuple[dict[str, Stretch], dict[str, Contents]]:
    """One stretch per group, from the histogram over all its files.

    Args:
        root: the files' root.
        out: the prepared folder; holds `histograms.json`.
        groups: names to files, as paths relative to `root`.
        percent: low and high, in [0,100].
        known: records of files by path, so that untouched files are not read to be hashed.
        mine: whether this rank reads a file. Every rank gets the result.
        ranks, workers: this process among the ranks, and its threads.

    Returns:
        The stretches by group; the contents of the files that this rank hashed. A file that cannot be read
        does not count (it is reported where it is prepared).

    Raises:
        DataError: the folder cannot be written to; another rank failed.
    """
    hashed: dict[str, dict[str, Contents]] = {}
    for name, keys in sorted(groups.items()):
        found = in_threads(
            filter(mine, keys),
            lambda key: _unless_unreadable(content_hash, root / key, known.get(key)),
            workers,
            ranks,
        )
        hashed[name] = {key: contents for key, contents in found if contents}
    hashes = {name: {key: one.sha256 for key, one in files.items()} for name, files in hashed.items()}
    provenance = ranks.broadcast("groups", _provenance(ranks.gather("contents", hashes)))
    cached = _load(out)
    changed = [n for n in sorted(provenance) if n not in cached or cached[n].provenance != provenance[n]]
    counts: dict[str, list[int]] = {}
    for name in changed:
        read = in_threads(
            hashed.get(name, ()),
            lambda key: _unless_unreadable(value_histogram, root / key),
            workers,
            ranks,
        )
        readable = (histogram for _, histogram in read if histogram is not None)
        counts[name] = sum(readable, np.zeros(N_VALUES, np.int64)).tolist()
    parts = ranks.gather("counts", counts)
    stretches: dict[str, Any] = {}
    if ranks.first:
        for name in changed:
            cached[name] = _Histogram(provenance[name], np.sum([part[name] for part in parts], axis=0))
        current = {name: cached[name] for name in provenance}
        if changed:
            contents = {n: {"made_of": h.provenance, "counts": h.counts.tolist()} for n, h in current.items()}
            with wrap_write_errors(out / HISTOGRAMS_NAME):
                write_text(out / HISTOGRAMS_NAME, json.dumps(contents, separators=(",", ":")) + "\n")
        stretches = {name: stretch_of_histogram(one.counts, percent) for name, one in current.items()}
    stretches = ranks.broadcast("stretches", stretches)
    hashed_files = {key: one for files in hashed.values() for key, one in files.items()}
    return {name: (low, high) for name, (low, high) in stretches.items()}, hashed_files


def _unless_unreadable(read: Callable[..., Result], *arguments: Any) -> Result | None:
    """What `read` returns; None for a file that cannot be read."""
    try:
        return read(*arguments)
    except (ImageError, OSError):
        return None


def _provenance(hashes: list[dict[str, dict[str, str]]]) -> dict[str, str]:
    """By group the fingerprint of the contents of all its files, on any rank; the groups are rank 0's.

    Args:
        hashes: per rank the SHA-256 by path by group; empty on ranks other than 0.

    Raises:
        DataError: two ranks hashed one file, which would count twice.
    """
    provenance: dict[str, str] = {}
    for name in hashes[0] if hashes else ():
        files = sorted(pair for part in hashes for pair in part.get(name, {}).items())
        if len(dict(files)) < len(files):
            raise DataError(
                "files were added or removed while the ranks scanned the archives",
                next_step="start all ranks again",
            )
        provenance[name] = fingerprint(files)
    return provenance


def _load(out: Path) -> dict[str, _Histogram]:
    path = out / HISTOGRAMS_NAME
    if not path.exists():
        return {}
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: _Histogram(one["made_of"], np.array(one["counts"], np.int64))
            for name, one in groups.items()
        }
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(
            f"the histograms cannot be read: {error}",
            where=path,
            next_step="delete this file; the 16-bit images are then read again",
        ) from error
