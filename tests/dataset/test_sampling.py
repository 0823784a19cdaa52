"""Statistics of the samplers over many epochs and on any number of processes, and of the split."""

from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_captures import Captures, capture
from scipy.stats import chi2_contingency, chisquare
from torch.utils.data import Dataset

from pbvs.dataset.batches import Batches, BatchSampler
from pbvs.dataset.index import held_out, held_out_rank, is_held_out
from pbvs.dataset.pairs import PairTable, RandomPairs

# How many SAR and RGB captures each location has: one with one, one with sixty.
COUNTS = {"a": (1, 1), "b": (1, 60), "c": (60, 1), "d": (5, 7), "e": (3, 2), "f": (12, 9)}
EPOCHS = 3000
LEAST_P_VALUE = 1e-4  # of a statistical test at a fixed seed


def some_captures(counts: dict[str, tuple[int, int]]) -> Captures:
    return Captures(
        capture(modality, f"{modality}{n}", ("stack", "Bingham", location))
        for location, numbers in counts.items()
        for modality, count in zip(("sar", "rgb"), numbers, strict=True)
        for n in range(count)
    )


def draws(counts: dict[str, tuple[int, int]], draws_per_location: int = 1, seed: int = 0) -> RandomPairs:
    table = PairTable(some_captures(counts), source="sar", target="rgb", heldout_fraction=0.0)
    return table.train(draws_per_location=draws_per_location, seed=seed)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[str, str, str]]:
    """(location, source, target) of all pairs of many epochs, in order."""
    some = draws(COUNTS)
    pairs = (some.pair_at(n) for n in range(EPOCHS * len(some)))
    return [(pair.location[2], pair.source.capture, pair.target.capture) for pair in pairs]


def table_of(pairs: list[tuple], rows: int, columns: int) -> np.ndarray:
    """Counts of each combination, `rows,columns`; every value of both sides occurs."""
    firsts, seconds = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
    assert (len(firsts), len(seconds)) == (rows, columns)
    counts = Counter(pairs)
    return np.array([[counts[first, second] for second in seconds] for first in firsts])


# ---- the pairs


def test_every_epoch_visits_each_location_once(drawn):
    for start in range(0, len(drawn), len(COUNTS)):
        assert sorted(location for location, _, _ in drawn[start : start + len(COUNTS)]) == sorted(COUNTS)


@pytest.mark.parametrize("location", COUNTS)
def test_captures_of_a_location_are_drawn_uniformly(drawn, location):
    mine = [pair for pair in drawn if pair[0] == location]
    assert len(mine) == EPOCHS
    for side in (1, 2):
        counts = Counter(pair[side] for pair in mine)
        assert len(counts) == COUNTS[location][side - 1]
        assert chisquare(list(counts.values())).pvalue > LEAST_P_VALUE or len(counts) == 1


@pytest.mark.parametrize("location", ["d", "e", "f"])
def test_source_and_target_are_independent_and_every_combination_is_reached(drawn, location):
    pairs = [(source, target) for at, source, target in drawn if at == location]
    together = table_of(pairs, *COUNTS[location])
    assert together.min() > 0
    assert chi2_contingency(together).pvalue > LEAST_P_VALUE
    assert chisquare(together.ravel()).pvalue > LEAST_P_VALUE


@pytest.mark.parametrize("side", [1, 2])
def test_an_epoch_is_independent_of_the_next(drawn, side):
    mine = [pair[side] for pair in drawn if pair[0] == "f"]
    n = COUNTS["f"][side - 1]
    assert chi2_contingency(table_of(list(pairwise(mine)), n, n)).pvalue > LEAST_P_VALUE


def test_locations_are_sampled_independently(drawn):
    of_d = [source for location, source, _ in drawn if location == "d"]
    of_f = [source for location, source, _ in drawn if location == "f"]
    together = table_of(list(zip(of_d, of_f, strict=True)), 5, 12)
    assert chi2_contingency(together).pvalue > LEAST_P_VALUE


def test_every_location_is_equally_often_at_every_position_of_an_epoch(drawn):
    positions = [(location, n % len(COUNTS)) for n, (location, _, _) in enumerate(drawn)]
    assert chisquare(table_of(positions, 6, 6).ravel()).pvalue > LEAST_P_VALUE
    follows = [(a[0], b[0]) for a, b in zip(drawn[::6], drawn[1::6], strict=True) if a[0] != b[0]]
    together = table_of(follows, 6, 6)
    assert chisquare(together[~np.eye(6, dtype=bool)]).pvalue > LEAST_P_VALUE


def test_several_pairs_of_a_location_are_independent():
    some = draws({"a": (4, 5)}, draws_per_location=2)
    pairs = [some.pair_at(n).target.capture for n in range(2 * 3000)]
    together = table_of(list(zip(pairs[::2], pairs[1::2], strict=True)), 5, 5)
    assert chi2_contingency(together).pvalue > LEAST_P_VALUE
    assert chisquare(together.ravel()).pvalue > LEAST_P_VALUE


def test_seeds_are_independent():
    one, other = (draws({"a": (4, 5)}, seed=seed) for seed in (0, 1))
    pairs = [(one.pair_at(n).source.capture, other.pair_at(n).source.capture) for n in range(3000)]
    assert chi2_contingency(table_of(pairs, 4, 4)).pvalue > LEAST_P_VALUE


# ---- by position alone: resumed midway, and split over processes

MANY = {f"{n}": (1 + n % 4, 1 + n % 7) for n in range(401)}


def test_epoch_seven_resumed_at_position_1000_is_epoch_seven_run_through():
    sampler = draws(MANY, draws_per_location=3)
    length = len(sampler)
    assert length == 1203
    whole = [sampler.pair_at(n) for n in range(8 * length)]
    resumed = draws(MANY, draws_per_location=3)
    assert [resumed.pair_at(n) for n in range(7 * length + 1000, 8 * length)] == whole[7 * length + 1000 :]
    epochs = [whole[epoch * length : (epoch + 1) * length] for epoch in range(8)]
    assert all(
        Counter(p.location for p in epoch) == Counter(p.location for p in epochs[0]) for epoch in epochs
    )
    assert len({tuple(pair.name for pair in epoch) for epoch in epochs}) == 8


class Names(Dataset):
    """Samples that hold only the position and the name of the pair."""

    def __init__(self, some: RandomPairs):
        self.some = some

    def __getitem__(self, n: int):
        image, mask = torch.zeros(1, 1, 1, dtype=torch.uint8), torch.ones(1, 1, 1, dtype=torch.bool)
        return {"source": image, "target": image, "mask": mask, "name": (n, self.some.pair_at(n).name)}


def images_of(
    rank: int, processes: int, start: int, n_images: int, batch: int, parts: int = 1
) -> list[tuple]:
    """(position, name) of all images of one process, as the training loop reads them."""
    starts = range(start, n_images // batch * batch, batch)
    positions = BatchSampler(starts, batch, parts=parts, rank=rank, processes=processes)
    found = []
    for one in Batches(Names(draws(MANY)), positions, torch.device("cpu"), 0):
        at, names = one.names
        found += list(zip(at.tolist(), names, strict=True))
    return found


@pytest.mark.parametrize("parts", [1, 2])
def test_one_two_and_three_processes_see_the_same_without_overlap(parts):
    """A batch of 12 does not divide an epoch of 401: the last one extends into the next epoch."""
    n_images, whole = 3 * 401, 3 * 401 // 12 * 12
    alone = images_of(0, 1, 0, n_images, 12, parts)
    assert [n for n, _ in alone] == list(range(whole))
    for processes in (2, 3):
        by_process = [images_of(rank, processes, 0, n_images, 12, parts) for rank in range(processes)]
        assert {len(images) for images in by_process} == {whole // processes}
        assert sorted(chain(*by_process)) == alone
    for epoch in range(2):  # the last one ends with the last whole batch
        counts = Counter(name.split("/")[1] for n, name in alone if n // 401 == epoch)
        assert counts == Counter(list(MANY))


def test_a_run_resumed_with_more_processes_skips_no_image():
    before = images_of(0, 1, 0, 600, 6)
    after = [one for rank in range(3) for one in images_of(rank, 3, 600, 802, 6)]
    assert sorted(before + after) == images_of(0, 1, 0, 802, 6)


# ---- the split

KEYS = st.lists(
    st.tuples(st.sampled_from(["Bingham", "Manhattan", "UC_Davis"]), st.integers(0, 10_000).map(str)),
    min_size=1,
    max_size=40,
    unique=True,
)
FRACTIONS = st.one_of(st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.floats(0.0, 1.0))
Keys = list[tuple[str, str]]


def split_of(keys: Keys, fraction: float, seed: int) -> tuple[set, set]:
    listed = Captures(capture(m, m, ("stack", *key)) for key in keys for m in ("sar", "rgb"))
    table = PairTable(listed, source="sar", target="rgb", heldout_fraction=fraction, heldout_seed=seed)
    train, held = table.locations("train"), table.locations("heldout")
    assert len(train) + len(held) == len(keys)
    return {location[1:] for location in train}, {location[1:] for location in held}


@settings(max_examples=60, deadline=None)
@given(KEYS, FRACTIONS, st.integers(0, 3))
def test_no_location_is_in_two_splits(keys, fraction, seed):
    train, held = split_of(keys, fraction, seed)
    assert train | held == set(keys)
    assert not train & held
    assert held == held_out(keys, fraction, seed)
    if len(keys) > 1 and 0.0 < fraction < 1.0:
        assert train
        assert held


@settings(max_examples=60, deadline=None)
@given(KEYS, KEYS, FRACTIONS, st.integers(0, 3))
def test_adding_data_moves_no_location(keys, more, fraction, seed):
    """Except the one held out, or kept, only because the hash would leave a side empty."""
    before, after = split_of(keys, fraction, seed)[1], split_of(sorted({*keys, *more}), fraction, seed)[1]
    by_hash = {key for key in keys if is_held_out(key, fraction, seed)}
    moved = before ^ (after & set(keys))
    if 0 < len(by_hash) < len(keys):
        assert before == by_hash
        assert not moved
    else:
        assert len(moved) <= 1


def test_the_held_out_fraction_is_the_requested_one():
    keys = [("Bingham", str(n)) for n in range(4000)]
    for fraction in (0.05, 0.2):
        n_held = len(held_out(keys, fraction))
        assert abs(n_held - 4000 * fraction) < 4 * (4000 * fraction * (1 - fraction)) ** 0.5


def test_both_sides_of_a_split_are_sampled_apart():
    listed = Captures(
        capture(m, f"{m}{n}", ("stack", "Bingham", str(key)))
        for key in range(50)
        for m in ("sar", "rgb")
        for n in range(3)
    )
    table = PairTable(listed, source="sar", target="rgb", heldout_fraction=0.3)
    train, fixed = table.train(draws_per_location=2), table.heldout()
    trained = {train.pair_at(n).location for n in range(2 * len(train))}
    validated = {pair.location for pair in (fixed.pair_at(n) for n in islice(range(1000), len(fixed)))}
    assert trained == set(table.locations("train"))
    assert validated == set(table.locations("heldout"))
    ranks = [held_out_rank(location[1:]) for location in table.locations("heldout")]
    assert ranks == sorted(ranks)  # the first few are a random sample, not the first by name
    assert not trained & validated
