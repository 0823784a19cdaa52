"""The numbers of the 16-bit rule `percentile`: one histogram a sensor, filled in threads and remembered.

The files are read again only when the contents of one changed, or one came or went.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbvs.core.errors import DataError, ImageError
from pbvs.core.files import fingerprint, write_text
from pbvs.prepare.capture import value_histogram
from pbvs.prepare.ranks import Ranks
from pbvs.prepare.records import CachedHeader, Contents, content_hash, wrap_write_errors
from pbvs.prepare.stretch import Percent, Stretch, stretch_of_histogram
from pbvs.prepare.work import in_threads

HISTOGRAMS_NAME = "histograms.json"
N_VALUES = 65536


@dataclass(frozen=True)
class _Remembered:
    """A group's histogram and the fingerprint of the contents of its files."""

    provenance: str
    counts: NDArray[np.int64]


def group_stretches(
    root: Path,
    out: Path,
    groups: Mapping[str, Iterable[str]],
    percent: Percent,
    known: Mapping[str, CachedHeader],
    *,
    mine: Callable[[str], bool],
    ranks: Ranks,
    workers: int,
) -> tuple[dict[str, Stretch], dict[str, Contents]]:
    """One stretch a group, from the histogram over all its files.

    Args:
        root: the files' root.
        out: the prepared folder; holds `histograms.json`.
        groups: names to files, as paths relative to `root`.
        percent: low and high.
        known: contents of files by path, so that the untouched are not read to be hashed.
        mine: whether this rank reads a file. Every rank gets the result.
        workers: threads.

    Returns:
        The stretches by group; the contents of the files that this rank looked at. A file that cannot be
        read counts for nothing (it is told of where it is prepared).

    Raises:
        DataError: the folder cannot be written to; another rank failed.
    """
    files = {name: [key for key in keys if mine(key)] for name, keys in sorted(groups.items())}
    reader = _Reader(root, workers, ranks)
    hashed = {name: reader.contents(keys, known) for name, keys in files.items()}
    told = ranks.gather("contents", {name: _as_told(found) for name, found in hashed.items()})
    provenance = ranks.broadcast("groups", _made_of(told))
    remembered = _load(out)
    todo = sorted(name for name in provenance if _is_new(remembered.get(name), provenance[name]))
    counted = ranks.gather("counts", {name: reader.counts(hashed.get(name, ())).tolist() for name in todo})
    stretches: dict[str, Any] = {}
    if ranks.first:
        for name in todo:
            counts = np.array([part[name] for part in counted], np.int64)
            remembered[name] = _Remembered(provenance[name], counts.sum(axis=0))
        kept = {name: remembered[name] for name in provenance}
        if todo:
            _save(out, kept)
        stretches = {name: stretch_of_histogram(one.counts, percent) for name, one in kept.items()}
    stretches = ranks.broadcast("stretches", stretches)
    contents = {key: one for found in hashed.values() for key, one in found.items()}
    return {name: (low, high) for name, (low, high) in stretches.items()}, contents


@dataclass(frozen=True)
class _Reader:
    """Reads files in threads; one that cannot be read counts for nothing."""

    root: Path
    workers: int
    ranks: Ranks

    def contents(self, keys: list[str], known: Mapping[str, CachedHeader]) -> dict[str, Contents]:
        """Size, time and hash of files by path."""

        def hashed(key: str) -> Contents | None:
            try:
                return content_hash(self.root / key, known.get(key))
            except OSError:
                return None

        return {key: found for key, found in in_threads(keys, hashed, self.workers, self.ranks) if found}

    def counts(self, keys: Iterable[str]) -> NDArray[np.int64]:
        """The histograms of files, added up."""

        def counted(key: str) -> NDArray[np.int64] | None:
            try:
                return value_histogram(self.root / key)
            except (ImageError, OSError):
                return None

        total = np.zeros(N_VALUES, np.int64)
        for _, found in in_threads(keys, counted, self.workers, self.ranks):
            if found is not None:
                total += found
        return total


def _as_told(found: Mapping[str, Contents]) -> dict[str, str]:
    return {key: contents.sha256 for key, contents in found.items()}


def _made_of(told: list[dict[str, dict[str, str]]]) -> dict[str, str]:
    """By group, as rank 0 has them, the fingerprint of the contents of all its files on whatever rank."""
    provenance: dict[str, str] = {}
    for name in told[0] if told else ():
        hashes = sorted(pair for part in told for pair in part.get(name, {}).items())
        if len(dict(hashes)) < len(hashes):  # they would count twice
            raise DataError(
                "files came or went while the ranks looked at the archives", next_step="start all ranks again"
            )
        provenance[name] = fingerprint(hashes)
    return provenance


def _is_new(remembered: _Remembered | None, provenance: str) -> bool:
    return remembered is None or remembered.provenance != provenance


def _load(out: Path) -> dict[str, _Remembered]:
    path = out / HISTOGRAMS_NAME
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: _Remembered(one["made_of"], np.array(one["counts"], np.int64)) for name, one in told.items()
        }
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(
            f"the histograms cannot be read: {error}",
            where=path,
            next_step="delete this file; the 16-bit images are then read again",
        ) from error


def _save(out: Path, remembered: Mapping[str, _Remembered]) -> None:
    told = {
        name: {"made_of": one.provenance, "counts": one.counts.tolist()} for name, one in remembered.items()
    }
    with wrap_write_errors(out / HISTOGRAMS_NAME):
        write_text(out / HISTOGRAMS_NAME, json.dumps(told, separators=(",", ":")) + "\n")
