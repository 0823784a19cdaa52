import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from made_archives import add_flight, add_location, add_tiles, colours, location_in, sar_in, write_tiff
from rasterio.transform import Affine

from pbvs.archives.headers import Header, HeaderReader
from pbvs.archives.layouts import Entry
from pbvs.archives.scan import IMAGE_COLUMNS, PROBLEM_COLUMNS, scan
from pbvs.core.errors import DataError, UsageError
from pbvs.core.pixels import write_png


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The folder for caches: one for each test."""
    folder = tmp_path_factory.mktemp("cache") / "pbvs"
    monkeypatch.setenv("PBVS_CACHE", str(folder))
    return folder


def kinds(found) -> dict[str, str]:
    return {
        Path(path).name: kind for path, kind in zip(found.problems.path, found.problems.kind, strict=True)
    }


def test_one_row_per_image(tmp_path):
    add_location(tmp_path, flights=2)
    add_tiles(tmp_path, n=2)
    found = scan(tmp_path)
    assert tuple(found.images.columns) == IMAGE_COLUMNS
    assert tuple(found.problems.columns) == PROBLEM_COLUMNS
    assert len(found.images) == 5 + 4
    assert found.problems.empty
    assert list(found.images.path) == sorted(found.images.path)
    sar = found.images[(found.images.modality == "sar") & (found.images.family == "stack")].iloc[0]
    assert (sar.crs, sar.nodata, sar.bands, sar["dtype"], sar.taken) == (
        "EPSG:32612",
        0.0,
        1,
        "uint8",
        "2019-06-11",
    )
    assert (sar.height_px, sar.width_px) == (96, 96)
    with rasterio.open(tmp_path / sar.path) as dataset:
        assert Affine(*map(float, sar["transform"].split())) == dataset.transform
    assert sar.n_bytes == (tmp_path / sar.path).stat().st_size
    tile = found.images[found.images.modality == "eo"].iloc[0]
    assert (tile.height_px, tile.bands, tile["dtype"], tile.crs, tile.split) == (32, 1, "uint8", "", "train")
    assert tile["transform"] == ""


def test_every_fault_is_a_row(tmp_path):
    place = add_location(tmp_path)
    rgb = colours(np.full((8, 8), 100.0))
    (place / "empty_rgb.tif").write_bytes(b"")
    (place / "corrupt_GEC.tif").write_bytes(b"II*\0 and nothing of a TIFF")
    write_tiff(place / "four_rgb.tif", np.concatenate([rgb, rgb[:, :, :1]], axis=2))
    write_tiff(place / "float_ir.tif", np.ones((8, 8), np.float32))
    write_tiff(place / "nowhere_rgb.tif", rgb, crs=None)
    write_tiff(place / "FLIGHT_20190601_rgb.tif", rgb)
    (place / "._junk_rgb.tif").write_bytes(b"junk")
    found = scan(tmp_path)
    assert kinds(found) == {
        "empty_rgb.tif": "empty",
        "corrupt_GEC.tif": "unreadable",
        "four_rgb.tif": "bands",
        "float_ir.tif": "dtype",
        "nowhere_rgb.tif": "no_crs",
        "flight_20190601_rgb.tiff": "duplicate",
        "": "litter",
    }
    assert found.images.usable.sum() == 3
    assert len(found.images) == 9


def test_gaps_between_modalities(tmp_path):
    place = location_in(tmp_path)
    add_flight(place, "only")
    add_tiles(tmp_path, n=3)
    tiles = tmp_path / "Train_Data_and_Validation_EO_SAR"
    (tiles / "SAR/train/Gotcha_0.png").unlink()
    (tiles / "EO/train/Gotcha_1.png").unlink()
    write_png(tiles / "EO/train/Gotcha_2.png", np.zeros((16, 32, 1), np.uint8))
    found = scan(tmp_path)
    problems = found.problems.set_index("path").what.to_dict()
    assert problems["Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_0.png"] == "EO without its SAR"
    assert problems["Train_Data_and_Validation_EO_SAR/SAR/train/Gotcha_1.png"] == "SAR without its EO"
    assert "16 x 32" in problems["Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_2.png"]
    assert problems["Train_Data_Bingham_SAR_IR_RGB/40.64610_-112.18230"].endswith("no usable sar")


def test_summary_and_pairable(tmp_path):
    add_location(tmp_path, name="1.0_2.0", flights=1)
    add_location(tmp_path, name="1.0_3.0", flights=3)
    add_flight(location_in(tmp_path, name="1.0_4.0"), "x", size=32)
    sar_in(location_in(tmp_path, city="Manhattan") / "a.tif", scale=40.0)
    add_tiles(tmp_path, n=2)
    found = scan(tmp_path)
    rows = found.summary().set_index(["city", "modality"])
    assert rows.loc[("Bingham", "rgb"), "images"] == 5
    assert rows.loc[("Bingham", "rgb"), "captures_per_location"] == "1 to 3"
    assert rows.loc[("Bingham", "rgb"), "sizes_px"] == "32x32 to 64x64"
    assert rows.loc[("Manhattan", "sar"), "dtypes"] == "uint16 1"
    pairable = found.pairable().set_index(["source", "target"]).locations
    assert pairable.to_dict() == {("sar", "eo"): 2, ("sar", "rgb"): 2, ("rgb", "ir"): 3, ("sar", "ir"): 2}


def test_pairs_are_the_combinations_of_a_location(tmp_path):
    place = add_location(tmp_path, name="1.0_2.0", flights=3)  # 1 SAR, 3 RGB, 3 IR
    sar_in(place / "other_GEC.tif")
    add_location(tmp_path, city="Manhattan", name="1.0_2.0", flights=1)  # the same name, another place
    (place / "flight_20190601_ir.tif").write_bytes(b"")  # not usable: makes no pair
    (location_in(tmp_path, name="1.0_3.0")).mkdir()
    sar_in(location_in(tmp_path, name="1.0_3.0") / "lone.tif")
    add_tiles(tmp_path, n=3)
    add_tiles(tmp_path, n=2, split="validation")
    (tmp_path / "Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_1.png").unlink()
    pairable = scan(tmp_path).pairable()
    assert list(pairable.columns) == ["source", "target", "family", "locations", "pairs"]
    assert [tuple(row) for row in pairable.itertuples(index=False)] == [
        ("sar", "eo", "eo_sar", 4, 4),
        ("sar", "rgb", "stack", 2, 2 * 3 + 1),
        ("rgb", "ir", "stack", 2, 3 * 2 + 1),
        ("sar", "ir", "stack", 2, 2 * 2 + 1),
    ]


def test_data_without_pairs_has_none(tmp_path):
    sar_in(location_in(tmp_path) / "lone.tif")
    assert scan(tmp_path).pairable().pairs.tolist() == [0, 0, 0, 0]
    (location_in(tmp_path) / "lone.tif").write_bytes(b"")
    found = scan(tmp_path)
    assert found.pairable().pairs.tolist() == [0, 0, 0, 0]
    assert found.summary().empty


def test_progress_counts_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr("pbvs.archives.scan._CHUNK", 2)
    add_location(tmp_path, flights=2)
    calls: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_an_interrupted_scan_does_not_go_on_with_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("pbvs.archives.scan._CHUNK", 1)
    monkeypatch.setattr("pbvs.archives.scan._N_THREADS", 1)
    add_tiles(tmp_path, n=30)
    read: list[str] = []

    def slow(path, has_sidecar):
        read.append(path)
        time.sleep(0.01)
        return Header(4, 4, 1, "uint8")

    def interrupt(done, total):
        if done > 1:  # the first, slow, is read before there are threads
            raise KeyboardInterrupt

    monkeypatch.setattr("pbvs.archives.scan.HeaderReader.read", lambda self, *args: slow(*args))
    with pytest.raises(KeyboardInterrupt):
        scan(tmp_path, progress=interrupt, cache=False)
    assert len(read) < 20


def test_threads_read_once_files_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("pbvs.archives.scan._CHUNK", 1)
    add_tiles(tmp_path, n=10)
    expected = scan(tmp_path, cache=False)
    in_main_thread: list[bool] = []
    read = HeaderReader.read

    def waiting(self, path, has_sidecar):
        in_main_thread.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.01)
        return read(self, path, has_sidecar)

    monkeypatch.setattr(HeaderReader, "read", waiting)
    found = scan(tmp_path, cache=False)
    pd.testing.assert_frame_equal(found.images, expected.images)
    assert in_main_thread == [True] + [False] * 19


def test_another_layout_is_scanned_the_same_way(tmp_path):
    write_tiff(tmp_path / "flat" / "7.sar.tif", np.zeros((4, 5), np.uint8))
    write_tiff(tmp_path / "flat" / "7.rgb.tif", np.zeros((4, 5), np.uint8))

    def flat_entries(folder):
        for name in folder.names:
            location, modality, _ = name.split(".")
            yield Entry("stack", "Utah", location, modality, "x", False, "", folder.file(name), "train")

    found = scan(tmp_path, layouts=[flat_entries])
    assert list(zip(found.images.modality, found.images.width_px, found.images.usable, strict=True)) == [
        ("rgb", 5, False),
        ("sar", 5, True),
    ]
    assert kinds(found) == {"7.rgb.tif": "bands", "flat": "missing_modality"}
    with pytest.raises(DataError):
        scan(tmp_path)


# ---- the command


def test_command_prints_the_pairs_and_writes_the_table(tmp_path, pbvs):
    add_location(tmp_path / "in", flights=2)
    result = pbvs("data", "scan", tmp_path / "in", "--out", tmp_path / "table.csv", "--no-cache")
    assert result.code == 0
    (row,) = [line for line in result.out.splitlines() if "│ sar " in line and "│ ir " in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["sar", "ir", "stack", "1", "2"]
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(table.columns) == list(IMAGE_COLUMNS)
    assert len(table) == 5


def test_command_gives_plain_json(tmp_path, pbvs):
    place = add_location(tmp_path)
    write_tiff(place / "float_ir.tif", np.full((8, 8), np.nan, np.float32), nodata=float("nan"))
    result = pbvs("data", "scan", tmp_path, "--json")

    def no_number(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(result.out, parse_constant=no_number)
    assert {name: len(rows) for name, rows in found.items()} == {
        "images": 4,
        "problems": 1,
        "summary": 3,
        "pairable": 4,
    }
    rgb = next(row for row in found["images"] if row["modality"] == "rgb")
    assert (rgb["nodata"], rgb["height_px"], rgb["usable"], rgb["taken"]) == (None, 64, True, "2019-06-01")


def test_command_without_cache_leaves_none(tmp_path, pbvs, cache):
    add_location(tmp_path)
    for path in tmp_path.rglob("*.tif*"):
        os.utime(path, (1e9, 1e9))
    pbvs("data", "scan", tmp_path, "--no-cache")
    assert not cache.exists()
    pbvs("data", "scan", tmp_path)
    assert len([p for p in cache.rglob("*") if p.is_file()]) == 1


def test_missing_root_is_misuse(tmp_path):
    with pytest.raises(UsageError, match="no such data folder"):
        scan(tmp_path / "nowhere")


def test_other_layout_says_what_was_found(tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "beach.png").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        scan(tmp_path)
    assert "beach.png, holiday/" in caught.value.what
    assert "Train_Data_<city>_SAR_IR_RGB" in (caught.value.next_step or "")
