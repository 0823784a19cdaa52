"""`scan`: what lies under a root, one row an image, and what is wrong with it; reads headers only."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import rasterio
from rasterio.errors import RasterioError

from pbvs.data.layouts import BANDS, EXPECTED_LAYOUTS, FAMILY_MODALITIES, Entry, find_images
from pbvs.data.warp import without_place_warnings
from pbvs.errors import DataError, UsageError
from pbvs.pixels import PNG_SUFFIXES

Progress = Callable[[int, int], None]

IMAGE_COLUMNS = (
    *("family", "city", "location", "modality", "capture", "mosaic", "taken", "path", "n_bytes"),
    *("height_px", "width_px", "bands", "dtype", "crs", "nodata", "split", "usable"),
)
PROBLEM_COLUMNS = ("path", "kind", "what")

# The (source, target) of the challenge's tasks and the family that holds their pairs.
TASK_PAIRS = (
    ("sar", "eo", "eo_sar"),
    ("sar", "rgb", "stack"),
    ("rgb", "ir", "stack"),
    ("sar", "ir", "stack"),
)

_N_THREADS = 8
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BANDS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # colour type to bands once decoded (PNG specification, 11.2.1)


@dataclass(frozen=True)
class Header:
    """What a file's header tells; sizes in pixels, `nodata` None when the file declares none."""

    height_px: int = 0
    width_px: int = 0
    bands: int = 0
    dtype: str = ""
    crs: str = ""
    nodata: float | None = None


@dataclass(frozen=True)
class Problem:
    """One fault found: the file or folder (relative to the root), its kind in a word, and what it is."""

    path: str
    kind: str
    what: str


@dataclass(frozen=True)
class Seen:
    """One image file with its header, and whether it can be worked with."""

    entry: Entry
    n_bytes: int
    header: Header
    usable: bool


@dataclass(frozen=True)
class Scan:
    """What `scan` found.

    Attributes:
        images: one row an image file, sorted by path, with `IMAGE_COLUMNS`. `usable` is False for a file
            that is empty, unreadable, of a wrong kind or a duplicate.
        problems: one row a fault, sorted, with `PROBLEM_COLUMNS`. Kinds: empty, unreadable, bands, dtype,
            no_crs, duplicate, sizes, unpaired, missing_modality, litter.
    """

    images: pd.DataFrame
    problems: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """One row a family, city and modality: images, locations, captures a location, sizes, types."""
        keys = ["family", "city", "modality"]
        rows = [
            _summary_row(dict(zip(keys, key, strict=True)), part)
            for key, part in self._usable().groupby(keys)
        ]
        columns = [*keys, "images", "locations", "captures_per_location", "sizes_px", "dtypes"]
        return pd.DataFrame(rows, columns=columns)

    def pairable(self) -> pd.DataFrame:
        """One row a task's (source, target, family): `locations` that hold at least one image of each."""
        usable = self._usable()
        places = {
            key: set(zip(part.city, part.location, strict=True))
            for key, part in usable.groupby(["family", "modality"])
        }
        rows = [
            (
                source,
                target,
                family,
                len(places.get((family, source), set()) & places.get((family, target), set())),
            )
            for source, target, family in TASK_PAIRS
        ]
        return pd.DataFrame(rows, columns=["source", "target", "family", "locations"])

    def _usable(self) -> pd.DataFrame:
        return self.images[self.images.usable]


def _summary_row(key: dict[str, Any], part: pd.DataFrame) -> dict[str, Any]:
    per_location = part.groupby("location").size()
    fewest, most = int(per_location.min()), int(per_location.max())
    sizes = sorted(set(zip(part.height_px, part.width_px, strict=True)))
    return key | {
        "images": len(part),
        "locations": len(per_location),
        "captures_per_location": str(most) if fewest == most else f"{fewest} to {most}",
        "sizes_px": " to ".join(
            f"{height}x{width}" for height, width in dict.fromkeys((sizes[0], sizes[-1]))
        ),
        "dtypes": ", ".join(f"{name} {n}" for name, n in sorted(part["dtype"].value_counts().items())),
    }


def scan(root: Path, progress: Progress | None = None) -> Scan:
    """Finds every image of the known layouts under `root` and reads its header.

    Args:
        root: one archive's folder or a parent of all, at any depth.
        progress: called with (files read, files in all).

    Raises:
        UsageError: `root` is no folder.
        DataError: nothing under it lies as any known layout has it.
    """
    seen, problems = look(root, progress)
    rows = [_image_row(one) for one in seen]
    told = sorted((problem.path, problem.kind, problem.what) for problem in problems)
    return Scan(
        pd.DataFrame(rows, columns=list(IMAGE_COLUMNS)), pd.DataFrame(told, columns=list(PROBLEM_COLUMNS))
    )


def look(root: Path, progress: Progress | None = None) -> tuple[list[Seen], list[Problem]]:
    """As `scan`, with the same errors; gives the images, sorted by path, and the problems as objects."""
    if not root.is_dir():
        raise UsageError(
            "there is no such data folder", where=root, next_step="name the folder with the archives"
        )
    found = find_images(root)
    if not found.entries:
        raise _nothing_found(root)
    problems: list[Problem] = []
    seen = list(_read_headers(root, found.entries, problems, progress))
    seen = _without_duplicates(seen, problems)
    seen = _with_equal_tiles(seen, problems)
    problems.extend(_gaps(seen))
    if found.n_litter:
        problems.append(
            Problem("", "litter", f"{found.n_litter} files or folders of litter were passed over")
        )
    return seen, problems


def _nothing_found(root: Path) -> DataError:
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(
        f"no image lies here as the archives have them; seen: {shown or 'an empty folder'}",
        where=root,
        next_step=f"point to the unpacked archives, which hold {EXPECTED_LAYOUTS}",
    )


def _image_row(one: Seen) -> tuple[Any, ...]:
    e, h = one.entry, one.header
    named = (
        e.family,
        e.city,
        e.location,
        e.modality,
        e.capture,
        e.mosaic,
        e.taken,
        e.path.as_posix(),
        one.n_bytes,
    )
    return (*named, h.height_px, h.width_px, h.bands, h.dtype, h.crs, h.nodata, e.split, one.usable)


def _read_headers(
    root: Path, entries: list[Entry], problems: list[Problem], progress: Progress | None
) -> Iterator[Seen]:
    with without_place_warnings(), ThreadPoolExecutor(_N_THREADS) as pool:
        for done, (one, problem) in enumerate(pool.map(lambda e: _see(root, e), entries), start=1):
            if problem:
                problems.append(problem)
            if progress:
                progress(done, len(entries))
            yield one


def _see(root: Path, entry: Entry) -> tuple[Seen, Problem | None]:
    path, n_bytes, header, problem = root / entry.path, 0, Header(), None
    try:
        n_bytes = path.stat().st_size
        if n_bytes == 0:
            problem = Problem(entry.path.as_posix(), "empty", "the file has no bytes")
        else:
            header = _png_header(path) if path.suffix.lower() in PNG_SUFFIXES else _tiff_header(path)
            problem = _fault_of(entry, header)
    except (RasterioError, OSError, ValueError) as error:
        problem = Problem(entry.path.as_posix(), "unreadable", f"the file cannot be read: {error}")
    return Seen(entry, n_bytes, header, problem is None), problem


def _tiff_header(path: Path) -> Header:
    with rasterio.open(path) as dataset:
        crs = dataset.crs.to_string() if dataset.crs else ""
        return Header(dataset.height, dataset.width, dataset.count, dataset.dtypes[0], crs, dataset.nodata)


def _png_header(path: Path) -> Header:
    """Size and type from the first 26 bytes; far faster than opening 180,000 tiles one by one."""
    with path.open("rb") as stream:
        start = stream.read(26)
    if len(start) < 26 or not start.startswith(_PNG_SIGNATURE):
        raise ValueError("not a PNG")
    width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
    if colour not in _PNG_BANDS:
        raise ValueError(f"a PNG of unknown colour type {colour}")
    return Header(height, width, _PNG_BANDS[colour], "uint16" if bits == 16 else "uint8")


def _fault_of(entry: Entry, header: Header) -> Problem | None:
    path, bands = entry.path.as_posix(), BANDS[entry.modality]
    if header.bands != bands:
        return Problem(path, "bands", f"{header.bands} bands where {entry.modality} has {bands}")
    if header.dtype not in ("uint8", "uint16"):
        return Problem(path, "dtype", f"pixels are {header.dtype}, not uint8 or uint16")
    if entry.family == "stack" and not header.crs:
        return Problem(path, "no_crs", "the file does not say where on Earth it lies (no CRS)")
    return None


def _without_duplicates(seen: list[Seen], problems: list[Problem]) -> list[Seen]:
    """Marks all but the first of files that stand for the same capture, by name without case."""
    first: dict[tuple[str, ...], str] = {}
    kept: list[Seen] = []
    for one in seen:
        e = one.entry
        if one.usable:
            key = tuple(part.casefold() for part in (e.family, e.city, e.location, e.modality, e.capture))
            other = first.setdefault(key, e.path.as_posix())
            if other != e.path.as_posix():
                problems.append(
                    Problem(e.path.as_posix(), "duplicate", f"stands for the same capture as {other}")
                )
                one = replace(one, usable=False)
        kept.append(one)
    return kept


def _with_equal_tiles(seen: list[Seen], problems: list[Problem]) -> list[Seen]:
    """Marks the two tiles of an EO/SAR pair when they differ in size: they cannot be one place."""
    tiles: dict[str, set[tuple[int, int]]] = {}
    for one in seen:
        if one.usable and one.entry.family == "eo_sar":
            tiles.setdefault(one.entry.location, set()).add((one.header.height_px, one.header.width_px))
    odd = {location for location, sizes in tiles.items() if len(sizes) > 1}
    kept: list[Seen] = []
    for one in seen:
        if one.usable and one.entry.family == "eo_sar" and one.entry.location in odd:
            size = f"{one.header.height_px} x {one.header.width_px}"
            problems.append(
                Problem(one.entry.path.as_posix(), "sizes", f"{size}, other than the tile of its pair")
            )
            one = replace(one, usable=False)
        kept.append(one)
    return kept


def _gaps(seen: Iterable[Seen]) -> Iterator[Problem]:
    """A problem for each modality that a location lacks (among its usable images)."""

    def place(one: Seen) -> tuple[str, str, str]:
        return one.entry.family, one.entry.city, one.entry.location

    for (family, _, location), group in groupby(sorted(seen, key=place), key=place):
        images = list(group)
        have = {one.entry.modality for one in images if one.usable}
        lacking = [m for m in FAMILY_MODALITIES[family] if m not in have]  # type: ignore[index]
        if not lacking:
            continue
        if family == "eo_sar":
            if have:
                path = next(one.entry.path for one in images if one.usable)
                yield Problem(
                    path.as_posix(), "unpaired", f"{have.pop().upper()} without its {lacking[0].upper()}"
                )
        else:
            path = images[0].entry.path.parent
            yield Problem(
                path.as_posix(),
                "missing_modality",
                f"location {location} has no usable {', no '.join(lacking)}",
            )
