"""Opening a prepared folder: its faults, the overlap of two captures, the split of its locations."""

import csv

import numpy as np
import pytest
from made_archives import add_flight, add_location, add_tiles, affine, location_in, write_tiff
from prepared_trees import prepared, whole_tree

from pbvs.core.errors import DataError, UsageError
from pbvs.dataset.index import PreparedData, held_out, held_out_rank, is_held_out
from pbvs.dataset.splits import SPLIT_COLUMNS, split_report
from pbvs.prepare import overlaps
from pbvs.prepare.prepare import PrepareRules
from pbvs.prepare.rasters import read_valid

GRAY = np.full((64, 64), 90, np.uint8)


def shifted(east_m=0.0, north_m=0.0):
    return affine(1.0, (400_000.0 + east_m, 4_500_000.0 + north_m))


@pytest.fixture
def partly(tmp_path):
    """A location with partial captures: SAR covers its east, IR its west, one RGB its south."""
    folder = location_in(tmp_path / "a")
    add_flight(folder, "whole")
    write_tiff(folder / "east.tif", GRAY, where=shifted(east_m=16))
    write_tiff(folder / "more_east.tif", GRAY, where=shifted(east_m=24))
    write_tiff(folder / "west_ir.tif", GRAY, where=shifted(east_m=-24))
    write_tiff(folder / "y_south_rgb.tif", np.dstack([GRAY] * 3), where=shifted(north_m=-8))
    return tmp_path / "a"


def by_name(data):
    listed = [one for modality in ("sar", "rgb", "ir") for one in data.listed("stack", modality)]
    return {f"{one.modality}/{one.capture}": one for one in listed}


def test_opening_what_is_not_prepared(archives, tmp_path):
    with pytest.raises(UsageError, match="no such data folder"):
        PreparedData.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no prepared data but Train_Data") as caught:
        PreparedData.open(archives)
    assert "pbvs data prepare" in (caught.value.next_step or "")
    prepared(archives, tmp_path / "out")
    index = tmp_path / "out/index.csv"
    text = index.read_text()
    index.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="lists no image"):
        PreparedData.open(tmp_path / "out")
    index.write_text(text.replace("valid_fraction", "valid"))
    with pytest.raises(DataError):
        PreparedData.open(tmp_path / "out")
    index.write_text(text)
    about = tmp_path / "out/prepared.json"
    about.write_text(about.read_text().replace('"schema": 2', '"schema": 1'))
    with pytest.raises(DataError, match="another version"):
        PreparedData.open(tmp_path / "out")


# ---- overlap of two captures


def test_the_joint_fraction_of_every_pair_matches_the_masks(partly, tmp_path):
    prepared(partly, tmp_path / "out")
    data = PreparedData.open(tmp_path / "out")
    captures = by_name(data)
    assert len(captures) == 6
    for a in captures.values():
        for b in captures.values():
            if a.modality != b.modality:
                expected = (read_valid(a.path) & read_valid(b.path)).mean()
                assert data.joint_fraction(a, b) == pytest.approx(expected, abs=2e-6)
    assert data.joint_fraction(captures["sar/east"], captures["ir/west"]) == 24 / 64
    assert data.joint_fraction(captures["sar/east"], captures["ir/whole"]) == 48 / 64


def test_joint_fraction_of_what_is_no_pair(partly, archives, tmp_path):
    prepared(partly, tmp_path / "out")
    data = PreparedData.open(tmp_path / "out")
    captures = by_name(data)
    with pytest.raises(UsageError, match="of one modality"):
        data.joint_fraction(captures["sar/east"], captures["sar/more_east"])
    assert data.joint_fraction(captures["sar/east"], captures["sar/east"]) == 48 / 64
    prepared(archives, tmp_path / "other")
    elsewhere = PreparedData.open(tmp_path / "other").listed("eo_sar", "sar")[0]
    with pytest.raises(UsageError, match="two locations"):
        data.joint_fraction(captures["sar/east"], elsewhere)
    (tmp_path / "out/overlaps.csv").unlink()
    with pytest.raises(DataError, match="is missing") as caught:
        PreparedData.open(tmp_path / "out").joint_fraction(captures["sar/east"], captures["ir/west"])
    assert "pbvs data prepare" in (caught.value.next_step or "")
    (tmp_path / "out/overlaps.csv").write_text("path_a,path_b\n1,2\n")
    with pytest.raises(DataError, match="cannot be read"):
        PreparedData.open(tmp_path / "out").joint_fraction(captures["sar/east"], captures["ir/west"])


def test_pairs_that_overlap_too_little_are_problems(partly, tmp_path):
    done = prepared(partly, tmp_path / "out")
    folder = "Train_Data_Bingham_SAR_IR_RGB/40.64610_-112.18230"
    found = [(p.path, p.what) for p in done.problems if p.kind == "overlap"]
    assert found == [
        (f"{folder}/west_ir.tif", f"is valid on {part} of its location together with {sar}, less than 50 %")
        for part, sar in (("25.0 %", "more_east.tif"), ("37.5 %", "east.tif"))
    ]
    looser = prepared(partly, tmp_path / "out", rules=PrepareRules(min_overlap=0.3))
    assert [p.what[:18] for p in looser.problems if p.kind == "overlap"] == ["is valid on 25.0 %"]
    assert looser.n_made == 0


def test_masks_are_read_only_of_changed_locations(partly, tmp_path, monkeypatch):
    out, read = tmp_path / "out", []
    real = overlaps.read_valid
    monkeypatch.setattr(
        overlaps, "read_valid", lambda path, box: (read.append(path.stem), real(path, box))[1]
    )
    add_location(partly, name="1.0_2.0")  # fully valid: never read
    prepared(partly, out)
    assert sorted(read) == ["east", "more_east", "west", "y_south"]
    tree = whole_tree(out)
    prepared(partly, out)
    assert len(read) == 4
    assert whole_tree(out) == tree
    write_tiff(location_in(partly) / "west_ir.tif", GRAY, where=shifted(east_m=-20))
    prepared(partly, out)
    assert len(read) == 8
    with (out / "overlaps.csv").open(newline="") as stream:
        fractions = {row["path_a"] + row["path_b"]: row["joint_fraction"] for row in csv.DictReader(stream)}
    folder = "stack/Bingham/40.64610_-112.18230"
    assert float(fractions[f"{folder}/ir/west.tif{folder}/sar/east.tif"]) == 28 / 64


def test_masks_are_counted_strip_by_strip(partly, tmp_path, monkeypatch):
    prepared(partly, tmp_path / "once")
    monkeypatch.setattr(overlaps, "_STRIP_PX", 64 * 4 * 5)  # five rows of four masks
    prepared(partly, tmp_path / "strips")
    assert whole_tree(tmp_path / "once") == whole_tree(tmp_path / "strips")


# ---- splits


def test_the_report_counts_what_the_hash_holds_out(tmp_path):
    root = tmp_path / "a"
    for i in range(6):
        add_location(root, "Bingham" if i < 4 else "Manhattan", f"{i}.0_2.0", flights=1 + i % 2)
    prepared(root, tmp_path / "out")
    data = PreparedData.open(tmp_path / "out")
    report = split_report(data, 0.5).set_index(["family", "city"])
    assert list(report.index) == [("stack", "Bingham"), ("stack", "Manhattan"), ("stack", "all")]
    keys = data.table[["city", "location"]].drop_duplicates().itertuples(index=False, name=None)
    held_keys = {key for key in keys if is_held_out(key, 0.5)}
    assert 0 < len(held_keys) < 6
    for city in ("Bingham", "Manhattan"):
        rows = data.table[data.table.city == city]
        held = rows[[key in held_keys for key in zip(rows.city, rows.location, strict=True)]]
        row = report.loc["stack", city]
        assert row.held_out == held.location.nunique()
        assert row.train + row.held_out == row.locations == rows.location.nunique()
        assert (row.held_out_captures, row.train_captures) == (len(held), len(rows) - len(held))
    assert report.loc["stack", "all"].tolist() == report.loc["stack"].iloc[:2].sum().tolist()


def test_the_report_has_the_archives_own_validation(tmp_path):
    root = tmp_path / "a"
    add_tiles(root, n=5)
    add_tiles(root, n=2, split="validation")
    prepared(root, tmp_path / "out")
    report = split_report(PreparedData.open(tmp_path / "out"), 0.9)
    assert report.to_numpy().tolist() == [["eo_sar", "", 7, 5, 2, 10, 4]]
    assert tuple(report.columns) == SPLIT_COLUMNS


def test_a_fraction_out_of_range(archives, tmp_path):
    prepared(archives, tmp_path / "out")
    with pytest.raises(UsageError, match=r"must be in \[0,1\]"):
        split_report(PreparedData.open(tmp_path / "out"), 1.5)


def test_adding_data_moves_only_the_stand_in_of_the_hash():
    keys = [("Bingham", str(i)) for i in range(400)]
    few = [key for key in keys if not is_held_out(key, 0.05)][:3]
    stand_in = held_out(few, 0.05)
    assert stand_in == {min(few, key=held_out_rank)}
    assert held_out(keys, 0.05) == {key for key in keys if is_held_out(key, 0.05)}
    more = held_out(keys[:200], 0.05)
    assert more <= held_out(keys, 0.05)
    assert not stand_in & held_out(keys, 0.05)
