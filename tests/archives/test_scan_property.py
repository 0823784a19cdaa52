"""Random trees of the archives' layouts, with every kind of fault: a scan finds what was written."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_archives import affine, write_tiff

from pbvs.archives.layouts import MODALITIES
from pbvs.archives.scan import scan
from pbvs.core.errors import DataError
from pbvs.core.pixels import encode_png

CITIES = ("Bingham", "Centerfield", "Manhattan", "UC_Davis")
TRANSFORM = "1.0 0.0 400000.0 0.0 -1.0 4500000.0"
LACKING = {"stack": ("sar", "rgb", "ir"), "eo_sar": ("sar", "eo")}

# Contents of a file: height, width, bands, type, CRS, and its fault independent of its name.
KINDS = {
    "gray": (2, 2, 1, "uint8", "EPSG:32612", ""),
    "gray16": (3, 2, 1, "uint16", "EPSG:26912", ""),
    "colour": (2, 3, 3, "uint8", "EPSG:26912", ""),
    "colour16": (2, 2, 3, "uint16", "EPSG:32612", ""),
    "rgba": (2, 2, 4, "uint8", "EPSG:32612", ""),
    "float": (2, 2, 1, "float32", "EPSG:32612", "dtype"),
    "nowhere": (2, 2, 1, "uint8", "", "no_crs"),
    "nowhere colour": (2, 2, 3, "uint8", "", "no_crs"),
    "tile": (4, 4, 1, "uint8", "", ""),
    "wide tile": (4, 5, 1, "uint8", "", ""),
    "colour tile": (4, 4, 3, "uint8", "", ""),
    "corrupt": (0, 0, 0, "", "", "unreadable"),
    "empty": (0, 0, 0, "", "", "empty"),
}
TIFFS = [name for name in KINDS if "tile" not in name]
# SAR and IR of one band, RGB of three, most of the time; else every file has a fault.
FITTING = {
    "sar": ["gray", "gray16"],
    "ir": ["gray", "gray16"],
    "rgb": ["colour", "colour16"],
    "eo": ["tile"],
}

# Stem, modality, capture, whether it is a mosaic, the acquisition time.
STACK_NAMES = [
    ("20190611_UMBRA_GEC", "sar", "20190611_UMBRA_GEC", False, "2019-06-11"),
    ("2023-05-12-16-33-12_UMBRA-05", "sar", "2023-05-12-16-33-12_UMBRA-05", False, "2023-05-12T16:33:12"),
    ("scene-vv", "sar", "scene-vv", False, ""),
    ("clair", "sar", "clair", False, ""),
    ("m_99991399_rgb", "rgb", "m_99991399", False, ""),
    ("flight_20200601_rgb", "rgb", "flight_20200601", False, "2020-06-01"),
    ("flight_20200601_ir", "ir", "flight_20200601", False, "2020-06-01"),
    ("20201104T163312_IR", "ir", "20201104T163312", False, "2020-11-04T16:33:12"),
    ("rgb", "rgb", "single", False, ""),
    ("mosiac_rgb", "rgb", "mosaic", True, ""),
    ("mosaic_rgb", "rgb", "mosaic", True, ""),
    ("Mosaic_IR_2", "ir", "mosaic_2", True, ""),
]


@dataclass(frozen=True)
class File:
    """One file to write, and all that its path says."""

    path: str
    kind: str
    family: str
    city: str
    location: str
    modality: str
    capture: str
    mosaic: bool
    acquired_at: str
    split: str

    @property
    def fault(self) -> str:
        *_, bands, _, _, fault = KINDS[self.kind]
        if fault in ("empty", "unreadable"):
            return fault
        if bands != (3 if self.modality == "rgb" else 1):
            return "bands"
        return "" if fault == "no_crs" and self.family == "eo_sar" else fault

    @property
    def key(self) -> tuple[str, ...]:
        names = (self.family, self.modality, self.city, self.location, self.capture)
        return tuple(name.casefold() for name in names)


@dataclass
class Tree:
    files: dict[str, File]
    clutter: set[str]  # other files
    n_ignored: int


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree = Tree({}, set(), 0)
    for _ in range(draw(st.integers(0, 3))):
        add_location(draw, tree)
    for _ in range(draw(st.integers(0, 3))):
        add_tiles(draw, tree)
    add_clutter(draw, tree)
    return tree


cased = st.sampled_from([str, str, str.lower, str.upper, str.title])
folders = st.sampled_from(["", "", "all", "unpacked/2024", "Train_Data_Bingham_SAR_IR_RGB.zip"])


def joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def kind_for(draw: st.DrawFn, modality: str, others: list[str]) -> str:
    return draw(st.sampled_from(FITTING[modality] * len(others) + others))


def add_location(draw: st.DrawFn, tree: Tree) -> None:
    city = draw(st.sampled_from(CITIES))
    affixes = draw(cased)("Train_Data_"), draw(cased)("_SAR_IR_RGB")
    location = draw(st.sampled_from(["40.64610_-112.18230", "38.5_-121", "chip 7"]))
    place = joined(draw(folders), city.join(affixes), location)
    for stem, modality, capture, mosaic, time in draw(st.lists(st.sampled_from(STACK_NAMES), max_size=6)):
        change = draw(cased)
        if mosaic:  # reported in one spelling
            expected_capture = (
                "mosaic" + change(stem)[len("mosaic_ir" if modality == "ir" else "mosaic_rgb") :]
            )
        else:
            expected_capture = "single" if capture == "single" else change(stem)[: len(capture)]
        path = f"{place}/{change(stem)}{draw(cased)(draw(st.sampled_from(['.tif', '.tiff'])))}"
        kind = kind_for(draw, modality, TIFFS)
        tree.files[path] = File(
            path, kind, "stack", city, location, modality, expected_capture, mosaic, time, "train"
        )


def add_tiles(draw: st.DrawFn, tree: Tree) -> None:
    top, split = draw(folders), draw(st.sampled_from(["train", "validation", "val"]))
    spelt = draw(cased)(split)
    canonical = "train" if split == "train" else "validation"
    for name in draw(st.lists(st.sampled_from(["Gotcha_1", "Gotcha_2", "20201104", "gotcha_1"]), max_size=3)):
        for modality in draw(st.sampled_from([("sar", "eo"), ("sar", "eo"), ("sar",), ("eo",)])):
            place = joined(top, "EO_SAR", draw(cased)(modality), spelt)
            path = f"{place}/{name}{draw(st.sampled_from(['.png', '.PNG']))}"
            kind = draw(st.sampled_from(["tile"] * 5 + ["wide tile", "colour tile", "corrupt", "empty"]))
            tree.files[path] = File(
                path, kind, "eo_sar", "", f"{canonical}-{name}", modality, name, False, "", canonical
            )


def add_clutter(draw: st.DrawFn, tree: Tree) -> None:
    for path in draw(st.lists(st.sampled_from(sorted(tree.files)), max_size=3)) if tree.files else []:
        place, name = path.rsplit("/", 1)
        for ignored in draw(
            st.sets(st.sampled_from([f"._{name}", ".DS_Store", "Thumbs.db", "__MACOSX/x.tif"]))
        ):
            if f"{place}/{ignored}" not in tree.clutter:
                tree.clutter.add(f"{place}/{ignored}")
                tree.n_ignored += 1
        tree.clutter |= draw(st.sets(st.sampled_from([f"{place}/notes.txt", f"{place}/list.csv"])))
    others = ["holiday/beach.tif", "test/sar2rgb/0.tiff", "test/sar2eo/0.png", "EO_SAR/SAR/test/1.png"]
    tree.clutter |= draw(st.sets(st.sampled_from([*others, "done/SAR/train/1.png", "done/prepared.json"])))
    if "done/SAR/train/1.png" in tree.clutter:
        tree.clutter.add("done/prepared.json")


# ---- what a scan should find, computed in the simplest way


def expected(tree: Tree) -> tuple[list[tuple], set[tuple[str, str]]]:
    """Rows of (file, header, usable), sorted by path, and the problems as (path, kind)."""
    files = [tree.files[path] for path in sorted(tree.files)]
    problems = {(file.path, file.fault) for file in files if file.fault}
    usable = {file.path for file in files if not file.fault}
    for _, same in groupby(sorted(files, key=lambda f: (f.key, f.path)), key=lambda f: f.key):
        for file in [f for f in same if f.path in usable][1:]:
            problems.add((file.path, "duplicate"))
            usable.remove(file.path)
    problems |= odd_sizes(files, usable)
    usable -= {path for path, kind in problems if kind == "sizes"}
    problems |= gaps(files, usable)
    if tree.n_ignored:
        problems.add(("", "litter"))
    return [row(file, file.path in usable) for file in files], problems


def odd_sizes(files: list[File], usable: set[str]) -> set[tuple[str, str]]:
    tiles = [f for f in files if f.family == "eo_sar" and f.path in usable]
    return {
        (a.path, "sizes")
        for a in tiles
        for b in tiles
        if a.location == b.location and KINDS[a.kind][:2] != KINDS[b.kind][:2]
    }


def gaps(files: list[File], usable: set[str]) -> set[tuple[str, str]]:
    found = set()
    for place in {(f.family, f.city, f.location) for f in files}:
        here = [f for f in files if (f.family, f.city, f.location) == place]
        good = [f for f in here if f.path in usable]
        lacking = {*LACKING[place[0]]} - {f.modality for f in good}
        if lacking and place[0] == "stack":
            found.add((here[0].path.rsplit("/", 1)[0], "missing_modality"))
        elif lacking and good:
            found.add((good[0].path, "unpaired"))
    return found


def row(file: File, usable: bool) -> tuple:
    height, width, bands, dtype, crs, _ = KINDS[file.kind]
    named = (
        file.family,
        file.city,
        file.location,
        file.modality,
        file.capture,
        file.mosaic,
        file.acquired_at,
    )
    transform = TRANSFORM if crs else ""
    return (*named, file.path, height, width, bands, dtype, crs, transform, file.split, usable)


COLUMNS = [
    *("family", "city", "location", "modality", "capture", "mosaic", "taken", "path"),
    *("height_px", "width_px", "bands", "dtype", "crs", "transform", "split", "usable"),
]


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[tuple[str, bool], bytes]:
    """The bytes of every kind, as a PNG or not."""
    folder = tmp_path_factory.mktemp("kinds")
    by_kind = {("empty", png): b"" for png in (True, False)}
    for name, (height, width, bands, dtype, crs, _) in KINDS.items():
        if name in ("corrupt", "empty"):
            continue
        image = np.full((height, width, bands), 9, dtype)
        if "tile" in name:
            by_kind[name, True] = encode_png(image)
        else:
            by_kind[name, False] = write_tiff(folder / "a.tif", image, crs or None, affine()).read_bytes()
    return by_kind | {
        ("corrupt", True): by_kind["tile", True][:-9],
        ("corrupt", False): by_kind["gray", False][:-1],
    }


def write(root: Path, tree: Tree, contents: dict[tuple[str, bool], bytes]) -> None:
    for path, file in tree.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(contents[file.kind, path.lower().endswith(".png")])
    for path in tree.clutter:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"clutter")


@settings(max_examples=50, deadline=None)
@given(tree=trees())
def test_what_is_written_is_found(contents, tree):
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patched:
        patched.setenv("PBVS_CACHE", str(Path(scratch, "cache")))
        patched.setattr("pbvs.archives.scan_cache._YOUNG_NS", -(10**12))  # all of it is cached
        root = Path(scratch, "root")
        root.mkdir()
        write(root, tree, contents)
        if not tree.files:
            with pytest.raises(DataError):
                scan(root)
            return
        rows, problems = expected(tree)
        for found in (scan(root), scan(root), scan(root, cache=False)):
            assert [tuple(row) for row in found.images[COLUMNS].values.tolist()] == rows
            assert {*zip(found.problems.path, found.problems.kind, strict=True)} == problems
            assert len(found.problems) == len(problems)
        for what in found.problems.what[found.problems.kind == "litter"]:
            assert what.startswith(f"{tree.n_ignored} ")
        assert found.pairable().pairs.tolist() == pairs(rows)


def pairs(rows: list[tuple]) -> list[int]:
    """Combinations by counting them one by one."""
    usable = [row for row in rows if row[-1]]
    return [
        sum(a[:3] == b[:3] and a[3] == source and b[3] == target for a in usable for b in usable)
        for source, target in (("sar", "eo"), ("sar", "rgb"), ("rgb", "ir"), ("sar", "ir"))
    ]


def test_the_trees_hold_every_fault():
    """Else the property test would not cover it."""
    met: set[str] = set()

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(tree=trees())
    def gather(tree: Tree) -> None:
        if tree.files:
            met.update(kind for _, kind in expected(tree)[1])
            met.update(file.modality for file in tree.files.values() if file.mosaic)
            met.update(Path(path).suffix for path in tree.files)

    gather()
    kinds = {"empty", "unreadable", "bands", "dtype", "no_crs", "duplicate", "sizes", "unpaired"}
    assert met >= kinds | {"missing_modality", "litter", "rgb", "ir"}
    assert met >= {".tif", ".tiff", ".TIF", ".TIFF", ".Tif", ".png", ".PNG"}
    assert MODALITIES == ("sar", "eo", "rgb", "ir")
