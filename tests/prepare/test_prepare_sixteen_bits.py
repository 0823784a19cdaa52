"""The rules by which 16-bit images become 8-bit: their stretches, where recorded, when recomputed."""

import json

import numpy as np
import pytest
from made_archives import add_flight, location_in, write_tiff
from prepared_trees import corrupted, prepared, whole_tree

from pbvs.core.errors import DataError, UsageError
from pbvs.core.pixels import to_uint8
from pbvs.dataset.index import PreparedData
from pbvs.prepare import histograms
from pbvs.prepare.prepare import PrepareRules
from pbvs.prepare.rasters import read_values
from pbvs.prepare.stretch import FULL, stretch_of_histogram

PLACE = "stack/Manhattan/40.64610_-112.18230"
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64) * 8 + 1000
PERCENTILE, OWN = PrepareRules(uint16="percentile"), PrepareRules(uint16="percentile_image")


@pytest.fixture
def archives(tmp_path):
    """A location with one 16-bit SAR, one of 8 bits, and a flight."""
    root = tmp_path / "a"
    place = location_in(root, "Manhattan")
    add_flight(place, "a")
    write_tiff(place / "b_GEC.tif", RAMP)
    write_tiff(place / "c_GEC.tif", (RAMP // 150).astype(np.uint8))
    return root


def sar(out, capture="b_GEC"):
    return read_values(out / PLACE / "sar" / f"{capture}.tif")[:, :, 0]


def index_row(out, capture):
    table = PreparedData.open(out).table
    return table[(table.capture == capture) & (table.modality == "sar")].iloc[0]


def test_full(archives, tmp_path):
    prepared(archives, tmp_path / "out")
    assert np.array_equal(sar(tmp_path / "out"), np.rint(RAMP * (255 / 65535)).astype(np.uint8))
    row = index_row(tmp_path / "out", "b_GEC")
    assert (row.stretch_low, row.stretch_high) == FULL


def test_percentile_has_one_stretch_per_sensor(archives, tmp_path):
    out = tmp_path / "out"
    other = location_in(archives, "Bingham")  # another city, the same sensor
    add_flight(other, "a")
    write_tiff(other / "d_GEC.tif", np.full((64, 64), 60_000, np.uint16))
    write_tiff(other / "e_rgb.tif", np.full((64, 64, 3), 500, np.uint16))
    done = prepared(archives, out, rules=PERCENTILE)
    # 8192 values, half of them 60,000: 1 % is the 82nd smallest.
    low, high = 1000 + 8 * 81, 60_000
    assert done.stretches == {"stack/sar": (low, high), "stack/rgb": (500, 501)}
    assert np.array_equal(sar(out), to_uint8(RAMP, low, high))
    for capture in ("b_GEC", "d_GEC"):
        row = index_row(out, capture)
        assert (row.stretch_low, row.stretch_high) == (low, high)
    assert np.isnan(index_row(out, "c_GEC").stretch_low)
    about = json.loads((out / "prepared.json").read_text())
    assert about["stretches"] == {"stack/sar": [low, high], "stack/rgb": [500, 501]}
    assert about["rules"]["uint16_percent"] == [1, 99]
    assert PreparedData.open(out).stretches("stack") == {"sar": (low, high), "rgb": (500, 501)}
    assert PreparedData.open(out).stretches("eo_sar") == {}


def test_the_percents_can_be_set(archives, tmp_path):
    done = prepared(archives, tmp_path / "out", rules=PrepareRules("percentile", (0, 100)))
    assert done.stretches == {"stack/sar": (1000, 1000 + 8 * 4095)}
    done = prepared(archives, tmp_path / "out", rules=PrepareRules("percentile", (25, 50)))
    assert done.stretches == {"stack/sar": (1000 + 8 * 1023, 1000 + 8 * 2047)}
    assert done.n_made == 1


def test_nodata_does_not_count(archives, tmp_path):
    """Half of a capture is its black border: the stretch is that of the rest."""
    image = RAMP.copy()
    image[:, :32] = 0
    write_tiff(location_in(archives, "Manhattan") / "b_GEC.tif", image)
    done = prepared(archives, tmp_path / "out", rules=PERCENTILE)
    valid = np.sort(RAMP[:, 32:].ravel())
    assert done.stretches["stack/sar"] == (valid[20], valid[2027])  # the 21st and 2028th of 2048


def test_locations_that_are_not_kept_do_not_count(archives, tmp_path):
    out, other = tmp_path / "out", location_in(archives, "Bingham")
    add_flight(other, "a")
    write_tiff(other / "d_GEC.tif", np.full((64, 64), 60_000, np.uint16))
    kept = prepared(archives, out, rules=PERCENTILE, keep_location=lambda key: key[0] == "Manhattan")
    assert kept.stretches == {"stack/sar": (1000 + 8 * 40, 1000 + 8 * 4055)}
    done = prepared(archives, out, rules=PERCENTILE)
    assert (done.stretches_before, done.stretches) == (kept.stretches, {"stack/sar": (1000 + 8 * 81, 60_000)})
    assert (done.n_made, done.n_kept) == (4, 3)  # the other location, and what has 16 bits


def test_percentile_image_has_each_image_its_own(archives, tmp_path):
    out, dark = tmp_path / "out", (RAMP // 16).astype(np.uint16)
    done = prepared(archives, out, rules=OWN)
    first = sar(out)
    write_tiff(location_in(archives, "Manhattan") / "dark_GEC.tif", dark)
    done = prepared(archives, out, rules=OWN)
    assert done.n_made == 1  # one image's stretch does not affect another
    assert np.array_equal(sar(out), first)
    for capture, image in (("b_GEC", RAMP), ("dark_GEC", dark)):
        low, high = np.sort(image.ravel())[[40, 4055]]
        row = index_row(out, capture)
        assert (row.stretch_low, row.stretch_high) == (low, high)
        assert np.array_equal(sar(out, capture), to_uint8(image, low, high))
    assert json.loads((out / "prepared.json").read_text())["stretches"] == {}


def test_the_stretch_is_cached_until_the_files_change(archives, tmp_path, monkeypatch):
    out, read = tmp_path / "out", []
    real = histograms.value_histogram
    monkeypatch.setattr(histograms, "value_histogram", lambda path: (read.append(path.name), real(path))[1])
    prepared(archives, out, rules=PERCENTILE)
    assert read == ["b_GEC.tif"]
    tree = whole_tree(out)
    assert prepared(archives, out, rules=PERCENTILE).n_made == 0
    assert prepared(archives, out, rules=PrepareRules("percentile", (2, 98))).n_made == 1
    assert prepared(archives, out, rules=PERCENTILE).stretches_before == {
        "stack/sar": (1000 + 8 * 81, 1000 + 8 * 4014)
    }
    assert whole_tree(out) == tree
    assert read == ["b_GEC.tif"]
    write_tiff(location_in(archives, "Manhattan") / "bright_GEC.tif", np.full((64, 64), 50_000, np.uint16))
    done = prepared(archives, out, rules=PERCENTILE)
    assert (done.n_made, done.stretches) == (2, {"stack/sar": (1000 + 8 * 81, 50_000)})
    assert done.stretches_before == {"stack/sar": (1000 + 8 * 40, 1000 + 8 * 4055)}
    assert sorted(read) == ["b_GEC.tif", "b_GEC.tif", "bright_GEC.tif"]


def test_an_unreadable_file_does_not_count(archives, tmp_path):
    corrupt = location_in(archives, "Manhattan") / "corrupt_GEC.tif"
    corrupted(write_tiff(corrupt, np.full((64, 64), 50_000, np.uint16)))
    done = prepared(archives, tmp_path / "out", rules=PERCENTILE)
    assert done.stretches == {"stack/sar": (1000 + 8 * 40, 1000 + 8 * 4055)}
    assert [problem.kind for problem in done.problems] == ["unreadable"]


def test_a_file_that_two_ranks_counted_is_an_error():
    hashes = [{"stack/sar": {"a": "1", "b": "2"}}, {"stack/sar": {"c": "3"}}]
    assert histograms._provenance(hashes) == histograms._provenance([hashes[1], hashes[0]])
    with pytest.raises(DataError, match="added or removed"):
        histograms._provenance([*hashes, {"stack/sar": {"a": "1"}}])


def test_rules_change_the_fingerprint_and_only_16_bit_images(archives, tmp_path):
    done = {
        rules.uint16: prepared(archives, tmp_path / rules.uint16, rules=rules)
        for rules in (PrepareRules(), PERCENTILE, OWN)
    }
    assert len({one.fingerprint for one in done.values()}) == 3
    for capture in ("rgb/a", "ir/a", "sar/c_GEC"):
        files = {(one.out / PLACE / f"{capture}.tif").read_bytes() for one in done.values()}
        assert len(files) == 1


def test_stretch_of_a_histogram():
    counts = np.zeros(65536, np.int64)
    assert stretch_of_histogram(counts) == FULL
    counts[500] = 10
    assert stretch_of_histogram(counts) == (500.0, 501.0)
    counts[:] = 0
    counts[1:201] = 1
    assert stretch_of_histogram(counts) == (2.0, 198.0)
    assert stretch_of_histogram(counts, (0.0, 100.0)) == (1.0, 200.0)


@pytest.mark.parametrize("percent", [(99.0, 1.0), (1.0, 1.0), (-1.0, 99.0), (1.0, 101.0)])
def test_percents_out_of_range(percent):
    with pytest.raises(UsageError, match="0 <= low < high <= 100"):
        PrepareRules(uint16_percent=percent)
