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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pbvs.core.pixels import IMAGE_SUFFIXES, TIFF_SUFFIXES, list_images

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
_TAKEN = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:(?P<sign>[T_-]?)(?P<hour>\d\d)(?P<colon>[-:]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d))?(?!\d)",
    re.IGNORECASE,
)
_TILE_MODALITIES: dict[str, Modality] = {"sar": "sar", "eo": "eo"}
_SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "val": "validation"}


class Folder(NamedTuple):
    """One folder of an archive, and the files directly in it.

    Attributes:
        path: its absolute place; folders on the way have the names by which they were reached.
        relative: its place below the root, "" for the root itself.
        names: its files, sorted, litter left out.
    """

    path: Path
    relative: str
    names: tuple[str, ...]

    def file(self, name: str) -> str:
        """The place below the root of the file called `name` in this folder."""
        return f"{self.relative}/{name}" if self.relative else name


class Entry(NamedTuple):
    """One image file and what its place and name tell of it."""

    family: Family
    city: str
    location: str
    modality: Modality
    capture: str
    mosaic: bool
    taken: str  # ISO 8601: a date, or a date and time of day; "" when the name holds none
    file: str  # its place below the root, parted by "/"
    split: Split

    @property
    def path(self) -> Path:
        """Its place relative to the root."""
        return Path(self.file)


@dataclass
class Listing:
    """What lies under a root.

    Attributes:
        entries: every image of a known layout, sorted by path.
        accompanied: the `file` of those beside which a file of the same stem and another kind lies, which may
            tell more of the image than it does itself (`.tfw`, `.aux.xml`).
        unreadable: files and folders that cannot be looked at, and why.
        n_litter: how much litter was passed over.
    """

    entries: list[Entry] = field(default_factory=list)
    accompanied: set[str] = field(default_factory=set)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    n_litter: int = 0


Layout = Callable[[Folder], Iterable[Entry]]
"""Gives the images of one folder, none when the folder is not of its kind."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is what an operating system leaves behind."""
    return name.startswith(".") or name.casefold() in ("__macosx", "thumbs.db", "desktop.ini")


def time_in_name(name: str) -> str:
    """The first date in a file name, with the time of day where it follows, in ISO 8601; "" without one.

    Read are `20201104` and `2020-11-04`, `20201104T163312`, `2023-05-12-16-33-12` and the like. Digits that
    are no date of the calendar stay none, and digits that are no time of day leave the date alone.
    """
    for match in _TAKEN.finditer(name):
        try:
            date = datetime.date(int(match["year"]), int(match["month"]), int(match["day"])).isoformat()
        except ValueError:
            continue
        if match["hour"] is None:
            return date
        hour, minute, second = match["hour"], match["minute"], match["second"]
        if int(hour) < 24 and int(minute) < 60 and int(second) < 60:
            return f"{date}T{hour}:{minute}:{second}"
        if match["sign"]:
            return date
    return ""


def _parts(name: str) -> tuple[str, str]:
    """Stem, and suffix in lower case: as `Path` has them, which takes ten times as long."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:].lower()) if dot > 0 else (name, "")


def stack_entries(folder: Folder) -> Iterator[Entry]:
    """The images of one stack location: `folder` is named by a corner, or lies in a city's archive."""
    place = folder.path
    in_archive = _CITY.fullmatch(place.parent.name) is not None
    if not (in_archive or _CORNER.fullmatch(place.name)):
        return
    city = _city_of(place)
    for name in folder.names:
        stem, suffix = _parts(name)
        if suffix in TIFF_SUFFIXES:
            modality, capture, mosaic = _stack_name(stem)
            taken, file = time_in_name(name), folder.file(name)
            yield Entry("stack", city, place.name, modality, capture, mosaic, taken, file, "train")


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
    split = _SPLITS.get(folder.path.name.casefold())
    modality = _TILE_MODALITIES.get(folder.path.parent.name.casefold())
    if split is None or modality is None:
        return
    for name in folder.names:
        stem, suffix = _parts(name)
        if suffix in IMAGE_SUFFIXES:
            location = f"{split}-{stem}"  # a name may occur in both splits, as two places
            yield Entry("eo_sar", "", location, modality, stem, False, "", folder.file(name), split)


# A new layout is one function here; each is asked about every folder.
LAYOUTS: tuple[Layout, ...] = (stack_entries, eo_sar_entries)


def find_images(root: Path, layouts: Iterable[Layout] | None = None) -> Listing:
    """Every image under `root`, at any depth, that lies in one of the known layouts.

    Args:
        root: one archive, a location, or a parent of all; links to folders are followed once.
        layouts: the functions that know the images of a folder; by default `LAYOUTS`.
    """
    asked = LAYOUTS if layouts is None else tuple(layouts)
    found = Listing()
    for folder in _folders(root, found):
        entries = [entry for layout in asked for entry in layout(folder)]
        if entries:
            found.entries += entries
            found.accompanied |= _accompanied(folder, entries)
    found.entries.sort(key=lambda entry: entry.file)
    return found


def _accompanied(folder: Folder, entries: list[Entry]) -> set[str]:
    others = [name for name in folder.names if not name.lower().endswith(IMAGE_SUFFIXES)]
    stems = {name[:dot].casefold() for name in others for dot, sign in enumerate(name) if sign == "."}
    if not stems:
        return set()
    return {one.file for one in entries if _parts(one.file.rpartition("/")[2])[0].casefold() in stems}


def _folders(root: Path, found: Listing) -> Iterator[Folder]:
    """The folders from `root` down that prepare did not write; what cannot be looked at goes to `found`."""
    top = root.resolve()
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        place = top / relative
        try:
            inode = place.stat()
            if (inode.st_dev, inode.st_ino) in seen:
                continue
            seen.add((inode.st_dev, inode.st_ino))
            below, names, litter = _listed(place)
            odd = [name for name in (*below, *names) if not _is_text(name)]
        except OSError as error:
            found.unreadable.append((relative, f"the folder cannot be listed: {error.strerror}"))
            continue
        if PREPARED_MARK not in names:
            found.n_litter += len(litter)
            found.unreadable += [(relative, f"the name {name!a} is not UTF-8") for name in odd]
            folder = Folder(place, relative, tuple(name for name in names if name not in odd))
            waiting += [folder.file(name) for name in reversed(below) if name not in odd]
            yield folder


def _listed(place: Path) -> tuple[list[str], list[str], list[str]]:
    """The folders, the files and the litter in a folder, each sorted."""
    folders: list[str] = []
    files: list[str] = []
    litter: list[str] = []
    with os.scandir(place) as listing:
        for one in listing:
            kind = litter if is_litter(one.name) else folders if _is_folder(one) else files
            kind.append(one.name)
    return sorted(folders), sorted(files), litter


def _is_text(name: str) -> bool:
    """Whether a name can be written to a table: unpacked on another system it may hold any bytes."""
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


def _is_folder(one: os.DirEntry[str]) -> bool:
    try:
        return one.is_dir()
    except OSError:  # a link that leads to itself: reading it as a file will tell
        return False


def inputs_folder(root: Path, task: str) -> Path | None:
    """The folder of a task's test inputs: `<task>/input/`, `<task>/`, or the same under `test/` or `val/`.

    The first that holds images; where none does, the first that exists; None without any.
    """
    there = [folder for place in _TEST_PLACES if (folder := root / place.format(task=task)).is_dir()]
    return next((folder for folder in there if list_images(folder)), there[0] if there else None)
