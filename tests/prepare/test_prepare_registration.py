"""`register`: the residual shift of SAR is estimated, recorded, corrected where trusted, and kept."""

import csv

import cv2
import numpy as np
import pytest
from made_archives import BASE_CRS, add_tiles, affine, location_in, write_tiff
from prepared_trees import corrupted, prepared, whole_tree

from pbvs.dataset.index import PreparedData
from pbvs.prepare import registration
from pbvs.prepare.prepare import PrepareRules
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.register import Shift

SIDE, MARGIN = 160, 20
PLACE = "stack/Bingham/40.64610_-112.18230"
REGISTER = PrepareRules(register=True)


def scene(shift_px=(0.0, 0.0), margin=0, seed=3):
    """`SIDE + 2 margin` square of blurred noise, its content moved by (dx, dy) pixels."""
    side = SIDE + 2 * MARGIN
    noise = np.random.default_rng(seed).normal(size=(side, side))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    moved = np.array([[1, 0, shift_px[0]], [0, 1, shift_px[1]]], np.float64)
    smooth = cv2.warpAffine(smooth, moved, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    cut = smooth[MARGIN - margin : side - MARGIN + margin, MARGIN - margin : side - MARGIN + margin]
    return np.clip(128 + 300 * cut, 1, 255).astype(np.uint8)


def add_optical(place, capture="flight_20190601", modality="rgb", seed=3):
    image = scene(seed=seed)
    write_tiff(place / f"{capture}_{modality}.tif", np.dstack([image] * 3) if modality == "rgb" else image)


def add_sar(place, name, shift_px, seed=3):
    """SAR of the same ground and 20 m beyond it, `shift_px` off its place."""
    where = affine(1.0, (400_000.0 - MARGIN, 4_500_000.0 + MARGIN))
    write_tiff(place / f"{name}.tif", scene(shift_px, MARGIN, seed), BASE_CRS, where)


@pytest.fixture
def archives(tmp_path):
    root = tmp_path / "archives"
    place = location_in(root)
    add_optical(place)
    add_sar(place, "off_GEC", (5.3, -3.6))
    add_sar(place, "right_GEC", (0.0, 0.0))
    add_tiles(root, n=2)
    return root


@pytest.fixture
def fake_estimate(monkeypatch):
    """Replaces the estimate by a given shift; returns the shapes of each call's arguments."""

    def replace(shift: Shift) -> list[tuple]:
        calls: list[tuple] = []

        def estimate(moving, fixed, valid):
            calls.append((moving.shape, fixed.shape, valid.shape))
            return shift

        monkeypatch.setattr(registration, "estimate_shift", estimate)
        return calls

    return replace


def rows(out):
    with (out / "registration.csv").open(newline="") as stream:
        return {row["capture"]: row for row in csv.DictReader(stream)}


def error_px(out, capture):
    """The residual shift of a prepared SAR capture, away from the border."""
    inner = np.s_[16:-16, 16:-16]
    window = cv2.createHanningWindow((SIDE - 32, SIDE - 32), cv2.CV_64F)
    sar = read_values(out / PLACE / "sar" / f"{capture}.tif")[:, :, 0][inner].astype(np.float64)
    (dx, dy), _ = cv2.phaseCorrelate(sar, scene()[inner].astype(np.float64), window)
    return np.hypot(dx, dy)


def test_a_shift_is_corrected_and_recorded(archives, tmp_path):
    out = tmp_path / "out"
    prepared(archives, tmp_path / "plain")
    assert error_px(tmp_path / "plain", "off_GEC") > 5
    done = prepared(archives, out, rules=REGISTER)
    assert error_px(out, "off_GEC") < 1 / 3
    assert error_px(out, "right_GEC") < 1 / 3
    assert (done.n_compared, done.n_moved) == (2, 1 + (rows(out)["right_GEC"]["applied"] == "True"))
    row = rows(out)["off_GEC"]
    assert (row["city"], row["location"]) == ("Bingham", "40.64610_-112.18230")
    assert (row["reference"], row["trusted"], row["applied"]) == (
        f"{PLACE}/rgb/flight_20190601.tif",
        "True",
        "True",
    )
    assert float(row["dx_px"]) == pytest.approx(-5.3, abs=1 / 3)
    assert float(row["dy_px"]) == pytest.approx(3.6, abs=1 / 3)
    table = PreparedData.open(out).table.set_index("path")
    shifts = table.loc[f"{PLACE}/sar/off_GEC.tif", ["shift_x_px", "shift_y_px"]]
    assert list(shifts) == [float(row["dx_px"]), float(row["dy_px"])]
    # Nothing else is touched.
    unshifted, tree = whole_tree(tmp_path / "plain"), whole_tree(out)
    same = [path for path in unshifted if (path.endswith(".tif") and "/sar/" not in path) or "eo_sar" in path]
    assert len(same) == 5
    assert all(unshifted[path] == tree[path] for path in same)
    assert PreparedData.open(out).fingerprint != PreparedData.open(tmp_path / "plain").fingerprint


def test_an_untrusted_estimate_is_recorded_and_not_applied(archives, tmp_path, fake_estimate):
    fake_estimate(Shift(30.0, 10.0, 0.01, False))
    prepared(archives, tmp_path / "plain")
    done = prepared(archives, tmp_path / "out", rules=REGISTER)
    assert (done.n_compared, done.n_moved) == (2, 0)
    row = rows(tmp_path / "out")["off_GEC"]
    assert (row["dx_px"], row["dy_px"], row["peak"]) == ("30.000", "10.000", "0.010000")
    assert (row["trusted"], row["applied"]) == ("False", "False")
    sar = f"{PLACE}/sar/off_GEC.tif"
    assert (tmp_path / "out" / sar).read_bytes() == (tmp_path / "plain" / sar).read_bytes()
    assert rows(tmp_path / "plain") == {}


def test_a_shift_within_the_error_is_not_applied(archives, tmp_path, fake_estimate):
    fake_estimate(Shift(0.09, -0.02, 0.9, True))
    assert prepared(archives, tmp_path / "out", rules=REGISTER).n_moved == 0
    assert rows(tmp_path / "out")["off_GEC"]["trusted"] == "True"


def test_it_is_done_again_only_when_sar_reference_or_grid_changed(archives, tmp_path, fake_estimate):
    out, place = tmp_path / "out", location_in(archives)
    calls = fake_estimate(Shift(4.0, 2.0, 0.9, True))
    prepared(archives, out, rules=REGISTER)
    tree = whole_tree(out)
    assert (prepared(archives, out, rules=REGISTER).n_made, len(calls)) == (0, 2)
    assert whole_tree(out) == tree
    add_optical(place, "flight_20200601")  # not the reference
    assert (prepared(archives, out, rules=REGISTER).n_made, len(calls)) == (1, 2)
    add_sar(place, "off_GEC", (1.0, 1.0))
    assert (prepared(archives, out, rules=REGISTER).n_made, len(calls)) == (1, 3)
    add_optical(place, seed=4)
    assert (prepared(archives, out, rules=REGISTER).n_made, len(calls)) == (3, 5)
    done = prepared(archives, out, rules=REGISTER, size_px=(80, 80))
    assert (done.n_made, len(calls)) == (4, 7)


def test_off_again_and_the_sar_lies_where_it_says(archives, tmp_path, fake_estimate):
    fake_estimate(Shift(4.0, 2.0, 0.9, True))
    prepared(archives, tmp_path / "plain")
    prepared(archives, tmp_path / "out", rules=REGISTER)
    assert whole_tree(tmp_path / "out") != whole_tree(tmp_path / "plain")
    prepared(archives, tmp_path / "out")
    assert whole_tree(tmp_path / "out") == whole_tree(tmp_path / "plain")


@pytest.mark.parametrize(
    ("optical", "reference"),
    [
        ([("mosaic", "rgb"), ("a", "rgb"), ("mosaic", "ir")], "rgb/mosaic"),
        ([("b", "rgb"), ("a", "rgb"), ("mosaic", "ir")], "rgb/a"),
        ([("a", "ir"), ("b", "ir")], "ir/a"),
        ([], None),
    ],
)
def test_the_reference_is_the_mosaic_else_rgb_else_ir(tmp_path, fake_estimate, optical, reference):
    fake_estimate(Shift(4.0, 2.0, 0.9, True))
    place = location_in(tmp_path / "a")
    add_sar(place, "one_GEC", (0.0, 0.0))
    for capture, modality in optical:
        name = f"mosiac_{modality}.tif" if capture == "mosaic" else f"{capture}_{modality}.tif"
        add_optical(place, "x", modality)
        (place / f"x_{modality}.tif").rename(place / name)
    done = prepared(tmp_path / "a", tmp_path / "out", rules=REGISTER)
    assert done.n_compared == (reference is not None)
    if reference:
        assert rows(tmp_path / "out")["one_GEC"]["reference"] == f"{PLACE}/{reference}.tif"


def test_a_reference_that_cannot_be_read_leaves_it_to_the_next(archives, tmp_path, fake_estimate):
    fake_estimate(Shift(4.0, 2.0, 0.9, True))
    place = location_in(archives)
    add_optical(place, "flight_20180601")
    corrupted(place / "flight_20180601_rgb.tif")
    prepared(archives, tmp_path / "out", rules=REGISTER)
    assert rows(tmp_path / "out")["off_GEC"]["reference"] == f"{PLACE}/rgb/flight_20190601.tif"


def test_a_large_image_is_compared_smaller_and_the_shift_scaled_back(
    archives, tmp_path, fake_estimate, monkeypatch
):
    monkeypatch.setattr(registration, "COMPARED_PX", 40)
    calls = fake_estimate(Shift(1.5, -0.5, 0.9, True))
    prepared(archives, tmp_path / "out", rules=REGISTER)
    assert calls[0] == ((40, 40, 1), (40, 40, 3), (40, 40))
    row = rows(tmp_path / "out")["off_GEC"]
    assert (row["dx_px"], row["dy_px"]) == ("6.000", "-2.000")


def test_moved_out_of_its_location_it_is_left_out(archives, tmp_path, fake_estimate):
    fake_estimate(Shift(120.0, 0.0, 0.9, True))
    done = prepared(archives, tmp_path / "out", rules=REGISTER)
    assert [problem.kind for problem in done.problems if problem.kind == "cover"] == ["cover"] * 2
    assert list((tmp_path / "out" / PLACE / "sar").iterdir()) == []


def test_the_validity_moves_along(archives, tmp_path, fake_estimate):
    fake_estimate(Shift(30.0, 10.0, 0.9, True))
    out = tmp_path / "out"
    prepared(archives, out, rules=REGISTER)
    valid = read_valid(out / PLACE / "sar/right_GEC.tif")
    assert not valid[:, :9].any()  # the capture extends 20 beyond the ground, and was shifted by 30
    assert valid[:, 11:].all()
