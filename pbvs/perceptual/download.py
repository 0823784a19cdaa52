"""Downloads the weight files of the metrics, and packs them into a tar for machines without network."""

from __future__ import annotations

import hashlib
import tarfile
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, cast

from pbvs.core.errors import WeightsError
from pbvs.core.files import atomic_write
from pbvs.core.types import Progress
from pbvs.perceptual.metric_weight_files import (
    METRIC_WEIGHT_FILES,
    MetricWeightFile,
    check,
    chosen,
    hub_folder,
    marker_of,
    state_of,
)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 10.0


def fetch(
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Downloads the missing official files, each checked before it gets its name.

    Args:
        names: the weight files; all for None.
        progress: called with (bytes done, total); existing files count as done.
        folder: the target folder; torch hub's checkpoints for None.
        overwrite: also replace files of other contents (truncated files are always replaced).

    Returns:
        The files, in the order of `names`.

    Raises:
        UsageError: unknown name.
        WeightsError: the network fails, the download is not the official file, or a file of other contents
            exists.
    """
    files = chosen(names)
    folder = hub_folder() if folder is None else folder
    wanted = [file for file in files if _is_wanted(file, folder / file.file_name, overwrite)]
    counter = _Counter(sum(file.n_bytes for file in files), progress)
    counter.add(sum(file.n_bytes for file in files if file not in wanted))
    for file in wanted:
        path = folder / file.file_name
        try:
            with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as stream:
                _store(stream, file, path, counter, source=file.url)
        except (OSError, HTTPException) as error:
            raise WeightsError(
                f"{file.file_name} could not be downloaded from {file.url}: {error}; "
                f"it has SHA-256 {file.sha256}",
                where=path,
                next_step="try again; or fetch it on another machine, `pbvs weights pack` there and "
                "`pbvs weights unpack` here; or put the file there by hand",
            ) from error
    return [folder / file.file_name for file in files]


def pack(
    path: Path,
    names: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Packs the official files into one tar at `path`, for a machine without network.

    Args:
        path: the tar to write.
        names: the weight files; all for None.
        folder: the folder of the files; torch hub's checkpoints for None.
        overwrite: replace an existing tar.
        progress: called with (files done, total).

    Raises:
        UsageError: unknown name.
        WeightsError: a file is missing, truncated or wrong, or `path` exists.
    """
    if path.exists() and not overwrite:
        raise WeightsError("the file exists", where=path, next_step="choose another name, or use --overwrite")
    rows = check(names, folder)
    with atomic_write(path) as tmp_path, tarfile.open(tmp_path, "w") as tar:
        for index, row in enumerate(rows):
            with row.file.open("rb") as stream:
                member = tar.gettarinfo(arcname=row.file.name, fileobj=stream)
                # Without owner and time, so the same files yield the same tar.
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mtime = 0
                member.mode = 0o644
                tar.addfile(member, stream)
            if progress:
                progress(index + 1, len(rows))
    return path


def unpack(
    path: Path,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Unpacks a tar of `pack`, each file checked before it gets its name.

    Args:
        path: the tar.
        folder: the target folder; torch hub's checkpoints for None.
        overwrite: also replace files of other contents (truncated files are always replaced).
        progress: called with (files done, total).

    Returns:
        The files, in the tar's order.

    Raises:
        WeightsError: the tar is truncated or corrupt, a member is not an official file (by plain name and
            contents), or a file of other contents exists.
    """
    folder = hub_folder() if folder is None else folder
    by_file_name = {file.file_name: file for file in METRIC_WEIGHT_FILES.values()}
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
            for member in members:
                if not member.isreg() or member.name not in by_file_name:
                    raise WeightsError(
                        f"the tar holds {member.name!r}, which is not a weight file of the metrics",
                        where=path,
                        next_step="use only a tar of `pbvs weights pack`",
                    )
            files = [by_file_name[member.name] for member in members]
            wanted = [_is_wanted(file, folder / file.file_name, overwrite) for file in files]
            for index, (member, file) in enumerate(zip(members, files, strict=True)):
                if wanted[index]:
                    stream = cast(IO[bytes], tar.extractfile(member))  # None only for links and folders
                    counter = _Counter(file.n_bytes, None)
                    _store(stream, file, folder / file.file_name, counter, source=member.name)
                if progress:
                    progress(index + 1, len(members))
    except (OSError, tarfile.TarError) as error:
        raise WeightsError(
            f"the tar cannot be read: {error}", where=path, next_step="repeat `pbvs weights pack`"
        ) from error
    return [folder / file.file_name for file in files]


class _Counter:
    """Adds up bytes and reports the sum."""

    def __init__(self, total: int, progress: Progress | None):
        self.done, self.total, self.progress = 0, total, progress

    def add(self, n_bytes: int) -> None:
        self.done += n_bytes
        if self.progress:
            self.progress(self.done, self.total)


def _is_wanted(file: MetricWeightFile, path: Path, overwrite: bool) -> bool:
    state, detail = state_of(file, path)
    if state == "wrong" and not overwrite:
        raise WeightsError(
            f"a file of other contents has the official name ({detail})",
            where=path,
            next_step="move the file away, or use --overwrite",
        )
    return state != "ok"


def _store(stream: IO[bytes], file: MetricWeightFile, path: Path, counter: _Counter, source: str) -> None:
    """Copies `stream` to a temporary file, and renames it to `path` only if it is the official file."""
    digest = hashlib.sha256()
    with atomic_write(path) as tmp_path:
        with tmp_path.open("wb") as out:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
                counter.add(len(chunk))
        if digest.hexdigest() != file.sha256:
            raise WeightsError(
                f"the data is not {file.file_name}: SHA-256 {digest.hexdigest()}, not {file.sha256}",
                where=source,
                next_step="repeat it; a proxy or a broken transfer may have changed the file",
            )
    marker_of(path).unlink(missing_ok=True)
