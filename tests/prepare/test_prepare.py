import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from made_archives import (
    BASE_CRS,
    add_flight,
    add_location,
    affine,
    colours,
    ground,
    infrared,
    location_in,
    write_tiff,
)
from prepared_trees import prepared, problem_kinds, whole_tree

from pbvs.core.errors import DataError, UsageError
from pbvs.core.pixels import read_image, write_png
from pbvs.dataset.index import PreparedData
from pbvs.prepare.prepare import PrepareRules
from pbvs.prepare.rasters import read_valid, read_values


def test_captures_land_on_the_first_rgb(archives, tmp_path):
    out = tmp_path / "out"
    done = prepared(archives, out)
    assert (done.n_images, done.n_made, done.n_kept, done.problems) == (9, 9, 0, [])
    place = out / "stack/Bingham/40.64610_-112.18230"
    sar = place / "sar/20190611_UMBRA_GEC.tif"
    with rasterio.open(sar) as dataset:
        assert dataset.crs.to_string() == BASE_CRS
        assert dataset.transform == affine()
        assert (dataset.shape, dataset.dtypes, dataset.compression.name) == ((64, 64), ("uint8",), "deflate")
    wanted = ground((64, 64), BASE_CRS, affine())
    assert np.abs(read_values(sar)[:, :, 0] - wanted).max() < 3
    source = location_in(archives) / "flight_20190601_rgb.tiff"
    assert np.array_equal(read_values(place / "rgb/flight_20190601.tif"), read_image(source))


def test_rgb_and_ir_on_the_grid_keep_their_relation_exactly(archives, tmp_path):
    out = tmp_path / "out"
    prepared(archives, out)
    for capture in ("flight_20190601", "flight_20200601"):
        rgb, ir = (
            read_values(out / f"stack/Bingham/40.64610_-112.18230/{m}/{capture}.tif") for m in ("rgb", "ir")
        )
        assert np.array_equal(ir[:, :, 0], infrared(rgb))


def test_the_mosaic_is_the_grid_where_there_is_one(archives, tmp_path):
    where = affine(2.0, (400_010.0, 4_499_990.0))
    mosaic = colours(ground((20, 24), BASE_CRS, where))
    write_tiff(location_in(archives) / "mosiac_rgb.tif", mosaic, where=where)
    prepared(archives, tmp_path / "out")
    data = PreparedData.open(tmp_path / "out")
    stack = data.table[data.table.family == "stack"]
    assert set(zip(stack.height_px, stack.width_px, strict=True)) == {(20, 24)}
    row = stack[stack.mosaic].iloc[0]
    assert (row.modality, row.capture) == ("rgb", "mosaic")
    assert np.array_equal(read_values(data.root / row.path), mosaic)
    flight = read_values(data.root / "stack/Bingham/40.64610_-112.18230/rgb/flight_20190601.tif")
    assert np.abs(flight.astype(int) - mosaic).max() <= 2


def test_size_px_and_tiles(archives, tmp_path):
    prepared(archives, tmp_path / "out", size_px=(40, 48))
    table = PreparedData.open(tmp_path / "out").table
    sizes = table.groupby("family")[["height_px", "width_px"]].agg(lambda column: set(column))
    assert sizes.loc["stack"].tolist() == [{40}, {48}]
    assert sizes.loc["eo_sar"].tolist() == [{32}, {32}]
    tile = read_values(tmp_path / "out/eo_sar/tiles/train/sar/Gotcha_1.tif")
    assert np.array_equal(
        tile, read_image(archives / "Train_Data_and_Validation_EO_SAR/SAR/train/Gotcha_1.png")
    )


def test_the_index_describes_each_capture(archives, tmp_path):
    prepared(archives, tmp_path / "out")
    table = PreparedData.open(tmp_path / "out").table
    row = table[(table.modality == "ir") & (table.capture == "flight_20200601")].iloc[0]
    assert (row.city, row.location, row.taken, row.split) == (
        "Bingham",
        "40.64610_-112.18230",
        "2020-06-01",
        "train",
    )
    assert row.valid_fraction == 1.0
    assert (archives / row.source_path).name == "flight_20200601_ir.tif"
    assert len(row.source_sha256) == 64
    about = json.loads((tmp_path / "out/prepared.json").read_text())
    assert about["complete"]
    assert about["source"] == "archives"
    assert about["counts"] == {"images": 9, "problems": 0, "compared": 0, "moved": 0}
    assert about["rules"] == {"uint16": "full", "uint16_percent": None, "min_overlap": 0.5, "register": False}
    assert about["versions"]["gdal"] == rasterio.__gdal_version__
    assert (row.shift_x_px, row.shift_y_px) == (0.0, 0.0)
    assert np.isnan([row.stretch_low, row.stretch_high]).all()


def test_partial_cover_is_masked_and_too_little_is_left_out(tmp_path):
    root, out = tmp_path / "a", tmp_path / "out"
    place = location_in(root)
    add_flight(place, "a")
    half = np.full((64, 64), 90, np.uint8)
    write_tiff(place / "most.tif", half, where=affine(1.0, (400_000.0 + 16, 4_500_000.0)))
    write_tiff(place / "little.tif", half, where=affine(1.0, (400_000.0 + 40, 4_500_000.0)))
    done = prepared(root, out)
    assert problem_kinds(done) == {"little.tif": "cover"}
    assert not (out / "stack/Bingham/40.64610_-112.18230/sar/little.tif").exists()
    valid = read_valid(out / "stack/Bingham/40.64610_-112.18230/sar/most.tif")
    assert valid.mean() == 0.75
    assert not valid[:, :16].any()
    again = prepared(root, out)
    assert (again.n_made, again.n_kept, problem_kinds(again)) == (0, 4, {"little.tif": "cover"})
    looser = prepared(root, out, rules=PrepareRules(min_overlap=0.3))
    assert (looser.n_made, looser.n_images, looser.problems) == (1, 4, [])
    stricter = prepared(root, out, rules=PrepareRules(min_overlap=0.8))
    assert (stricter.n_images, stricter.n_deleted) == (2, 2)


def test_a_second_run_writes_and_changes_nothing(archives, tmp_path):
    out = tmp_path / "out"
    first = prepared(archives, out)
    lasting = [*out.rglob("*.tif"), out / "hashes.jsonl"]
    before, times = whole_tree(out), {p: p.stat().st_mtime_ns for p in lasting}
    second = prepared(archives, out)
    assert (second.n_made, second.n_kept, second.fingerprint) == (0, 9, first.fingerprint)
    assert whole_tree(out) == before
    assert {p: p.stat().st_mtime_ns for p in lasting} == times


def test_the_same_input_gives_the_same_bytes(archives, tmp_path):
    prepared(archives, tmp_path / "one", workers=1)
    prepared(archives, tmp_path / "two", workers=4)
    assert whole_tree(tmp_path / "one") == whole_tree(tmp_path / "two")


def test_only_the_changed_is_done_again(archives, tmp_path):
    out = tmp_path / "out"
    first = prepared(archives, out)
    write_png(
        archives / "Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_0.png", np.zeros((32, 32, 1), np.uint8)
    )
    (out / "eo_sar/tiles/train/sar/Gotcha_0.tif").unlink()
    second = prepared(archives, out)
    assert (second.n_made, second.n_kept) == (2, 7)
    assert second.fingerprint != first.fingerprint
    assert (read_values(out / "eo_sar/tiles/train/eo/Gotcha_0.tif") == 0).all()


def test_a_touched_file_is_the_same_file(archives, tmp_path):
    out = tmp_path / "out"
    prepared(archives, out)
    for path in archives.rglob("*.tif*"):
        path.touch()
    assert prepared(archives, out).n_made == 0


def test_a_new_grid_redoes_its_location(archives, tmp_path):
    out = tmp_path / "out"
    add_location(archives, name="1.0_2.0")
    prepared(archives, out)
    assert prepared(archives, out, size_px=(32, 32)).n_made == 8  # both locations, no tile
    write_tiff(
        location_in(archives) / "mosaic_rgb.tif",
        colours(ground((16, 16), BASE_CRS, affine(4.0))),
        where=affine(4.0),
    )
    assert prepared(archives, out, size_px=(32, 32)).n_made == 1  # the same ground: the same grid


def test_the_vanished_is_dropped(archives, tmp_path):
    out = tmp_path / "out"
    add_location(archives, name="1.0_2.0")
    prepared(archives, out)
    shutil.rmtree(location_in(archives, name="1.0_2.0"))
    done = prepared(archives, out)
    assert (done.n_images, done.n_deleted, done.n_made) == (9, 3, 0)
    assert not (out / "stack/Bingham/1.0_2.0").exists()


def test_calls_add_up(archives, tmp_path):
    out = tmp_path / "out"
    prepared(archives, out, modalities={"sar", "eo"}, families={"eo_sar"})
    assert set(PreparedData.open(out).table.family) == {"eo_sar"}
    done = prepared(archives, out, modalities={"sar", "rgb"}, families={"stack"})
    assert (done.n_kept, done.n_made) == (4, 3)
    prepared(archives, tmp_path / "once", modalities={"sar", "eo", "rgb"})
    assert whole_tree(out) == whole_tree(tmp_path / "once")


def test_only_the_kept_locations_are_prepared(archives, tmp_path):
    out, once = tmp_path / "out", tmp_path / "once"
    add_location(archives, name="1.0_2.0")
    keep = {("Bingham", "1.0_2.0"), ("", "train-Gotcha_1")}.__contains__
    done = prepared(archives, out, keep_location=keep)
    assert (done.n_images, done.n_made) == (5, 5)
    assert set(PreparedData.open(out).table.location) == {"1.0_2.0", "train-Gotcha_1"}
    assert not (out / "stack/Bingham/40.64610_-112.18230").exists()
    kept = whole_tree(out)
    assert prepared(archives, out, keep_location=keep).n_made == 0
    assert whole_tree(out) == kept
    # A call without the filter adds the rest, one with it deletes the rest.
    added = prepared(archives, out)
    assert (added.n_made, added.n_kept) == (7, 5)
    assert added.fingerprint == prepared(archives, once).fingerprint != done.fingerprint
    assert whole_tree(out) == whole_tree(once)
    again = prepared(archives, out, keep_location=keep)
    assert (again.n_made, again.n_kept, again.n_deleted) == (0, 5, 7)
    assert whole_tree(out) == kept
    with pytest.raises(DataError, match="at the locations to keep"):
        prepared(archives, out, keep_location=lambda key: False)
    assert whole_tree(out) == kept


def test_a_kept_location_has_its_own_reference(archives, tmp_path):
    write_tiff(
        location_in(archives) / "mosaic_rgb.tif",
        colours(ground((16, 16), BASE_CRS, affine(4.0))),
        where=affine(4.0),
    )
    add_location(archives, name="1.0_2.0")
    prepared(archives, tmp_path / "all")
    prepared(archives, tmp_path / "sar", modalities={"sar"}, keep_location=lambda key: key[1][:5] == "40.64")
    trees = whole_tree(tmp_path / "all"), whole_tree(tmp_path / "sar")
    sar = [path for path in trees[1] if path.endswith(".tif")]
    assert sar == ["stack/Bingham/40.64610_-112.18230/sar/20190611_UMBRA_GEC.tif"]
    assert trees[0][sar[0]] == trees[1][sar[0]]


def test_what_is_not_there_or_not_meant(archives, tmp_path):
    with pytest.raises(UsageError, match="no such data folder"):
        prepared(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="something else") as caught:
        prepared(archives, archives)
    assert caught.value.where == str(archives)
    with pytest.raises(UsageError, match="'sra'") as caught:
        prepared(archives, tmp_path / "out", modalities={"sra"})
    assert "'sar'" in (caught.value.next_step or "")
    with pytest.raises(DataError, match="no usable image of eo in stack"):
        prepared(archives, tmp_path / "out", modalities={"eo"}, families={"stack"})
    with pytest.raises(UsageError, match="percentle"):
        PrepareRules(uint16="percentle")  # type: ignore[arg-type]


REAL = Path(__file__).parents[2].parent / "shared/data/real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_real_sar_lies_on_its_optical_grid(tmp_path):
    prepared(
        REAL / "Train_Data_Centerfield_SAR_IR_RGB/33.78688_-118.33958", tmp_path / "out", size_px=(256, 256)
    )
    data = PreparedData.open(tmp_path / "out")
    sar, rgb = (read_values(data.listed("stack", m)[0].path).mean(axis=2) for m in ("sar", "rgb"))
    window = cv2.createHanningWindow((256, 256), cv2.CV_64F)
    (east, south), strength = cv2.phaseCorrelate(sar, rgb, window)
    assert strength > 0.2
    assert abs(east) < 2  # pixels of 40 m; the originals agree to 2 or 3 of 10 m
    assert abs(south) < 2
    (_, _), off_grid = cv2.phaseCorrelate(np.rot90(sar).copy(), rgb, window)
    assert off_grid < 0.1


def test_a_later_version_makes_captures_anew_and_is_other_data(archives, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = prepared(archives, out)
    assert prepared(archives, out).n_made == 0
    monkeypatch.setattr("pbvs.core.versions.PREPARE", 2)
    later = prepared(archives, out)
    assert later.n_made == first.n_made
    assert later.fingerprint != first.fingerprint
    assert prepared(archives, out).n_made == 0
