import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
from made_archives import (
    BASE_CRS,
    add_flight,
    add_location,
    add_tiles,
    affine,
    colours,
    ground,
    infrared,
    location_in,
    sar_in,
    write_tiff,
)

from pbvs.data.index import PreparedData
from pbvs.data.layouts import FAMILIES, MODALITIES
from pbvs.data.prepare import PreparedSummary, PrepareRules, data_fingerprint, prepare
from pbvs.data.rasters import read_valid, read_values
from pbvs.data.stretch import FULL, stretch_of_histogram
from pbvs.errors import DataError, UsageError
from pbvs.pixels import read_image, write_png


def prepared(root: Path, out: Path, **options) -> PreparedSummary:
    known = {"modalities": set(MODALITIES), "families": set(FAMILIES), "size_px": None}
    return prepare(root, out, **(known | options))


def whole_tree(out: Path) -> dict[str, bytes]:
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "hashes.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def problem_kinds(done: PreparedSummary) -> dict[str, str]:
    return {Path(problem.path).name: problem.kind for problem in done.problems}


@pytest.fixture
def archives(tmp_path):
    root = tmp_path / "archives"
    add_location(root, flights=2)
    add_tiles(root, n=2)
    return root


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


def test_the_index_tells_of_each_capture(archives, tmp_path):
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
    assert about["counts"] == {"images": 9, "problems": 0}


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


def test_a_second_run_makes_nothing_and_changes_nothing(archives, tmp_path):
    out = tmp_path / "out"
    first = prepared(archives, out)
    before, times = whole_tree(out), {p: p.stat().st_mtime_ns for p in out.rglob("*.tif")}
    second = prepared(archives, out)
    assert (second.n_made, second.n_kept, second.fingerprint) == (0, 9, first.fingerprint)
    assert whole_tree(out) == before
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.tif")} == times


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


def test_an_unreadable_file_costs_that_file_only(archives, tmp_path):
    out, place = tmp_path / "out", location_in(archives)
    torn = sar_in(place / "torn_GEC.tif")
    torn.write_bytes(torn.read_bytes()[:-4000])
    (place / "empty_rgb.tif").write_bytes(b"")
    tile = archives / "Train_Data_and_Validation_EO_SAR/SAR/train/Gotcha_0.png"
    tile.write_bytes(tile.read_bytes()[:-40])
    done = prepared(archives, out)
    assert problem_kinds(done) == {
        "torn_GEC.tif": "unreadable",
        "empty_rgb.tif": "empty",
        "Gotcha_0.png": "unreadable",
    }
    assert done.n_images == 8
    assert set(pd.read_csv(out / "problems.csv").kind) == {"unreadable", "empty"}


def test_an_interrupted_run_goes_on_where_it_was(archives, tmp_path):
    prepared(archives, tmp_path / "straight")

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepared(archives, out, progress=interrupt)
    (out / "stack").mkdir(exist_ok=True)
    (out / "stack/.left.77.part.tif").write_bytes(b"half a file")
    with pytest.raises(DataError, match="not prepared to its end"):
        PreparedData.open(out)
    done = prepared(archives, out)
    assert done.n_kept >= 4
    assert whole_tree(out) == whole_tree(tmp_path / "straight")


def test_uint16_full_and_percentile(tmp_path):
    root = tmp_path / "a"
    place = location_in(root, "Manhattan")
    add_flight(place, "a")
    ramp = np.tile(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 8 + 1000, (1, 1))
    write_tiff(place / "b_GEC.tif", ramp)
    sar = "stack/Manhattan/40.64610_-112.18230/sar/b_GEC.tif"
    prepared(root, tmp_path / "full")
    full = read_values(tmp_path / "full" / sar)[:, :, 0]
    assert np.array_equal(full, np.rint(ramp * (255 / 65535)).astype(np.uint8))
    prepared(root, tmp_path / "percentile", rules=PrepareRules(uint16="percentile"))
    stretched = read_values(tmp_path / "percentile" / sar)[:, :, 0]
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert len(np.unique(stretched)) == 256
    low, high = json.loads((tmp_path / "percentile/prepared.json").read_text())["stretches"]["Manhattan/sar"]
    assert (low, high) == (1000 + 8 * 40, 1000 + 8 * 4055)  # the 41st and the 4056th of 4096 values
    assert (stretched == 0).sum() == pytest.approx(41, abs=8)
    rgb = "stack/Manhattan/40.64610_-112.18230/rgb/a.tif"
    assert (tmp_path / "full" / rgb).read_bytes() == (tmp_path / "percentile" / rgb).read_bytes()
    assert data_fingerprint(tmp_path / "full") != data_fingerprint(tmp_path / "percentile")


def test_stretch_of_a_histogram():
    counts = np.zeros(65536, np.int64)
    assert stretch_of_histogram(counts) == FULL
    counts[500] = 10
    assert stretch_of_histogram(counts) == (500.0, 501.0)
    counts[:] = 0
    counts[1:201] = 1
    assert stretch_of_histogram(counts) == (2.0, 198.0)


def test_calls_add_up(archives, tmp_path):
    out = tmp_path / "out"
    prepared(archives, out, modalities={"sar", "eo"}, families={"eo_sar"})
    assert set(PreparedData.open(out).table.family) == {"eo_sar"}
    done = prepared(archives, out, modalities={"sar", "rgb"}, families={"stack"})
    assert (done.n_kept, done.n_made) == (4, 3)
    prepared(archives, tmp_path / "once", modalities={"sar", "eo", "rgb"})
    assert whole_tree(out) == whole_tree(tmp_path / "once")


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
