"""Several processes that share one call of `prepare`: the result is that of one process."""

import json

import numpy as np
import pytest
from made_archives import add_location, add_tiles, affine, location_in, sar_in, write_tiff
from prepared_trees import Rank, corrupted, prepared, problem_kinds, ranked, whole_tree

from pbvs.core.errors import DataError
from pbvs.core.pixels import write_png
from pbvs.prepare.plan import PrepareRules
from pbvs.prepare.prepare import PreparedSummary

RULES = PrepareRules(uint16="percentile", register=True)


@pytest.fixture
def archives(tmp_path):
    root = tmp_path / "archives"
    for i, city in enumerate(("Bingham", "Manhattan", "Manhattan")):
        place = add_location(root, city, f"40.6461{i}_-112.18230", flights=2)
        sar_in(place / "bright_GEC.tif", scale=20.0 * (i + 1))  # 16 bits
        for name, east_m in (("east.tif", 16.0), ("west_ir.tif", -16.0)):  # valid in part, each
            where = affine(1.0, (400_000.0 + east_m, 4_500_000.0))
            write_tiff(place / name, np.full((64, 64), 90, np.uint8), where=where)
    corrupted(sar_in(location_in(root, name="40.64610_-112.18230") / "corrupt_GEC.tif"))
    add_tiles(root, n=4)
    return root


@pytest.fixture
def alone(archives, tmp_path):
    """(summary, files) of one process."""
    done = prepared(archives, tmp_path / "alone", rules=RULES)
    return done, whole_tree(tmp_path / "alone")


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_write_what_one_process_writes(archives, alone, tmp_path, n_ranks):
    out = tmp_path / "out"
    summaries = ranked(archives, out, n_ranks, rules=RULES)
    assert [one.first for one in summaries] == [True] + [False] * (n_ranks - 1)
    for one in summaries:
        assert (one.n_images, one.n_made, one.n_kept) == (alone[0].n_images, alone[0].n_made, 0)
        assert (one.problems, one.fingerprint) == (alone[0].problems, alone[0].fingerprint)
        assert (one.n_compared, one.n_moved) == (alone[0].n_compared, alone[0].n_moved)
    assert problem_kinds(summaries[0])["corrupt_GEC.tif"] == "unreadable"
    assert (out / "overlaps.csv").read_text().count("\n") == 1 + 3
    assert whole_tree(out) == alone[1]
    again = ranked(archives, out, n_ranks, rules=RULES)
    assert [(one.n_made, one.n_kept) for one in again] == [(0, alone[0].n_made)] * n_ranks
    assert prepared(archives, out, rules=RULES).n_made == 0
    assert whole_tree(out) == alone[1]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_is_killed_and_all_are_started_again(archives, alone, tmp_path, lost):
    out = tmp_path / "out"
    started = [
        Rank(archives, out, rank, 2, die_at=3 if rank == lost else None, rules=RULES) for rank in (0, 1)
    ]
    ended = [one.ended() for one in started]
    assert ended[lost] == -9
    assert isinstance(ended[1 - lost], DataError)
    assert f"rank {lost} of 2 gave no sign of life" in ended[1 - lost].what
    assert not json.loads((out / "prepared.json").read_text())["complete"]
    done = ranked(archives, out, 2, rules=RULES)[0]
    assert done.n_kept >= 3  # results of the killed rank are kept, and of the other one
    assert done.n_made + done.n_kept == alone[0].n_made
    assert whole_tree(out) == alone[1]


def test_one_process_goes_on_where_killed_ranks_were(archives, alone, tmp_path):
    out = tmp_path / "out"
    for one in [Rank(archives, out, rank, 2, die_at=3, rules=RULES) for rank in (0, 1)]:
        assert one.ended() == -9
    done = prepared(archives, out, rules=RULES)
    assert done.n_kept >= 6
    assert whole_tree(out) == alone[1]


def test_the_error_of_a_rank_ends_all_soon(archives, tmp_path):
    started = [Rank(archives, tmp_path / "out", r, 3, fail_at=2 if r == 2 else None) for r in range(3)]
    ended = [one.ended() for one in started]
    assert isinstance(ended[2], OSError)
    assert [str(error.what) for error in ended[:2]] == [
        "rank 2 of 3: OSError a failure of this rank's own"
    ] * 2


def test_what_a_rank_planned_otherwise_is_done_by_rank_0(archives, alone, tmp_path, monkeypatch):
    """A rank that misses a file (added just then) leaves it out; the result contains it all the same."""
    out = tmp_path / "out"
    hidden = archives / "Train_Data_and_Validation_EO_SAR/SAR/train/Gotcha_1.png"
    first = Rank(archives, out, 0, 2, rules=RULES)
    while not (out / "prepared.json").exists():  # rank 0 has scanned, and waits for the other
        pass
    kept = hidden.read_bytes()
    hidden.unlink()
    second = Rank(archives, out, 1, 2, rules=RULES)
    while not list(out.glob("ranks/join.1.json")):
        pass
    hidden.write_bytes(kept)
    ended = [first.ended(), second.ended()]
    assert all(isinstance(one, PreparedSummary) for one in ended), ended
    assert whole_tree(out) == alone[1]


def test_ranks_keep_the_same_locations(archives, tmp_path):
    keep = {("Manhattan", "40.64611_-112.18230"), ("Bingham", "40.64610_-112.18230")}.__contains__
    prepared(archives, tmp_path / "one", rules=RULES, keep_location=keep)
    for done in ranked(archives, tmp_path / "out", 2, rules=RULES, keep_location=keep):
        assert (done.n_made, done.n_images) == (16, 16)
    assert whole_tree(tmp_path / "out") == whole_tree(tmp_path / "one")


def test_more_ranks_than_locations(tmp_path):
    root = tmp_path / "a"
    write_png(root / "SAR/train/1.png", np.zeros((8, 8, 1), np.uint8))
    summaries = ranked(root, tmp_path / "out", 3, families={"eo_sar"})
    assert [one.n_images for one in summaries] == [1, 1, 1]


def test_one_rank_alone_waits_for_nobody(archives, alone, tmp_path):
    started = Rank(archives, tmp_path / "rank_1_of_2", 1, 2, alone=True, rules=RULES)
    done = started.ended()
    assert isinstance(done, PreparedSummary)
    assert (done.first, done.n_made) == (True, alone[0].n_made)
    assert whole_tree(tmp_path / "rank_1_of_2") == alone[1]
