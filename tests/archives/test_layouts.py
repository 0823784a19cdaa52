import datetime
import os
import sys
from pathlib import Path

import pytest

from pbvs.archives import layouts
from pbvs.archives.layouts import Entry, find_images, is_ignored, time_in_name


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


def test_system_files_and_other_folders_are_ignored(tmp_path):
    location = "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0"
    touch(
        tmp_path,
        f"{location}/a_rgb.tif",
        f"{location}/._a_rgb.tif",
        f"{location}/.DS_Store",
        f"{location}/notes.txt",
    )
    touch(tmp_path, f"__MACOSX/{location}/b_rgb.tif", "test/sar2rgb/0.tiff", "test/sar2eo/0.png")
    touch(tmp_path, f"done/{location}/c_rgb.tif", "done/prepared.json")
    listing = find_images(tmp_path)
    assert [e.path.name for e in listing.entries] == ["a_rgb.tif"]
    assert listing.n_ignored == 3
    assert is_ignored("__MACOSX")
    assert not is_ignored("a_rgb.tif")


@pytest.mark.parametrize(
    ("name", "acquired_at"),
    [
        ("m_4709963_20140720", "2014-07-20"),
        ("m_3911155_ne_12_1_20160719_20161004", "2016-07-19"),
        ("scene_2020-11-04_vv", "2020-11-04"),
        ("2023-03-15-05-12-33_UMBRA-04_GEC.tif", "2023-03-15T05:12:33"),
        ("2023-05-12-16-33-12_UMBRA-05_GEC.tif", "2023-05-12T16:33:12"),
        ("S1A_IW_GRDH_20201104T163312_20201104T163337", "2020-11-04T16:33:12"),
        ("20201104t163312Z_rgb", "2020-11-04T16:33:12"),
        ("2020-11-04T16:33:12.5", "2020-11-04T16:33:12"),
        ("20201104_163312_rgb", "2020-11-04T16:33:12"),
        ("CAPELLA_C02_20201104163312_HH", "2020-11-04T16:33:12"),
        ("20201104_000000", "2020-11-04T00:00:00"),
        ("20201104_246060", "2020-11-04"),
        ("20201104T163360", "2020-11-04"),
        ("20201104_1633", "2020-11-04"),
        ("20201104_1633123", "2020-11-04"),
        ("2020-11-04-16", "2020-11-04"),
        ("20141399_20150101", "2015-01-01"),
        ("20141399T101010_20150101", "2015-01-01"),
        ("20150229", ""),
        ("20240229", "2024-02-29"),
        ("2020-1104", ""),
        ("202011041", ""),
        ("120201104", ""),
        ("20201104246060", ""),
        ("18990101", ""),
        ("123456789", ""),
        ("mosiac", ""),
    ],
)
def test_time_in_name(name, acquired_at):
    assert time_in_name(name) == acquired_at
    if acquired_at:
        assert datetime.datetime.fromisoformat(acquired_at).isoformat().startswith(acquired_at)


def test_a_folder_linked_to_itself_ends(tmp_path):
    touch(tmp_path, "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0/a_rgb.tif")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    listing = find_images(tmp_path)
    assert len(listing.entries) == 1
    assert listing.unreadable == []


def test_linked_folders_count_by_the_name_of_the_link(tmp_path):
    touch(tmp_path, "disk/a/a_rgb.tif", "disk/b/b_rgb.tif")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Train_Data_Bingham_SAR_IR_RGB").symlink_to(tmp_path / "disk")
    entries = find_images(tmp_path / "data").entries
    assert [(e.city, e.location, e.capture) for e in entries] == [
        ("Bingham", "a", "a"),
        ("Bingham", "b", "b"),
    ]
    (tmp_path / "link").symlink_to(tmp_path / "data" / "Train_Data_Bingham_SAR_IR_RGB")
    assert find_images(tmp_path / "link" / "..").entries == find_images(tmp_path).entries


def test_a_folder_that_may_not_be_listed_is_reported(tmp_path, monkeypatch):
    touch(tmp_path, *(f"Train_Data_Bingham_SAR_IR_RGB/{n}.0_2.0/a_rgb.tif" for n in (1, 2)))
    real = os.scandir

    def refusing(path):
        if Path(path).name == "1.0_2.0":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = find_images(tmp_path)
    assert [e.location for e in listing.entries] == ["2.0_2.0"]
    ((path, why),) = listing.unreadable
    assert path == "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0"
    assert "Permission denied" in why


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_names_that_are_not_utf8_are_reported(tmp_path):
    touch(tmp_path, "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0/a_rgb.tif")
    archive = os.fsencode(tmp_path / "Train_Data_Bingham_SAR_IR_RGB")
    Path(os.fsdecode(archive + b"/1.0_2.0/caf\xe9_rgb.tif")).write_bytes(b"x")
    Path(os.fsdecode(archive + b"/\xe9")).mkdir()
    listing = find_images(tmp_path)
    assert [e.file for e in listing.entries] == ["Train_Data_Bingham_SAR_IR_RGB/1.0_2.0/a_rgb.tif"]
    assert [path for path, _ in listing.unreadable] == [
        "Train_Data_Bingham_SAR_IR_RGB",
        "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0",
    ]
    assert all(why.isascii() and "udce9" in why for _, why in listing.unreadable)


def test_sidecars_of_an_image_are_noticed(tmp_path):
    location = "Train_Data_Bingham_SAR_IR_RGB/1.0_2.0"
    touch(tmp_path, *(f"{location}/{name}" for name in ("a_rgb.tif", "b_rgb.TIF", "c_rgb.tif", "c_rgb.tiff")))
    touch(
        tmp_path,
        f"{location}/A_RGB.tfw",
        f"{location}/b_rgb.tif.aux.xml",
        f"{location}/notes.txt",
        f"{location}/c.tfw",
    )
    listing = find_images(tmp_path)
    assert len(listing.entries) == 4
    assert listing.with_sidecars == {f"{location}/a_rgb.tif", f"{location}/b_rgb.TIF"}


# ---- another layout is one function


def flat_entries(folder):
    """`<city>-<location>-<capture>.<modality>.tif`, all in one folder."""
    for name in folder.names:
        if name.count("-") == 2:
            city, location, rest = name.split("-")
            capture, modality, _ = rest.split(".")
            yield Entry("stack", city, location, modality, capture, False, "", folder.file(name), "train")


def test_another_layout_is_one_function(tmp_path, monkeypatch):
    touch(tmp_path, "deep/Bingham-12-x.sar.tif", "deep/Bingham-12-y.rgb.tif", "deep/other.tif")
    touch(tmp_path, "Train_Data_Manhattan_SAR_IR_RGB/1.0_2.0/a_rgb.tif")
    assert [e.city for e in find_images(tmp_path).entries] == ["Manhattan"]
    entries = find_images(tmp_path, [flat_entries]).entries
    assert [(e.modality, e.location, e.path) for e in entries] == [
        ("sar", "12", Path("deep/Bingham-12-x.sar.tif")),
        ("rgb", "12", Path("deep/Bingham-12-y.rgb.tif")),
    ]
    monkeypatch.setattr(layouts, "LAYOUTS", (*layouts.LAYOUTS, flat_entries))
    assert [e.city for e in find_images(tmp_path).entries] == ["Manhattan", "Bingham", "Bingham"]
