from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_archives import add_flight, add_location, add_tiles, affine, location_in, sar_in, write_tiff
from made_captures import Captures, capture

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import DataError, UsageError
from pbvs.dataset.index import PreparedData, held_out, held_out_rank, is_held_out
from pbvs.dataset.pairs import PairTable, RandomPairs, ValidationPairs, days_apart
from pbvs.prepare.prepare import PrepareRules, prepare


def ready(root: Path, out: Path, min_overlap: float = 0.5) -> PreparedData:
    rules = PrepareRules(min_overlap=min_overlap)
    prepare(root, out, modalities=MODALITIES, families=FAMILIES, size_px=None, rules=rules)
    return PreparedData.open(out)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five locations; the first two have four flights, the others one."""
    root = tmp_path_factory.mktemp("pairs")
    for n in range(5):
        add_location(root / "a", name=f"1.0_{n}.0", flights=4 if n < 2 else 1)
    sar_in(location_in(root / "a", name="1.0_0.0") / "20220105_GEC.tif")
    return ready(root / "a", root / "out")


def table(data: PreparedData, **options) -> PairTable:
    defaults = {"source": "sar", "target": "rgb", "heldout_fraction": 0.0}
    return PairTable(data, **(defaults | options))


def draws(data: PreparedData, draws_per_location: int = 1, seed: int = 0, **options) -> RandomPairs:
    return table(data, **options).train(draws_per_location=draws_per_location, seed=seed)


def heldout(data: PreparedData, **options) -> ValidationPairs:
    return table(data, **options).heldout()


def test_an_epoch_visits_each_location_equally_often(data):
    some = draws(data, draws_per_location=3)
    assert len(some) == 15
    for epoch in range(3):
        counts = Counter(some.pair_at(epoch * 15 + n).location for n in range(15))
        assert list(counts.values()) == [3] * 5


def test_epochs_differ_and_captures_vary(data):
    some = draws(data)
    orders = [tuple(some.pair_at(e * 5 + n).location for n in range(5)) for e in range(4)]
    assert len(set(orders)) > 1
    first = ("stack", "Bingham", "1.0_0.0")
    pairs = [p for p in (some.pair_at(n) for n in range(4000)) if p.location == first]
    chosen = Counter((p.source.capture, p.target.capture) for p in pairs)
    assert len(chosen) == 2 * 4  # every SAR with every flight, equally often
    assert min(chosen.values()) > 60  # of 100 expected
    assert max(chosen.values()) < 140


def test_a_pair_depends_on_its_position_alone(data):
    forwards = [draws(data).pair_at(n).name for n in range(20)]
    other = draws(data)
    assert [other.pair_at(n).name for n in reversed(range(20))] == forwards[::-1]
    assert [draws(data, seed=1).pair_at(n).name for n in range(20)] != forwards


def test_names_and_files(data):
    pair = draws(data, source="rgb", target="ir", pairing="same_capture").pair_at(0)
    city, location, captures = pair.name.split("/")
    assert (city, location) == pair.location[1:]
    assert captures == f"{pair.source.capture}>{pair.source.capture}"
    assert pair.source.path.is_file()
    assert pair.target.path.is_file()


def test_same_capture_pairs_rgb_with_its_own_ir(data):
    some = draws(data, source="rgb", target="ir", pairing="same_capture")
    pairs = [some.pair_at(n) for n in range(60)]
    assert all(p.source.capture == p.target.capture for p in pairs)
    assert len({p.source.capture for p in pairs}) == 4


def test_nearest_time(data):
    some = draws(data, pairing="nearest_time")
    pairs = {
        p.source.acquired_at: p.target.acquired_at
        for p in (some.pair_at(n) for n in range(200))
        if p.location[2] == "1.0_0.0"
    }
    assert pairs == {"2019-06-11": "2019-06-01", "2022-01-05": "2022-06-01"}


@pytest.mark.parametrize(
    ("a", "b", "days"),
    [
        ("2020-11-04", "2020-11-04", 0),
        ("2020-11-04", "2020-11-07", 3),
        ("2020-11-04T16:00:00", "2020-11-04T22:00:00", 0.25),
        ("2020-11-04T23:00:00", "2020-11-05T01:00:00", 2 / 24),  # over midnight
        ("2020-11-04T18:00:00", "2020-11-04", 0.25),  # a date alone is its noon
        ("2020-11-04T00:00:30", "2020-11-04T00:00:00", 30 / 86_400),
        ("", "2020-11-04", float("inf")),
        ("", "", float("inf")),
    ],
)
def test_days_apart(a, b, days):
    one, other = capture("sar", "x", acquired_at=a), capture("rgb", "y", acquired_at=b)
    assert days_apart(one, other) == days_apart(other, one) == pytest.approx(days)


def partners(data: Captures, pairing: str) -> dict[str, set[str]]:
    some = table(data, pairing=pairing).train()
    pairs = [some.pair_at(n) for n in range(300)]
    return {
        a: {p.target.capture for p in pairs if p.source.capture == a}
        for a in sorted({p.source.capture for p in pairs})
    }


def test_nearest_time_goes_by_the_time_of_day():
    sar = [
        capture("sar", "late", acquired_at="2020-11-04T22:00:00"),
        capture("sar", "early", acquired_at="2020-11-05T09:00:00"),
    ]
    rgb = [
        capture("rgb", "morning", acquired_at="2020-11-04T09:00:00"),
        capture("rgb", "night", acquired_at="2020-11-05T03:00:00"),
        capture("rgb", "night2", acquired_at="2020-11-05T03:00:00"),
        capture("rgb", "day", acquired_at="2020-11-05"),
        capture("rgb", "undated"),
    ]
    assert partners(Captures([*sar, *rgb]), "nearest_time") == {"late": {"night", "night2"}, "early": {"day"}}


def test_the_nearest_time_is_that_of_the_pairs_which_overlap():
    sar = [capture("sar", "a", acquired_at="2020-11-04")]
    rgb = [
        capture("rgb", "same day", acquired_at="2020-11-04"),
        capture("rgb", "later", acquired_at="2020-11-09"),
    ]
    data = Captures([*sar, *rgb], {("a", "same day"): 0.2})
    assert partners(data, "nearest_time") == {"a": {"later"}}
    left_out = table(data).left_out
    assert left_out.target.tolist() == ["same day"]


def test_a_source_without_partners_is_never_drawn_and_the_others_alike():
    sar = [capture("sar", name) for name in "abc"]
    rgb = [capture("rgb", name) for name in "xyz"]
    overlaps = {("a", name): 0.1 for name in "xyz"} | {("b", "y"): 0.1, ("b", "z"): 0.1}
    data = Captures([*sar, *rgb], overlaps)
    assert partners(data, "random") == {"b": {"x"}, "c": {"x", "y", "z"}}
    some = table(data).train()
    chosen = Counter(some.pair_at(n).source.capture for n in range(2000))
    assert abs(chosen["b"] - 1000) < 100  # 4.5 sigma; by pairs it would be 500


def test_captures_without_a_date_come_last(tmp_path):
    folder = add_location(tmp_path / "a")
    add_flight(folder, "mosiac")  # mosiac_rgb.tiff, mosiac_ir.tif: no date
    some = draws(ready(tmp_path / "a", tmp_path / "out"), pairing="nearest_time")
    assert {some.pair_at(n).target.capture for n in range(20)} == {"flight_20190601"}
    mosaics = draws(
        some_data := PreparedData.open(tmp_path / "out"), source="rgb", target="ir", pairing="same_capture"
    )
    assert {mosaics.pair_at(n).name.rsplit("/", 1)[1] for n in range(20)} == {
        "mosaic>mosaic",
        "flight_20190601>flight_20190601",
    }
    assert heldout(some_data, heldout_fraction=1.0).pair_at(0).target.mosaic


def test_held_out_locations_are_apart_and_fixed(data):
    both = table(data, heldout_fraction=0.4)
    train, held = both.locations("train"), both.locations("heldout")
    assert set(train).isdisjoint(held)
    assert len(train) + len(held) == 5
    by_hash = held_out([location[1:] for location in train + held], 0.4)
    assert set(held) == {("stack", *key) for key in by_hash}
    assert held == sorted(held, key=lambda location: held_out_rank(location[1:]))
    assert {both.train().pair_at(n).location for n in range(30)} == set(train)
    other_task = table(data, source="rgb", target="ir", heldout_fraction=0.4)
    assert other_task.locations("heldout") == held


def test_a_held_out_location_has_one_fixed_pair(data):
    fixed = heldout(data, heldout_fraction=1.0)
    assert len(fixed) == 5
    names = [fixed.pair_at(n).name for n in range(5)]
    assert [fixed.pair_at(n + 5).name for n in range(5)] == names
    assert "Bingham/1.0_0.0/20190611_UMBRA_GEC>flight_20190601" in names


def test_adding_locations_moves_none():
    some = [("Bingham", f"{n}.0_1.0") for n in range(300)]
    more = some + [("Manhattan", f"{n}.0_1.0") for n in range(300)]
    held = held_out(some, 0.2)
    assert held == held_out(more, 0.2) & set(some)
    assert len(held) == pytest.approx(60, abs=25)
    assert all(is_held_out(key, 0.2) for key in held)
    assert held_out(some, 0.2, seed=1) != held
    # Pinned so that no later version moves a location: SHA-256 of "0\nBingham\n0.0_1.0".
    assert held_out_rank(some[0]) == pytest.approx(0.9606477861, abs=1e-9)


def test_few_locations_still_give_both_splits():
    keys = [("", "a"), ("", "b")]
    assert [len(held_out(keys, fraction)) for fraction in (0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)] == [
        0,
        1,
        1,
        1,
        2,
    ]
    assert held_out(keys[:1], 0.01) <= set(keys[:1])


def test_the_archives_own_validation_tiles_are_held_out(tmp_path):
    add_tiles(tmp_path / "a", n=4)
    add_tiles(tmp_path / "a", n=2, split="validation")
    data = ready(tmp_path / "a", tmp_path / "out")
    both = table(data, target="eo", heldout_fraction=0.5)
    assert sorted(both.locations("heldout")) == [("eo_sar", "", f"validation-Gotcha_{n}") for n in range(2)]
    assert len(both.train()) == 4
    assert both.train().pair_at(0).name.startswith("train-Gotcha_")


def test_pairs_of_little_overlap_are_left_out(tmp_path):
    folder = location_in(tmp_path / "a")
    add_flight(folder, "full")
    flat = np.full((64, 64), 90, np.uint8)
    write_tiff(folder / "west.tif", flat, where=affine(1.0, (400_000.0 - 24, 4_500_000.0)))  # columns 0 to 39
    write_tiff(folder / "east_ir.tif", flat, where=affine(1.0, (400_000.0 + 16, 4_500_000.0)))  # 16 to 63
    data = ready(tmp_path / "a", tmp_path / "out")
    some = table(data, source="sar", target="ir")
    assert {some.train().pair_at(n).name.rsplit("/", 1)[1] for n in range(10)} == {"west>full"}
    row = some.left_out.iloc[0]
    assert (row.source, row.target, row.joint_fraction) == ("west", "east", 24 / 64)
    assert len(table(data, source="sar", target="ir", min_overlap=0.3).left_out) == 0
    with pytest.raises(DataError, match="2 pairs overlap too little"):
        table(data, source="sar", target="ir", min_overlap=0.9)


def test_the_least_overlap_is_enough():
    listed = [capture("sar", "a"), *(capture("rgb", name) for name in "xy")]
    some = table(Captures(listed, {("a", "x"): 0.5, ("a", "y"): 0.499999}))
    assert {some.train().pair_at(n).target.capture for n in range(20)} == {"x"}
    assert some.left_out.values.tolist() == [["stack", "Bingham", "1.0_1.0", "a", "y", 0.499999]]


def test_no_pairs_says_what_is_missing_where(data):
    with pytest.raises(DataError) as caught:
        draws(data, target="eo")
    assert "eo_sar: sar at 0 locations, eo at 0; stack: sar at 5 locations, eo at 0" in caught.value.what
    with pytest.raises(DataError, match="no location is left for the split 'train'"):
        draws(data, heldout_fraction=1.0)
    with pytest.raises(DataError, match="no location is left for the split 'heldout'"):
        heldout(data)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"source": "sra"}, {"pairing": "nearest"}, {"draws_per_location": 0}, {"seed": -1}),
        *({"min_overlap": 1.5}, {"heldout_fraction": -0.1}),
    ],
)
def test_misuse(data, wrong):
    with pytest.raises(UsageError):
        draws(data, **wrong)
