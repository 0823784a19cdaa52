"""Calls of `prepare` for the tests, in this process and in others, and the resulting files."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import PbvsError
from pbvs.prepare import ranks
from pbvs.prepare.prepare import PreparedSummary, prepare

# Clean processes: the pytest process itself has threads, which a fork does not survive.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pbvs.prepare.prepare"])


def prepared(root: Path, out: Path, **options: Any) -> PreparedSummary:
    """Everything at native size, unless the options say otherwise."""
    defaults = {"modalities": set(MODALITIES), "families": set(FAMILIES), "size_px": None}
    return prepare(root, out, **(defaults | options))


def whole_tree(out: Path) -> dict[str, bytes]:
    """Every file by its path but `hashes.jsonl`, which holds times."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "hashes.jsonl")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def problem_kinds(done: PreparedSummary) -> dict[str, str]:
    """Kind of the problem by the name of its file."""
    return {Path(problem.path).name: problem.kind for problem in done.problems}


def corrupted(path: Path) -> Path:
    """A TIFF with a correct header but pixels that cannot be decoded: a scan finds no problem."""
    with rasterio.open(path) as dataset:
        profile, bands = dataset.profile | {"compress": "deflate"}, dataset.read()
    noise = np.random.default_rng(0).integers(1, 256, bands.shape).astype(bands.dtype)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(noise)
    with rasterio.open(path) as dataset:
        block = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    with path.open("r+b") as stream:
        stream.seek(block)
        stream.write(bytes(200))
    return path


class Rank:
    """`prepare` in a separate process, as one of several ranks (or alone).

    `die_at` kills it (SIGKILL) after so many of its files, `fail_at` raises an error there; `file_bytes`
    limits the size of each file it writes, as on a full disk.
    """

    def __init__(
        self,
        root: Path,
        out: Path,
        rank: int = 0,
        n_ranks: int = 1,
        *,
        die_at: int | None = None,
        fail_at: int | None = None,
        file_bytes: int | None = None,
        **options: Any,
    ) -> None:
        self._receiver, sender = _CONTEXT.Pipe(duplex=False)
        arguments = (root, out, rank, n_ranks, die_at, fail_at, file_bytes, options, sender)
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()
        sender.close()

    def ended(self) -> PreparedSummary | PbvsError | int:
        """The summary, the error, or the exit code of a process that was killed."""
        try:
            result: PreparedSummary | PbvsError = self._receiver.recv()
        except EOFError:
            self._process.join()
            assert self._process.exitcode is not None
            return self._process.exitcode
        self._process.join()
        return result


def ranked(root: Path, out: Path, n_ranks: int, **options: Any) -> list[PreparedSummary | PbvsError | int]:
    """How `prepare` ends on each of `n_ranks` processes."""
    started = [Rank(root, out, rank, n_ranks, **options) for rank in range(n_ranks)]
    return [one.ended() for one in started]


def _run(
    root: Path,
    out: Path,
    rank: int,
    n_ranks: int,
    die_at: int | None,
    fail_at: int | None,
    file_bytes: int | None,
    options: dict[str, Any],
    sender: Any,
) -> None:
    ranks.SECONDS_OF_SILENCE, ranks.SECONDS_BETWEEN_BEATS, ranks._SECONDS_BETWEEN_LOOKS = 2.5, 0.05, 0.01
    if n_ranks > 1:
        names = {"RANK": rank, "WORLD_SIZE": n_ranks, "LOCAL_RANK": rank}
        os.environ.update({name: str(value) for name, value in names.items()}, TORCHELASTIC_RUN_ID="none")

    if file_bytes is not None:  # Python ignores the signal that comes with it
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    def advance(done: int, total: int) -> None:
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if done == fail_at:
            raise OSError("a failure of this rank's own")
        if die_at is not None or fail_at is not None:
            time.sleep(0.01)

    try:
        result: Any = prepared(root, out, progress=advance, **options)
    except (PbvsError, OSError) as error:
        result = error
    sender.send(result)
