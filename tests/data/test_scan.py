from pathlib import Path

import numpy as np
import pytest
from made_archives import add_flight, add_location, add_tiles, colours, location_in, sar_in, write_tiff

from pbvs.data.scan import IMAGE_COLUMNS, PROBLEM_COLUMNS, scan
from pbvs.errors import DataError, UsageError
from pbvs.pixels import write_png


def kinds(found) -> dict[str, str]:
    return {
        Path(path).name: kind for path, kind in zip(found.problems.path, found.problems.kind, strict=True)
    }


def test_one_row_an_image(tmp_path):
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
    assert sar.n_bytes == (tmp_path / sar.path).stat().st_size
    tile = found.images[found.images.modality == "eo"].iloc[0]
    assert (tile.height_px, tile.bands, tile["dtype"], tile.crs, tile.split) == (32, 1, "uint8", "", "train")


def test_every_fault_is_a_row(tmp_path):
    place = add_location(tmp_path)
    rgb = colours(np.full((8, 8), 100.0))
    (place / "empty_rgb.tif").write_bytes(b"")
    (place / "torn_GEC.tif").write_bytes(b"II*\0 and nothing of a TIFF")
    write_tiff(place / "four_rgb.tif", np.concatenate([rgb, rgb[:, :, :1]], axis=2))
    write_tiff(place / "float_ir.tif", np.ones((8, 8), np.float32))
    write_tiff(place / "nowhere_rgb.tif", rgb, crs=None)
    write_tiff(place / "FLIGHT_20190601_rgb.tif", rgb)
    (place / "._junk_rgb.tif").write_bytes(b"junk")
    found = scan(tmp_path)
    assert kinds(found) == {
        "empty_rgb.tif": "empty",
        "torn_GEC.tif": "unreadable",
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
    told = found.problems.set_index("path").what.to_dict()
    assert told["Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_0.png"] == "EO without its SAR"
    assert told["Train_Data_and_Validation_EO_SAR/SAR/train/Gotcha_1.png"] == "SAR without its EO"
    assert "16 x 32" in told["Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_2.png"]
    assert told["Train_Data_Bingham_SAR_IR_RGB/40.64610_-112.18230"].endswith("no usable sar")


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


def test_progress_counts_every_file(tmp_path):
    add_location(tmp_path)
    told: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_missing_root_is_misuse(tmp_path):
    with pytest.raises(UsageError, match="no such data folder"):
        scan(tmp_path / "nowhere")


def test_other_layout_says_what_was_seen(tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "beach.png").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        scan(tmp_path)
    assert "beach.png, holiday/" in caught.value.what
    assert "Train_Data_<city>_SAR_IR_RGB" in (caught.value.next_step or "")
