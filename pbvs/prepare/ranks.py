"""Several processes that share one call of `prepare`, as `torchrun` or SLURM start them.

They speak through small files in a folder that all of them see: no network, no GPU, no torch. Every rank
plans alike and does its share; rank 0 gathers what the others tell, and ends the work.

Nothing left by an earlier call that was killed is believed: each rank comes with a number drawn by chance,
rank 0 answers with the numbers of all and one of its own (the session), and all later files carry that. A
rank that fails says so, and all fail with its words. A rank that vanishes is noticed when the beat in its
file has not changed for `SECONDS_OF_SILENCE`, by the watcher's own clock.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pbvs.core.errors import DataError, PbvsError
from pbvs.core.files import write_json
from pbvs.prepare.records import wrap_write_errors

RANKS_NAME = "ranks"
SECONDS_OF_SILENCE = 120.0  # over what network file systems may take to show a change (60 s for NFS)
SECONDS_TO_JOIN = 600.0
SECONDS_BETWEEN_BEATS = 2.0
_SECONDS_BETWEEN_LOOKS = 0.1
_NO_TASK_STEPS = 0xFFFFFFF0  # SLURM's own steps (batch script, interactive shell) are one process

Environment = Mapping[str, str]


def rank_in(environment: Environment) -> tuple[int, int]:
    """(rank, number of ranks) of this process by the variables of `torchrun`, else SLURM; (0, 1) without.

    Variables that only half tell (a `WORLD_SIZE` that some shell exports, the batch script of a SLURM job)
    mean one process: there is nobody to wait for.
    """
    if {"TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"} <= environment.keys():
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID"} <= environment.keys():
        n_ranks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
        if int(environment["SLURM_STEP_ID"]) < _NO_TASK_STEPS:
            return int(environment["SLURM_PROCID"]), int(n_ranks)
    return 0, 1


def shares(weights: Mapping[Any, int], n_ranks: int) -> dict[Any, int]:
    """Which rank does each piece of work: the heaviest first, each to the rank with the least so far."""
    loads = [(0, rank) for rank in range(n_ranks)]
    given: dict[Any, int] = {}
    for piece in sorted(weights, key=lambda piece: (-weights[piece], piece)):
        load, rank = heapq.heappop(loads)
        given[piece] = rank
        heapq.heappush(loads, (load + weights[piece], rank))
    return given


class Ranks:
    """This process among the ranks; with one rank nothing is written and nobody waited for."""

    def __init__(self, rank: int = 0, n_ranks: int = 1) -> None:
        self.rank, self.n_ranks = rank, n_ranks

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which does the bookkeeping and reports."""
        return self.rank == 0

    def gather(self, name: str, value: Any) -> list[Any]:
        """On rank 0 the JSON-like values of all ranks, in order; elsewhere nothing.

        Raises:
            DataError: another rank failed or vanished.
        """
        return [value]

    def broadcast(self, name: str, value: Any) -> Any:
        """Rank 0's JSON-like `value`, on every rank; errors as `gather`."""
        return value

    def check(self) -> None:
        """Returns while the other ranks are well; errors as `gather`. Costs nothing when called often."""


class FileRanks(Ranks):
    """Ranks that meet in `folder`; see the module's words."""

    def __init__(self, folder: Path, rank: int, n_ranks: int) -> None:
        super().__init__(rank, n_ranks)
        self._folder = folder
        self._session = ""
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="beat", daemon=True)
        self._not_beating: PbvsError | None = None
        self._heard: dict[int, tuple[int, float]] = {}  # rank to its last beat, and when it was new here
        self._looked_at = 0.0

    # ---- coming together

    def join(self) -> None:
        """Waits until all ranks are here.

        Raises:
            DataError: a rank did not come within `SECONDS_TO_JOIN`, or the folder cannot be written to.
        """
        mine = secrets.token_hex(8)
        if self.first:
            self._session = mine
            with wrap_write_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            self._call_all()
        else:
            self._session = self._answered(mine)
        self._beating.start()

    def _call_all(self) -> None:
        """Answers each rank that shows itself, until each has beaten under the answer.

        What an earlier call left may be taken for a rank at first; when the rank itself comes, it writes
        over that, and is answered anew.
        """
        answered: dict[str, str] = {}

        def all_here() -> bool:
            shown = {str(r): told["mine"] for r in range(1, self.n_ranks) if (told := self._read("join", r))}
            if shown != answered:
                answered.update(shown)
                self._write("session", 0, {"session": self._session, "answered": answered})
            return not self._silent()

        if not _waited(all_here, SECONDS_TO_JOIN):
            raise self._not_here(f"rank {self._silent()[0]} of {self.n_ranks} did not come")

    def _silent(self) -> list[int]:
        return [r for r in range(1, self.n_ranks) if not self._mine(self._read("beat", r))]

    def _answered(self, mine: str) -> str:
        """The session, once rank 0 has opened the folder and answered to this rank's own number."""
        session, shown = "", False

        def answered() -> bool:
            nonlocal session, shown
            if not shown and self._folder.is_dir():
                self._write("join", self.rank, {"mine": mine})
                shown = True
            told = self._read("session", 0)
            if told and told["answered"].get(str(self.rank)) == mine:
                session = str(told["session"])
            return bool(session)

        if not _waited(answered, SECONDS_TO_JOIN):
            raise self._not_here("rank 0 did not answer")
        return session

    def _not_here(self, what: str) -> DataError:
        return DataError(
            f"{what} within {SECONDS_TO_JOIN:g} s",
            where=self._folder,
            next_step="start all ranks on one shared folder, or one process without torchrun and srun",
        )

    # ---- telling one another

    def gather(self, name: str, value: Any) -> list[Any]:
        """See `Ranks`."""
        if not self.first:
            self._tell(name, value)
            return []
        return [value, *(self._await(name, rank) for rank in range(1, self.n_ranks))]

    def broadcast(self, name: str, value: Any) -> Any:
        """See `Ranks`."""
        if not self.first:
            return self._await(name, 0)
        self._tell(name, value)
        return value

    def check(self) -> None:
        """See `Ranks`. Rank 0 watches all the others, they watch rank 0, which tells them of each other."""
        now = time.monotonic()
        if now - self._looked_at < min(1.0, SECONDS_OF_SILENCE / 4):
            return
        self._looked_at = now
        if self._not_beating is not None:
            raise self._not_beating
        for rank in range(1, self.n_ranks) if self.first else (0,):
            self._raise_failure_of(rank)
            told = self._mine(self._read("beat", rank))
            beat = told["beat"] if told else -1
            last, since = self._heard.get(rank, (beat, now))
            self._heard[rank] = (beat, now if beat != last else since)
            if now - self._heard[rank][1] > SECONDS_OF_SILENCE:
                raise DataError(
                    f"rank {rank} of {self.n_ranks} gave no sign of life for {SECONDS_OF_SILENCE:g} s",
                    where=self._folder,
                    next_step="see why it was lost, and start all ranks again: they go on where they were",
                )

    def _raise_failure_of(self, rank: int) -> None:
        if told := self._mine(self._read("failed", rank)):
            words = told["value"]
            what = words["what"] if words["relayed"] else f"rank {rank} of {self.n_ranks}: {words['what']}"
            raise Relayed(what, where=words["where"], next_step=words["next_step"])

    def fail(self, error: BaseException) -> None:
        """Tells the other ranks why this one ends; they end with the same words."""
        if not self._session:
            return  # it has not met them
        what = error.what if isinstance(error, PbvsError) else f"{type(error).__name__} {error}".strip()
        where, next_step = (error.where, error.next_step) if isinstance(error, PbvsError) else (None, None)
        words = {"what": what, "where": where, "next_step": next_step, "relayed": isinstance(error, Relayed)}
        try:
            self._tell("failed", words)
        except DataError:
            return  # no room for these words either: the others find it out by the silence

    def leave(self) -> None:
        """The end: rank 0 waits until the others have what they need, and takes the folder away."""
        if not self.first:
            self.stop()  # before the last word, after which the folder is taken away
            self._tell("left", True)
            return
        others = range(1, self.n_ranks)
        _waited(lambda: all(self._mine(self._read("left", r)) for r in others), SECONDS_OF_SILENCE)
        self.stop()
        clear(self._folder)

    def stop(self) -> None:
        """Ends the beat."""
        self._ended.set()
        if self._beating.is_alive():
            self._beating.join()

    def _beat(self) -> None:
        beat = 0
        while True:
            try:
                self._tell("beat", beat, "beat")
            except DataError as error:
                self._not_beating = error
                return
            beat += 1
            if self._ended.wait(SECONDS_BETWEEN_BEATS):
                return

    def _tell(self, name: str, value: Any, key: str = "value") -> None:
        self._write(name, self.rank, {"session": self._session, key: value})

    def _await(self, name: str, rank: int) -> Any:
        while not (told := self._mine(self._read(name, rank))):
            self.check()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return told["value"]

    def _mine(self, told: dict[str, Any] | None) -> dict[str, Any] | None:
        return told if told and told["session"] == self._session else None

    def _path(self, name: str, rank: int) -> Path:
        return self._folder / f"{name}.{rank}.json"

    def _write(self, name: str, rank: int, value: Any) -> None:
        with wrap_write_errors(self._folder):
            write_json(self._path(name, rank), value)

    def _read(self, name: str, rank: int) -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = json.loads(self._path(name, rank).read_text(encoding="utf-8"))
        except OSError as error:
            if error.errno in (
                errno.ENOENT,
                errno.ESTALE,
            ):  # not there, or just being replaced on another machine
                return None
            raise
        return told


class Relayed(DataError):
    """The failure of another rank."""


@contextmanager
def ranks_together(out: Path, environment: Environment | None = None) -> Iterator[Ranks]:
    """The ranks that share the work on the prepared folder `out`, within the block.

    Args:
        out: the folder; on rank 0 it must be known to be a prepared one.
        environment: variables that tell the rank; None takes this process's.

    Raises:
        DataError: another rank failed, vanished or did not come.
    """
    rank, n_ranks = rank_in(os.environ if environment is None else environment)
    folder = out / RANKS_NAME
    if n_ranks == 1:
        clear(folder)
        yield Ranks()
        return
    ranks = FileRanks(folder, rank, n_ranks)
    try:
        ranks.join()
        yield ranks
    except BaseException as error:
        ranks.fail(error)
        raise
    else:
        ranks.leave()
    finally:
        ranks.stop()


def clear(folder: Path) -> None:
    """Takes away what an earlier call left where ranks meet.

    Raises:
        DataError: it cannot be taken away.
    """
    with wrap_write_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)


def _waited(until: Callable[[], bool], seconds: float) -> bool:
    """Whether `until` came true in time."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return True
