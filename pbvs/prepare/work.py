"""The work of `prepare` on files, in threads: results that are up to date are kept, the rest is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pbvs.core.errors import ImageError
from pbvs.core.types import Progress
from pbvs.prepare.capture import make_capture, value_histogram
from pbvs.prepare.plan import Item, PrepareRules
from pbvs.prepare.ranks import Ranks
from pbvs.prepare.records import Contents, Journal, Record, content_hash, wrap_write_errors
from pbvs.prepare.registration import is_stack_sar, make_registered, with_references
from pbvs.prepare.stretch import stretch_of_histogram

MAX_WORKERS = 8  # by default: each may take 100 MB
_CHECKED_AT_ONCE = 256  # files that one thread checks before it reports
_QUEUED = 4  # waiting tasks per worker: keeps memory constant with 180,000 tiles
_POLL_SECONDS = 1.0

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers(environment: Mapping[str, str]) -> int:
    """One thread per CPU that this process may use, shared with torchrun's other ranks on this machine."""
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, n_cpus // int(environment.get("LOCAL_WORLD_SIZE", "1"))))


def in_threads(
    tasks: Iterable[Task], do: Callable[[Task], Result], workers: int, ranks: Ranks
) -> Iterator[tuple[Task, Result]]:
    """Tasks with their results as they are completed, while the other ranks are alive.

    Raises:
        DataError: another rank failed; and whatever `do` raises.
    """
    pool = ThreadPoolExecutor(workers)
    rest, waiting = iter(tasks), dict[Future[Result], Task]()
    try:
        while True:
            for task in islice(rest, _QUEUED * workers - len(waiting)):
                waiting[pool.submit(do, task)] = task
            if not waiting:
                return
            finished, _ = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            ranks.check()
            for future in finished:
                yield waiting.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(eq=False)
class Work:
    """The files of one rank.

    Attributes:
        root, out, rules: as in `prepare`.
        known: records of earlier calls by source path.
        hashed: contents of files that this call has hashed already, by source path.
        ranks, workers: this process among the ranks, and its threads.
        progress: called with (files done, files in all).
        n_total: files in all, for `progress`.
        records: of every file that this call kept or wrote, by source path.
        failures: source path to what is wrong with the file, of those that could not be read.
        n_written: files that this call wrote.
    """

    root: Path
    out: Path
    rules: PrepareRules
    known: Mapping[str, Record]
    hashed: Mapping[str, Contents]
    ranks: Ranks
    workers: int
    progress: Progress | None
    n_total: int
    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    n_written: int = 0

    def __post_init__(self) -> None:
        self._journal = Journal(self.out, self.ranks.rank)
        self._n_done = 0

    def do(self, items: Sequence[Item]) -> list[Item]:
        """Keeps or writes the result of each item that has none of this call yet.

        Optical images come first, since SAR is registered to them.

        Returns:
            The items, SAR with its reference where it is registered.

        Raises:
            DataError: a result cannot be written, or another rank failed.
        """
        registered = {item.key for item in items if self.rules.register and is_stack_sar(item)}
        try:
            self._run([item for item in items if item.key not in registered])
            items = with_references(items, self.record_of) if registered else list(items)
            self._run([item for item in items if item.key in registered])
        finally:
            self._journal.close()
        return items

    def record_of(self, item: Item) -> Record | None:
        """The record of an item as it is planned now; None when it failed or was not done."""
        record = self.records.get(item.key)
        return record if record and (record.recipe, record.out) == (item.recipe, item.out) else None

    def merge(self, records: Mapping[str, Record], failures: Mapping[str, str], n_written: int) -> None:
        """Adds what another rank did."""
        self.failures |= failures
        self.records |= {key: record for key, record in records.items() if key not in self.failures}
        self.n_written += n_written

    def _run(self, items: Sequence[Item]) -> None:
        items = [item for item in items if not (self.record_of(item) or item.key in self.failures)]
        todo = [item for item in items if item.key not in self.known]
        known = [item for item in items if item.key in self.known]
        chunks = [known[i : i + _CHECKED_AT_ONCE] for i in range(0, len(known), _CHECKED_AT_ONCE)]
        for chunk, kept in in_threads(
            chunks, lambda chunk: [self._kept(item) for item in chunk], self.workers, self.ranks
        ):
            for item, record in zip(chunk, kept, strict=True):
                if record is None:
                    todo.append(item)
                    continue
                self.records[item.key] = record
                if record != self.known[item.key]:  # touched: its new time saves hashing it again
                    self._journal.note([(item.key, record)])
            self._advance(sum(record is not None for record in kept))
        todo.sort(key=lambda item: item.out)
        # Cancel the records of what is about to be replaced: after a kill in between they would be wrong.
        self._journal.note((item.key, None) for item in todo if item.key in self.known)
        for item, result in in_threads(todo, self._write, self.workers, self.ranks):
            if isinstance(result, str):
                self.failures[item.key] = result
            else:
                self.records[item.key] = result
                self._journal.note([(item.key, result)])
                self.n_written += 1
            self._advance(1)

    def _advance(self, n_files: int) -> None:
        self._n_done += n_files
        if self.progress and n_files:
            self.progress(min(self._n_done, self.n_total), self.n_total)

    def _kept(self, item: Item) -> Record | None:
        """The record of an item whose result is up to date; else None."""
        known = self.known[item.key]
        covers_enough = known.valid_fraction >= self.rules.min_overlap
        if (known.recipe, known.out) != (item.recipe, item.out) or covers_enough != bool(known.out_bytes):
            return None
        try:
            contents = content_hash(self.root / item.key, self.hashed.get(item.key, known))
        except OSError:
            return None  # `_write` reports it
        if contents.sha256 != known.sha256 or not known.result_exists(self.out):
            return None
        return replace(known, n_bytes=contents.n_bytes, mtime_ns=contents.mtime_ns)

    def _write(self, item: Item) -> Record | str:
        """Writes the result of an item; its record, or what is wrong with the source."""
        source, target, stretch = self.root / item.key, self.out / item.out, item.stretch
        try:
            contents = content_hash(source, self.hashed.get(item.key))
            if item.percent is not None:
                stretch = stretch_of_histogram(value_histogram(source), item.percent)
            make = partial(
                make_capture, source, grid=item.grid, stretch=stretch, min_overlap=self.rules.min_overlap
            )
            capture, registration = (
                make_registered(make, self.out, item) if item.reference else (make(target), None)
            )
        except ImageError as error:
            return error.what
        except OSError as error:  # of the source: failing to write raises DataError
            return f"the file cannot be read: {error.strerror or error}"
        if not capture.n_bytes:
            with wrap_write_errors(target):
                target.unlink(missing_ok=True)  # a result of rules under which it covered enough
        return Record(
            n_bytes=contents.n_bytes,
            mtime_ns=contents.mtime_ns,
            sha256=contents.sha256,
            recipe=item.recipe,
            out=item.out,
            out_bytes=capture.n_bytes,
            height_px=capture.height_px,
            width_px=capture.width_px,
            valid_fraction=capture.valid_fraction,
            stretch=stretch,
            registration=registration,
        )
