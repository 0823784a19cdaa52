"""How the archives arrange their images in folders; one function per layout, listed in `LAYOUTS`.

Two families of data:

* `eo_sar` (UNICORN): `{SAR,EO}/{train,validation}/<name>.png`; one name is one location.
* `stack` (MAGIC): `Train_Data_<city>_SAR_IR_RGB/<location>/`, with `<capture>_rgb.tif`, `<capture>_ir.tif`,
  `mosiac_rgb*`, `mosiac_ir*` (the data's spelling; `mosaic_*` too) and SAR under any other name `*.tif(f)`.

Names are case-insensitive. Files of operating systems (`._*`, `.DS_Store`, `__MACOSX`) and folders written by
`pbvs data prepare` are ignored.
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

# Folders of a task's test inputs below their root: a folder of task folders, or the unpacked archives.
_INPUT_FOLDERS = (
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
_DATE_TIME = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:(?P<sign>[T_-]?)(?P<hour>\d\d)(?P<colon>[-:]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d))?(?!\d)",
    re.IGNORECASE,
)
_TILE_MODALITIES: dict[str, Modality] = {"sar": "sar", "eo": "eo"}
_SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "val": "validation"}


class Folder(NamedTuple):
    """One folder of an archive, and the files directly in it.

    Attributes:
        path: its absolute path; links on the way keep their own names.
        relative: its path below the root, "" for the root itself.
        names: its files, sorted, without ignored ones.
    """

    path: Path
    relative: str
    names: tuple[str, ...]

    def file(self, name: str) -> str:
        """The path below the root of the file called `name` in this folder."""
        return f"{self.relative}/{name}" if self.relative else name


class Entry(NamedTuple):
    """One image file and what its path says about it."""

    family: Family
    city: str
    location: str
    modality: Modality
    capture: str
    mosaic: bool
    acquired_at: str  # ISO 8601 date, or date and time; "" when the name has none
    file: str  # path below the root, separated by "/"
    split: Split

    @property
    def path(self) -> Path:
        """Its path relative to the root."""
        return Path(self.file)


@dataclass
class Listing:
    """The images found under a root.

    Attributes:
        entries: every image of a known layout, sorted by path.
        with_sidecars: the `file` of each entry that has a file of the same stem and another type next to it,
            which may add to its header (`.tfw`, `.aux.xml`).
        unreadable: files and folders that cannot be read, each with the reason.
        n_ignored: number of ignored files and folders.
    """

    entries: list[Entry] = field(default_factory=list)
    with_sidecars: set[str] = field(default_factory=set)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    n_ignored: int = 0


Layout = Callable[[Folder], Iterable[Entry]]
"""Returns the images of one folder; none when the folder is not of its layout."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden or metadata of an operating system."""
    return name.startswith(".") or name.casefold() in ("__macosx", "thumbs.db", "desktop.ini")


def time_in_name(name: str) -> str:
    """The first date in a file name, with the time of day that follows it, in ISO 8601; "" without a date.

    Understands `20201104` and `2020-11-04`, `20201104T163312`, `2023-05-12-16-33-12` and the like. Digits
    that are no calendar date are skipped; after a date, digits that are no time of day are ignored.
    """
    for match in _DATE_TIME.finditer(name):
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
    """Stem and lower-case suffix, as `Path` splits them, but ten times faster."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:].lower()) if dot > 0 else (name, "")


def stack_entries(folder: Folder) -> Iterator[Entry]:
    """The images of one stack location: a folder named by a corner, or a subfolder of a city's archive."""
    path = folder.path
    if not (_CITY.fullmatch(path.parent.name) or _CORNER.fullmatch(path.name)):
        return
    cities = (match["city"] for parent in path.parents if (match := _CITY.fullmatch(parent.name)))
    city = next(cities, path.parent.name)
    for name in folder.names:
        stem, suffix = _parts(name)
        if suffix not in TIFF_SUFFIXES:
            continue
        modality: Modality = "sar"
        capture = stem
        mosaic = _MOSAIC.fullmatch(stem)
        if match := mosaic or _OPTICAL.fullmatch(stem):
            modality = "rgb" if match["modality"].lower() == "rgb" else "ir"
            capture = MOSAIC + mosaic["rest"] if mosaic else match["capture"] or "single"
        time, file = time_in_name(name), folder.file(name)
        yield Entry("stack", city, path.name, modality, capture, mosaic is not None, time, file, "train")


def eo_sar_entries(folder: Folder) -> Iterator[Entry]:
    """The tiles of one of the four folders `{SAR,EO}/{train,validation}`."""
    split = _SPLITS.get(folder.path.name.casefold())
    modality = _TILE_MODALITIES.get(folder.path.parent.name.casefold())
    if split is None or modality is None:
        return
    for name in folder.names:
        stem, suffix = _parts(name)
        if suffix in IMAGE_SUFFIXES:
            location = f"{split}-{stem}"  # the same name in both splits is two locations
            yield Entry("eo_sar", "", location, modality, stem, False, "", folder.file(name), split)


# To add a layout, add one function; each is called for every folder.
LAYOUTS: tuple[Layout, ...] = (stack_entries, eo_sar_entries)


def find_images(root: Path, layouts: Iterable[Layout] | None = None) -> Listing:
    """Lists every image of a known layout under `root`, at any depth.

    Args:
        root: one archive, a location, or a parent of all; each folder is visited once, through links too.
        layouts: the layouts to recognise; by default `LAYOUTS`.
    """
    layouts = LAYOUTS if layouts is None else tuple(layouts)
    listing = Listing()
    for folder in _walk(root.resolve(), listing):
        entries = [entry for layout in layouts for entry in layout(folder)]
        listing.entries += entries
        others = [name for name in folder.names if not name.lower().endswith(IMAGE_SUFFIXES)]
        stems = {name[:at].casefold() for name in others for at, char in enumerate(name) if char == "."}
        if stems:
            listing.with_sidecars |= {e.file for e in entries if _parts(e.path.name)[0].casefold() in stems}
    listing.entries.sort(key=lambda entry: entry.file)
    return listing


def _walk(top: Path, listing: Listing) -> Iterator[Folder]:
    """The folders from `top` down that prepare did not write; counts and faults go to `listing`."""
    visited: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        relative = pending.pop()
        path = top / relative
        try:
            inode = path.stat()
            if (inode.st_dev, inode.st_ino) in visited:
                continue
            visited.add((inode.st_dev, inode.st_ino))
            with os.scandir(path) as children:
                # DirEntry.is_dir raises on a link to itself.
                is_folder = {
                    child.name: os.path.isdir(child) if child.is_symlink() else child.is_dir()  # noqa: PTH112
                    for child in children
                }
        except OSError as error:
            listing.unreadable.append((relative, f"the folder cannot be listed: {error.strerror}"))
            continue
        if is_folder.get(PREPARED_MARK) is False:
            continue
        names = sorted(name for name in is_folder if not is_ignored(name))
        listing.n_ignored += len(is_folder) - len(names)
        folders = [name for name in names if is_folder[name]]
        files = [name for name in names if not is_folder[name]]
        # On Linux a name may hold bytes that are not UTF-8, which cannot be written to a table.
        invalid = {name for name in names if name.encode(errors="ignore").decode() != name}
        listing.unreadable += [(relative, f"the name {name!a} is not UTF-8") for name in sorted(invalid)]
        folder = Folder(path, relative, tuple(name for name in files if name not in invalid))
        pending += [folder.file(name) for name in reversed(folders) if name not in invalid]
        yield folder


def inputs_folder(root: Path, task: str) -> Path | None:
    """The folder of a task's test inputs: `<task>/input/`, `<task>/`, or the same under `test/` or `val/`.

    The first one that holds images; without any, the first that exists; else None.
    """
    folders = [folder for name in _INPUT_FOLDERS if (folder := root / name.format(task=task)).is_dir()]
    return next((folder for folder in folders if list_images(folder)), folders[0] if folders else None)
