"""Getting the judges' weight files here: from their official addresses, or in one tar from elsewhere."""

from __future__ import annotations

import hashlib
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO

from pbvs.core.errors import WeightsError
from pbvs.core.files import atomic_write
from pbvs.perceptual.metric_weight_files import (
    METRIC_WEIGHT_FILES,
    MetricWeightFile,
    check,
    chosen,
    hub_folder,
    marker_of,
    state_of,
)

Progress = Callable[[int, int], None]
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 10.0


def fetch(
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Downloads the official files that are not here yet, each checked before it gets its name.

    Args:
        names: the judges; all of them for None.
        progress: told (bytes done, bytes in all), files that are here already counted as done.
        folder: where to put them; torch hub's checkpoints for None.
        overwrite: also replace files of other contents (torn ones are always replaced).

    Returns:
        The files, in the order of `names`.

    Raises:
        UsageError: no judge is called so.
        WeightsError: the network fails, what came is not the official file, or other contents are in
            the way.
    """
    files = chosen(names)
    where = hub_folder() if folder is None else folder
    wanted = [file for file in files if _is_wanted(file, where / file.file_name, overwrite)]
    count = _Counter(sum(file.n_bytes for file in files), progress)
    count.add(sum(file.n_bytes for file in files if file not in wanted))
    for file in wanted:
        _download(file, where / file.file_name, count)
    return [where / file.file_name for file in files]


def pack(
    path: Path,
    names: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Puts the official files into one tar at `path`, to carry to a machine without network.

    Args:
        path: the tar to write.
        names: the judges; all of them for None.
        folder: where the files lie; torch hub's checkpoints for None.
        overwrite: replace a tar that is there.
        progress: told (files done, files in all).

    Raises:
        UsageError: no judge is called so.
        WeightsError: a file is missing, torn or wrong, or `path` exists.
    """
    if path.exists() and not overwrite:
        raise WeightsError("the file exists", where=path, next_step="name another, or use --overwrite")
    rows = check(names, folder)
    with atomic_write(path) as beside, tarfile.open(beside, "w") as tar:
        for index, row in enumerate(rows):
            tar.add(row.file, arcname=row.file.name, recursive=False, filter=_plain)
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
    """Puts the files of a tar made by `pack` into their place, each checked before it gets its name.

    Args:
        path: the tar.
        folder: where to put them; torch hub's checkpoints for None.
        overwrite: also replace files of other contents (torn ones are always replaced).
        progress: told (files done, files in all).

    Returns:
        The files, in the tar's order.

    Raises:
        WeightsError: no whole tar, a member that is no official file or not under its plain name, other
            contents than the official ones, or other contents are in the way.
    """
    where = hub_folder() if folder is None else folder
    try:
        with tarfile.open(path, "r:") as tar:
            members = [(_official(member, path), member) for member in tar.getmembers()]
            wanted = [_is_wanted(file, where / file.file_name, overwrite) for file, _ in members]
            for index, (file, member) in enumerate(members):
                if wanted[index]:
                    _extract(tar, member, file, where / file.file_name)
                if progress:
                    progress(index + 1, len(members))
    except (OSError, tarfile.TarError) as error:
        raise WeightsError(
            f"the tar cannot be read: {error}", where=path, next_step="make it again with `pbvs weights pack`"
        ) from error
    return [where / file.file_name for file, _ in members]


class _Counter:
    """Adds up bytes and tells them."""

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
            f"other contents lie under the official name ({detail})",
            where=path,
            next_step="move the file away, or use --overwrite",
        )
    return state != "ok"


def _download(file: MetricWeightFile, path: Path, count: _Counter) -> None:
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as stream:
            _place(stream, file, path, count, came_from=file.url)
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"{file.file_name} could not be fetched from {file.url}: {error}; it has SHA-256 {file.sha256}",
            where=path,
            next_step="try again; or fetch it elsewhere, `pbvs weights pack` there and "
            "`pbvs weights unpack` here; or put the file there by hand",
        ) from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, file: MetricWeightFile, path: Path) -> None:
    stream = tar.extractfile(member)
    if stream is None:
        raise tarfile.TarError(f"{member.name} has no contents")
    with stream:
        _place(stream, file, path, _Counter(file.n_bytes, None), came_from=member.name)


def _place(stream: IO[bytes], file: MetricWeightFile, path: Path, count: _Counter, came_from: str) -> None:
    """Copies `stream` beside `path`, and over it only when it is the official file."""
    digest = hashlib.sha256()
    with atomic_write(path) as beside:
        with beside.open("wb") as out:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
                count.add(len(chunk))
        if digest.hexdigest() != file.sha256:
            raise WeightsError(
                f"what came is not {file.file_name}: SHA-256 {digest.hexdigest()}, not {file.sha256}",
                where=came_from,
                next_step="get it again; a proxy or a broken transfer may have changed it",
            )
    marker_of(path).unlink(missing_ok=True)


def _official(member: tarfile.TarInfo, path: Path) -> MetricWeightFile:
    by_file_name = {file.file_name: file for file in METRIC_WEIGHT_FILES.values()}
    if not member.isreg() or member.name not in by_file_name:
        raise WeightsError(
            f"the tar holds {member.name!r}, which is none of the judges' weight files",
            where=path,
            next_step="take only a tar made by `pbvs weights pack`",
        )
    return by_file_name[member.name]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the owner's name, so the same files give the same tar."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o644
    return member
