"""How the archives lay their images into folders; one function a layout, listed in `LAYOUTS`.

Two families of data:

* `eo_sar` (UNICORN): `{SAR,EO}/{train,validation}/<name>.png`; one name is one location.
* `stack` (MAGIC): `Train_Data_<city>_SAR_IR_RGB/<location>/`, with `<capture>_rgb.tif`, `<capture>_ir.tif`,
  `mosiac_rgb*`, `mosiac_ir*` (spelt so; `mosaic_*` too) and SAR under any other name ending in `.tif(f)`.

Names count in any case. macOS litter (`._*`, `.DS_Store`, `__MACOSX`) is passed over, and so is every
folder that `pbvs data prepare` wrote.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pbvs.pixels import IMAGE_SUFFIXES, TIFF_SUFFIXES, list_images

Modality = Literal["sar", "eo", "rgb", "ir"]
Family = Literal["eo_sar", "stack"]
Split = Literal["train", "validation"]

MODALITIES: tuple[Modality, ...] = ("sar", "eo", "rgb", "ir")
FAMILIES: tuple[Family, ...] = ("eo_sar", "stack")
FAMILY_MODALITIES: dict[Family, tuple[Modality, ...]] = {
    "eo_sar": ("sar", "eo"),
    "stack": ("sar", "rgb", "ir"),
}
BANDS: dict[Modality, int] = {"sar": 1, "eo": 1, "rgb": 3, "ir": 1}
MOSAIC = "mosaic"
PREPARED_MARK = "prepared.json"

EXPECTED_LAYOUTS = (
    "Train_Data_<city>_SAR_IR_RGB/<latitude>_<longitude>/*.tif(f), or {SAR,EO}/{train,validation}/*.png"
)

# Below a root of test inputs: a folder of task folders, or the unpacked archives.
_TEST_PLACES = (
    "{task}/input",
    "{task}",
    "test/{task}/input",
    "test/{task}",
    "val/{task}/input",
    "val/{task}",
)

_CITY = re.compile(r"train_data_(?P<city>.+?)_sar_ir_rgb", re.IGNORECASE)
_CORNER = re.compile(r"[+-]?\d+(\.\d+)?_[+-]?\d+(\.\d+)?")
_MOSAIC = re.compile(r"mos(ai|ia)c_(?P<modality>rgb|ir)(?P<rest>.*)", re.IGNORECASE)
_OPTICAL = re.compile(r"((?P<capture>.+)_)?(?P<modality>rgb|ir)", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})(-?)(\d{2})\2(\d{2})(?!\d)")
_SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "val": "validation"}


@dataclass(frozen=True)
class Folder:
    """One folder of an archive: its place, the place below the root, and the files directly in it."""

    path: Path
    relative: Path
    names: tuple[str, ...]  # sorted, litter left out


@dataclass(frozen=True)
class Entry:
    """One image file and what its place and name tell of it; `path` is relative to the root."""

    family: Family
    city: str
    location: str
    modality: Modality
    capture: str
    mosaic: bool
    taken: str  # ISO date, or "" when the name holds none
    path: Path
    split: Split


@dataclass
class Found:
    """Every image of a known layout under a root, sorted by path, and how much litter was passed over."""

    entries: list[Entry] = field(default_factory=list)
    n_litter: int = 0


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is what an operating system leaves behind."""
    return name.startswith(".") or name.casefold() in ("__macosx", "thumbs.db", "desktop.ini")


def date_in_name(name: str) -> str:
    """The first date in a file name (`20201104` or `2020-11-04`) in ISO form; "" when there is none."""
    for year, _, month, day in _DATE.findall(name):
        try:
            return datetime.date(int(year), int(month), int(day)).isoformat()
        except ValueError:
            continue
    return ""


def stack_entries(folder: Folder) -> Iterator[Entry]:
    """The images of one stack location: `folder` is named by a corner, or lies in a city's archive."""
    tiffs = [name for name in folder.names if Path(name).suffix.lower() in TIFF_SUFFIXES]
    place = folder.path.resolve()
    in_archive = _CITY.fullmatch(place.parent.name) is not None
    if not tiffs or not (in_archive or _CORNER.fullmatch(place.name)):
        return
    city = _city_of(place)
    for name in tiffs:
        modality, capture, mosaic = _stack_name(Path(name).stem)
        taken = date_in_name(name)
        yield Entry(
            "stack", city, place.name, modality, capture, mosaic, taken, folder.relative / name, "train"
        )


def _city_of(location: Path) -> str:
    for parent in location.parents:
        if match := _CITY.fullmatch(parent.name):
            return match["city"]
    return location.parent.name


def _stack_name(stem: str) -> tuple[Modality, str, bool]:
    """Modality, capture and whether it is a mosaic, by the rules of names in a location folder."""
    if match := _MOSAIC.fullmatch(stem):
        return _optical(match["modality"]), MOSAIC + match["rest"], True
    if match := _OPTICAL.fullmatch(stem):
        return _optical(match["modality"]), match["capture"] or "single", False
    return "sar", stem, False


def _optical(word: str) -> Modality:
    return "rgb" if word.lower() == "rgb" else "ir"


def eo_sar_entries(folder: Folder) -> Iterator[Entry]:
    """The tiles of one of the four folders `{SAR,EO}/{train,validation}`."""
    place = folder.path.resolve()
    split = _SPLITS.get(place.name.casefold())
    modality: Modality | None = {"sar": "sar", "eo": "eo"}.get(place.parent.name.casefold())  # type: ignore[assignment]
    if split is None or modality is None:
        return
    for name in folder.names:
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            stem = Path(name).stem
            location = f"{split}-{stem}"  # a name may occur in both splits, as two places
            yield Entry("eo_sar", "", location, modality, stem, False, "", folder.relative / name, split)


# A new layout is one function here; each is asked about every folder.
LAYOUTS: tuple[Callable[[Folder], Iterator[Entry]], ...] = (stack_entries, eo_sar_entries)


def find_images(root: Path) -> Found:
    """Every image under `root`, at any depth, that lies in one of the known layouts.

    `root` may be one archive, a location or a parent of all; links to folders are followed once.
    """
    found = Found()
    for folder, n_litter in _folders(root):
        found.n_litter += n_litter
        for layout in LAYOUTS:
            found.entries.extend(layout(folder))
    found.entries.sort(key=lambda entry: entry.path.as_posix())
    return found


def _folders(root: Path) -> Iterator[tuple[Folder, int]]:
    seen: set[str] = set()
    for top, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(top)
        if place in seen or PREPARED_MARK in files:
            folders.clear()
            continue
        seen.add(place)
        n_litter = sum(map(is_litter, files)) + sum(map(is_litter, folders))
        folders[:] = sorted(name for name in folders if not is_litter(name))
        names = tuple(sorted(name for name in files if not is_litter(name)))
        yield Folder(Path(top), Path(top).relative_to(root), names), n_litter


def inputs_folder(root: Path, task: str) -> Path | None:
    """The folder of a task's test inputs: `<task>/input/`, `<task>/`, or the same under `test/` or `val/`.

    The first that holds images; where none does, the first that exists; None without any.
    """
    there = [folder for place in _TEST_PLACES if (folder := root / place.format(task=task)).is_dir()]
    return next((folder for folder in there if list_images(folder)), there[0] if there else None)
