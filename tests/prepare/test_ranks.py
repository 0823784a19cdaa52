"""Ranks that meet through files: here as threads of one process, in test_prepare_ranks as processes."""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbvs.core.errors import DataError, ImageError
from pbvs.prepare import ranks as module
from pbvs.prepare.ranks import FileRanks, Ranks, rank_in, ranks_together, shares
from pbvs.prepare.work import default_workers

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "none"}
SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_OF_SILENCE", 1.0)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_BEATS", 0.05)
    monkeypatch.setattr(module, "SECONDS_TO_JOIN", 5.0)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LOOKS", 0.01)


def environment(rank: int, n_ranks: int) -> dict[str, str]:
    return TORCHRUN | {"RANK": str(rank), "WORLD_SIZE": str(n_ranks)}


def together(out, n_ranks: int, work: Callable[[Ranks], object]) -> list[object]:
    """What `work` gives, or raises, on each rank."""

    def run(rank: int) -> object:
        try:
            with ranks_together(out, environment(rank, n_ranks)) as ranks:
                return work(ranks)
        except DataError as error:
            return error

    with ThreadPoolExecutor(n_ranks) as pool:
        return list(pool.map(run, range(n_ranks)))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (1, 3)),
        (SLURM, (2, 4)),
        (SLURM | TORCHRUN, (1, 3)),
        ({"RANK": "1", "WORLD_SIZE": "3"}, (0, 1)),  # some shell's, not torchrun's
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, (0, 1)),  # a batch script
        (SLURM | {"SLURM_STEP_ID": "4294967291"}, (0, 1)),  # the step of a batch script
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NUM_TASKS"}, (2, 8)),
    ],
)
def test_the_rank_in_the_environment(told, expected):
    assert rank_in(told) == expected


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 1000)), st.integers(1, 5))
def test_shares_are_complete_even_and_independent_of_order(weights, n_ranks):
    given_to = shares(weights, n_ranks)
    assert given_to.keys() == weights.keys()
    assert shares(dict(reversed(weights.items())), n_ranks) == given_to
    loads = [sum(w for piece, w in weights.items() if given_to[piece] == rank) for rank in range(n_ranks)]
    assert max(loads) - min(loads) <= max(weights.values(), default=0)


def test_one_rank_writes_nothing(tmp_path):
    with ranks_together(tmp_path, {}) as ranks:
        assert ranks.first
        assert (ranks.gather("a", 1), ranks.broadcast("b", 2)) == ([1], 2)
        ranks.check()
    assert list(tmp_path.iterdir()) == []


def test_values_go_to_rank_0_and_back_and_no_file_is_left(tmp_path):
    def work(ranks):
        told = ranks.gather("squares", ranks.rank**2)
        return ranks.broadcast("sum", sum(told)), told

    assert together(tmp_path, 3, work) == [(5, [0, 1, 4]), (5, []), (5, [])]
    assert list(tmp_path.iterdir()) == []


def test_a_rank_is_still_before_its_last_word(tmp_path, monkeypatch):
    """After that the folder may go; a beat would make it anew."""
    beating, real = [], FileRanks._tell

    def tell(ranks, name, *given):
        if name == "left":
            beating.append(ranks._beating.is_alive())
        return real(ranks, name, *given)

    monkeypatch.setattr(FileRanks, "_tell", tell)
    together(tmp_path, 3, lambda ranks: ranks.gather("a", 0))
    assert beating == [False, False]


def test_what_an_earlier_call_left_is_not_believed(tmp_path):
    folder = tmp_path / "ranks"
    folder.mkdir()
    stale = {
        "session.0": {"session": "old", "answered": {"1": "old", "2": "old"}},
        "join.1": {"mine": "old"},
        "beat.0": {"session": "old", "beat": 7},
        "beat.1": {"session": "old", "beat": 7},
        "failed.0": {"session": "old", "value": {}},
        "failed.1": {"session": "old", "value": {}},
        "left.1": {"session": "old", "value": True},
        "sum.0": {"session": "old", "value": -1},
        "squares.1": {"session": "old", "value": -1},
    }
    for name, value in stale.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    test_values_go_to_rank_0_and_back_and_no_file_is_left(tmp_path)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_fails_makes_all_fail_with_its_words(tmp_path, failing):
    def work(ranks):
        if ranks.rank == failing:
            raise ImageError("no room", where="there", next_step="make room")
        while True:
            ranks.check()
            time.sleep(0.01)

    errors = together(tmp_path, 3, work)
    assert {type(error) for error in errors} <= {ImageError, module.Relayed}
    assert errors[failing].what == "no room"
    others = [error for rank, error in enumerate(errors) if rank != failing]
    assert {(error.what, error.where, error.next_step) for error in others} == {
        (f"rank {failing} of 3: no room", "there", "make room")
    }


def test_a_rank_that_is_interrupted_is_told_of(tmp_path):
    def work(ranks):
        if ranks.rank == 1:
            try:
                raise KeyboardInterrupt
            finally:
                ranks.fail(KeyboardInterrupt())
        ranks.gather("never", 0)

    with pytest.raises(KeyboardInterrupt):
        together(tmp_path, 2, work)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_vanishes_is_noticed_and_named(tmp_path, lost):
    def work(ranks):
        if ranks.rank == lost:
            ranks.stop()  # the beat ends, as that of a killed process
            time.sleep(1.7)
            return None
        started = time.monotonic()
        try:
            ranks.gather("never", 0)
            ranks.broadcast("nor this", 0)
        finally:
            assert time.monotonic() - started >= 0.9
        return None

    def run(rank):
        ranks = FileRanks(tmp_path / "ranks", rank, 2)
        ranks.join()
        try:
            return work(ranks)
        except DataError as error:
            return error
        finally:
            ranks.stop()

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(run, range(2)))
    assert told[lost] is None
    assert told[1 - lost].what == f"rank {lost} of 2 gave no sign of life for 1 s"


def test_a_slow_rank_that_lives_is_waited_for(tmp_path):
    def work(ranks):
        if ranks.rank == 1:
            time.sleep(1.7)
        return ranks.gather("late", ranks.rank)

    assert together(tmp_path, 2, work) == [[0, 1], []]


def test_a_rank_that_does_not_come_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_JOIN", 0.3)

    def run(rank):
        with pytest.raises(DataError) as caught, ranks_together(tmp_path, environment(rank, 3)) as ranks:
            ranks.gather("never", 0)
            ranks.broadcast("nor this", 0)
        return caught.value.what

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(run, range(2)))
    assert told == [what := "rank 2 of 3 did not come within 0.3 s", f"rank 0 of 3: {what}"]
    (tmp_path / "elsewhere").mkdir()
    with (
        pytest.raises(DataError, match=r"rank 0 did not answer within 0\.3 s"),
        ranks_together(tmp_path / "elsewhere", environment(1, 3)),
    ):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []  # not opened by rank 0, so not written to


def test_ranks_of_a_dead_call_notice_the_new_one(tmp_path):
    """A rank left alone by its killed rank 0 does not take a new rank 0 for its own."""
    alone, came = [], threading.Event()

    def orphan():
        ranks = FileRanks(tmp_path / "ranks", 1, 2)
        ranks.join()
        came.set()
        try:
            ranks.broadcast("never", None)
        except DataError as error:
            alone.append(error.what)
        finally:
            ranks.stop()

    def dying():
        ranks = FileRanks(tmp_path / "ranks", 0, 2)
        ranks.join()
        came.wait()
        ranks.stop()

    threads = [threading.Thread(target=target) for target in (orphan, dying)]
    for thread in threads:
        thread.start()
    threads[1].join()
    told = together(tmp_path, 2, lambda ranks: (threads[0].join(), ranks.gather("a", ranks.rank))[1])
    assert alone == ["rank 0 of 2 gave no sign of life for 1 s"]
    assert told == [[0, 1], []]


def test_threads_by_default():
    n_cpus = len(os.sched_getaffinity(0))
    assert default_workers({}) == min(8, n_cpus)
    assert default_workers({"LOCAL_WORLD_SIZE": str(2 * n_cpus)}) == 1
