from pathlib import Path

import pytest

from pbvs.data.layouts import date_in_name, find_images, is_litter


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize(
    ("name", "modality", "capture", "mosaic"),
    [
        ("a_20190601_rgb.tiff", "rgb", "a_20190601", False),
        ("a_20190601_IR.TIF", "ir", "a_20190601", False),
        ("A_RGB.Tiff", "rgb", "A", False),
        ("mosiac_rgb.tif", "rgb", "mosaic", True),
        ("MOSAIC_ir.tiff", "ir", "mosaic", True),
        ("mosiac_rgb_2.tif", "rgb", "mosaic_2", True),
        ("rgb.tif", "rgb", "single", False),
        ("20190611_UMBRA_GEC.tif", "sar", "20190611_UMBRA_GEC", False),
        ("clair.tif", "sar", "clair", False),
        ("scene-vv.TIFF", "sar", "scene-vv", False),
    ],
)
def test_names_in_a_location(tmp_path, name, modality, capture, mosaic):
    touch(tmp_path, f"Train_Data_UC_Davis_SAR_IR_RGB/38.5_-121.7/{name}")
    (entry,) = find_images(tmp_path).entries
    assert (entry.modality, entry.capture, entry.mosaic) == (modality, capture, mosaic)
    assert (entry.family, entry.city, entry.location) == ("stack", "UC_Davis", "38.5_-121.7")


def test_tiles_pair_by_stem_within_a_split(tmp_path):
    touch(tmp_path, *(f"x/{m}/{s}/7.png" for m in ("SAR", "eo") for s in ("train", "Validation")))
    entries = find_images(tmp_path).entries
    assert {(e.modality, e.location, e.capture, e.split) for e in entries} == {
        (m, f"{s}-7", "7", s) for m in ("sar", "eo") for s in ("train", "validation")
    }


@pytest.mark.parametrize(
    "depth", [".", "Train_Data_Manhattan_SAR_IR_RGB", "Train_Data_Manhattan_SAR_IR_RGB/1.5_2.5"]
)
def test_root_at_any_depth(tmp_path, depth):
    touch(tmp_path, "Train_Data_Manhattan_SAR_IR_RGB/1.5_2.5/a_rgb.tif")
    (entry,) = find_images(tmp_path / depth).entries
    assert (entry.city, entry.location) == ("Manhattan", "1.5_2.5")
    assert (tmp_path / depth / entry.path).exists()


def test_unpacked_twice_and_any_folder_name_in_an_archive(tmp_path):
    touch(tmp_path, "train_data_bingham_sar_ir_rgb/Train_Data_Bingham_SAR_IR_RGB/chip7/a_rgb.tif")
    (entry,) = find_images(tmp_path).entries
    assert (entry.city, entry.location) == ("Bingham", "chip7")


def test_litter_and_other_places_are_passed_over(tmp_path):
    place = "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0"
    touch(tmp_path, f"{place}/a_rgb.tif", f"{place}/._a_rgb.tif", f"{place}/.DS_Store", f"{place}/notes.txt")
    touch(tmp_path, f"__MACOSX/{place}/b_rgb.tif", "test/sar2rgb/0.tiff", "test/sar2eo/0.png")
    touch(tmp_path, f"done/{place}/c_rgb.tif", "done/prepared.json")
    found = find_images(tmp_path)
    assert [e.path.name for e in found.entries] == ["a_rgb.tif"]
    assert found.n_litter == 3
    assert is_litter("__MACOSX")
    assert not is_litter("a_rgb.tif")


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("m_4709963_20140720", "2014-07-20"),
        ("2023-03-15-05-12-33_UMBRA-04_GEC", "2023-03-15"),
        ("20141399_20150101", "2015-01-01"),
        ("123456789", ""),
        ("mosiac", ""),
    ],
)
def test_date_in_name(name, date):
    assert date_in_name(name) == date


def test_a_folder_linked_to_itself_ends(tmp_path):
    touch(tmp_path, "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0/a_rgb.tif")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_images(tmp_path).entries) == 1
