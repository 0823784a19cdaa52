"""The work of `prepare` on files, in threads: what still holds is kept, the rest is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pbvs.core.errors import ImageError
from pbvs.prepare.capture import Made, make_capture, value_histogram
from pbvs.prepare.plan import Item, PrepareRules
from pbvs.prepare.ranks import Ranks
from pbvs.prepare.records import Contents, Journal, Record, Registered, content_hash, wrap_write_errors
from pbvs.prepare.registration import is_sar_of_stack, make_registered, with_references
from pbvs.prepare.stretch import Stretch, stretch_of_histogram

MOST_WORKERS = 8  # by default: each may take 100 MB
_CHECKED_AT_ONCE = 256  # files that one thread looks at before it tells
_QUEUED = 4  # tasks a worker that wait: keeps memory flat with 180,000 tiles
_SECONDS_BETWEEN_LOOKS = 1.0

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers(environment: Mapping[str, str]) -> int:
    """A thread for each CPU that this process may use, shared with torchrun's other ranks on this machine."""
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, n_cpus // int(environment.get("LOCAL_WORLD_SIZE", "1"))))


def in_threads(
    tasks: Iterable[Task], do: Callable[[Task], Result], workers: int, ranks: Ranks
) -> Iterator[tuple[Task, Result]]:
    """Tasks with their results as they come, while the other ranks are well.

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
            finished, _ = wait(waiting, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            ranks.check()
            for future in finished:
                yield waiting.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Work:
    """What one rank does to its files.

    Attributes:
        records: of every file that was kept or made in this call, by source path.
        failures: source path to what is wrong with the file, of those that could not be read.
        n_made: files made in this call.
    """

    def __init__(
        self,
        root: Path,
        out: Path,
        rules: PrepareRules,
        known: Mapping[str, Record],
        hashed: Mapping[str, Contents],
        ranks: Ranks,
        workers: int,
        advance: Callable[[int], None],
    ) -> None:
        """`known` holds the records of earlier calls, `hashed` contents of files looked at in this one."""
        self.records: dict[str, Record] = {}
        self.failures: dict[str, str] = {}
        self.n_made = 0
        self._root, self._out, self._rules, self._known, self._hashed = root, out, rules, known, hashed
        self._ranks, self._workers, self._advance = ranks, workers, advance
        self._journal = Journal(out, ranks.rank)

    def do(self, items: Sequence[Item]) -> list[Item]:
        """Keeps or makes the result of each item that has none of this call yet.

        Optical images come first, since SAR is registered to them.

        Returns:
            The items, SAR with its reference where it is registered.

        Raises:
            DataError: a result cannot be written, or another rank failed.
        """
        moved = [item for item in items if self._rules.register and is_sar_of_stack(item)]
        apart = {item.key for item in moved}
        try:
            self._run([item for item in items if item.key not in apart])
            items = with_references(items, self.record_of) if moved else list(items)
            self._run([item for item in items if item.key in apart])
        finally:
            self._journal.close()
        return items

    def record_of(self, item: Item) -> Record | None:
        """The record of an item as it is planned now; None when it failed or was not done."""
        record = self.records.get(item.key)
        return record if record and (record.made_by, record.out) == (item.made_by, item.out) else None

    def take_in(self, records: Mapping[str, Record], failures: Mapping[str, str], n_made: int) -> None:
        """Adds what another rank did."""
        self.failures |= failures
        self.records |= {key: record for key, record in records.items() if key not in self.failures}
        self.n_made += n_made

    def _run(self, items: Sequence[Item]) -> None:
        items = [item for item in items if not (self.record_of(item) or item.key in self.failures)]
        todo = self._checked(items)
        # What is about to be replaced is forgotten first: killed in between, it must not be believed.
        self._journal.note((item.key, None) for item in todo if item.key in self._known)
        for item, made in in_threads(todo, self._made, self._workers, self._ranks):
            if isinstance(made, str):
                self.failures[item.key] = made
            else:
                self.records[item.key] = made
                self._journal.note([(item.key, made)])
                self.n_made += 1
            self._advance(1)

    # ---- what still holds

    def _checked(self, items: Sequence[Item]) -> list[Item]:
        """Notes what still holds, and gives the rest."""
        todo = [item for item in items if item.key not in self._known]
        known = [item for item in items if item.key in self._known]
        chunks = [known[i : i + _CHECKED_AT_ONCE] for i in range(0, len(known), _CHECKED_AT_ONCE)]
        for chunk, kept in in_threads(chunks, self._kept, self._workers, self._ranks):
            for item, record in zip(chunk, kept, strict=True):
                if record is None:
                    todo.append(item)
                else:
                    self.records[item.key] = record
                    if record != self._known[item.key]:  # touched: its new time spares the hashing
                        self._journal.note([(item.key, record)])
            self._advance(sum(record is not None for record in kept))
        return sorted(todo, key=lambda item: item.out)

    def _kept(self, chunk: Iterable[Item]) -> list[Record | None]:
        return [self._still_holds(item, self._known[item.key]) for item in chunk]

    def _still_holds(self, item: Item, known: Record) -> Record | None:
        """What is known of a file, if its result is as it must be now; else None."""
        covers_enough = known.valid_fraction >= self._rules.min_overlap
        if (known.made_by, known.out) != (item.made_by, item.out) or covers_enough != bool(known.out_bytes):
            return None
        try:
            contents = content_hash(self._root / item.key, self._hashed.get(item.key, known))
        except OSError:
            return None  # told of where it is made
        if contents.sha256 != known.sha256 or not known.result_is_there(self._out):
            return None
        if (contents.n_bytes, contents.mtime_ns) == (known.n_bytes, known.mtime_ns):
            return known
        return replace(known, n_bytes=contents.n_bytes, mtime_ns=contents.mtime_ns)

    # ---- what is made

    def _made(self, item: Item) -> Record | str:
        """The record of what was made of a file, or what is wrong with it."""
        source, target = self._root / item.key, self._out / item.out
        try:
            contents = content_hash(source, self._hashed.get(item.key))
            stretch = item.stretch
            if item.percent is not None:
                stretch = stretch_of_histogram(value_histogram(source), item.percent)
            made, registered = self._make(item, source, target, stretch)
        except ImageError as error:
            return error.what
        except OSError as error:  # of the source: what cannot be written raises DataError
            return f"the file cannot be read: {error.strerror or error}"
        if not made.n_bytes:
            with wrap_write_errors(target):
                target.unlink(missing_ok=True)  # what covered enough under other rules
        size = (made.height_px, made.width_px, made.valid_fraction)
        return Record(
            contents.n_bytes,
            contents.mtime_ns,
            contents.sha256,
            item.made_by,
            item.out,
            made.n_bytes,
            *size,
            stretch,
            registered,
        )

    def _make(
        self, item: Item, source: Path, target: Path, stretch: Stretch | None
    ) -> tuple[Made, Registered | None]:
        def make(to: Path, shift_px: tuple[float, float]) -> Made:
            return make_capture(
                source,
                to,
                grid=item.grid,
                stretch=stretch,
                min_overlap=self._rules.min_overlap,
                shift_px=shift_px,
            )

        if not item.reference:
            return make(target, (0.0, 0.0)), None
        assert item.grid is not None
        made, told = make_registered(make, target, self._out / item.reference, item.grid.size_px)
        return made, told and replace(told, reference=item.reference)
