"""`scan`: what lies under a root, one row an image, and what is wrong with it; reads headers only."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rasterio.errors import RasterioError

from pbvs.archives.headers import Header, HeaderReader
from pbvs.archives.layouts import (
    BANDS,
    EXPECTED_LAYOUTS,
    FAMILY_MODALITIES,
    Entry,
    Layout,
    Listing,
    find_images,
)
from pbvs.archives.scan_cache import CachedHeader, is_lasting, load_headers, save_headers
from pbvs.core.errors import DataError, ImageError, UsageError
from pbvs.core.pixels import no_georeference_warnings

Progress = Callable[[int, int], None]

IMAGE_COLUMNS = (
    *("family", "city", "location", "modality", "capture", "mosaic", "taken", "path", "n_bytes"),
    *("height_px", "width_px", "bands", "dtype", "crs", "transform", "nodata", "split", "usable"),
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
_CHUNK = 256  # files a thread takes at once: handing over each one would cost more than reading it


@dataclass(frozen=True)
class Problem:
    """One fault found: the file or folder (relative to the root), its kind in a word, and what it is."""

    path: str
    kind: str
    what: str


@dataclass(frozen=True)
class ScannedImage:
    """One image file with its header, and whether it can be worked with."""

    entry: Entry
    n_bytes: int
    header: Header
    usable: bool


@dataclass(frozen=True)
class Scan:
    """What `scan` found.

    Attributes:
        images: one row an image file, sorted by path, with `IMAGE_COLUMNS`. `taken` is a date or a date and
            time (ISO 8601), `transform` six numbers `a b c d e f` (x = a column + b row + c, y = d column +
            e row + f), each "" when not told. `usable` is False for a file that is empty, unreadable, of a
            wrong kind or a duplicate.
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
        """What each task's (source, target, family) can draw from.

        One row each: `locations` that hold at least one image of both, and `pairs`, the combinations of a
        source and a target image of one location (EO/SAR tiles: of one name).
        """
        usable = self._usable()
        places = (usable[name] for name in ("family", "modality", "city", "location"))
        counts = Counter(zip(*places, strict=True))
        rows = []
        for source, target, family in TASK_PAIRS:
            products = [
                n * counts[family, target, city, location]
                for (its_family, modality, city, location), n in counts.items()
                if (its_family, modality) == (family, source) and (family, target, city, location) in counts
            ]
            rows.append((source, target, family, len(products), sum(products)))
        return pd.DataFrame(rows, columns=["source", "target", "family", "locations", "pairs"])

    def described(self) -> dict[str, list[dict[str, Any]]]:
        """All of it as JSON-like values: lists of rows by the names of the tables; None for no number."""
        tables = {"images": self.images, "problems": self.problems}
        tables |= {"summary": self.summary(), "pairable": self.pairable()}
        return {
            name: table.astype(object).where(table.notna(), None).to_dict("records")
            for name, table in tables.items()
        }

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


def scan(
    root: Path,
    progress: Progress | None = None,
    *,
    cache: bool = True,
    layouts: Iterable[Layout] | None = None,
) -> Scan:
    """Finds every image of the known layouts under `root` and reads its header.

    Args:
        root: one archive's folder or a parent of all, at any depth.
        progress: called with (files looked at, files in all), now and then.
        cache: whether headers are remembered for the next scan, and those remembered are used for files of
            unchanged size and time (see `pbvs.archives.scan_cache`). The result is the same.
        layouts: the functions that know the images of a folder; by default `pbvs.archives.layouts.LAYOUTS`.

    Raises:
        UsageError: `root` is no folder.
        DataError: nothing under it lies as any known layout has it.
    """
    seen, problems = look(root, progress, cache=cache, layouts=layouts)
    told = sorted((problem.path, problem.kind, problem.what) for problem in problems)
    return Scan(_image_table(seen), pd.DataFrame(told, columns=list(PROBLEM_COLUMNS)))


def look(
    root: Path,
    progress: Progress | None = None,
    *,
    cache: bool = True,
    layouts: Iterable[Layout] | None = None,
) -> tuple[list[ScannedImage], list[Problem]]:
    """As `scan`, with the same errors; gives the images, sorted by path, and the problems as objects."""
    if not root.is_dir():
        raise UsageError(
            "there is no such data folder", where=root, next_step="name the folder with the archives"
        )
    found = find_images(root, layouts)
    if not found.entries:
        raise _nothing_found(root, found)
    problems = [Problem(path, "unreadable", what) for path, what in found.unreadable]
    if found.n_litter:
        problems.append(
            Problem("", "litter", f"{found.n_litter} files or folders of litter were passed over")
        )
    known = load_headers(root) if cache else {}
    looks = _look_at_all(root, found, known, progress)
    if cache:
        _remember(root, looks, known)
    problems += [one.problem for one in looks if one.problem]
    seen = _with_equal_tiles(_without_duplicates([one.seen for one in looks], problems), problems)
    problems += _gaps(seen)
    return seen, problems


def _nothing_found(root: Path, found: Listing) -> DataError:
    if found.unreadable:
        place, why = found.unreadable[0]
        return DataError(
            f"no image can be looked at here: {why}",
            where=root / place,
            next_step="make the folder readable for you",
        )
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(
        f"no image lies here as the archives have them; seen: {shown or 'an empty folder'}",
        where=root,
        next_step=f"point to the unpacked archives, which hold {EXPECTED_LAYOUTS}",
    )


def _image_table(seen: list[ScannedImage]) -> pd.DataFrame:
    places: dict[Header, str] = {}
    rows = []
    for one in seen:
        e, h = one.entry, one.header
        if h not in places:
            places[h] = " ".join(map(repr, h.transform)) if h.transform else ""
        named = (e.family, e.city, e.location, e.modality, e.capture, e.mosaic, e.taken, e.file, one.n_bytes)
        rows.append((*named, *h[:5], places[h], h.nodata, e.split, one.usable))
    columns = zip(*rows, strict=True)
    return pd.DataFrame(dict(zip(IMAGE_COLUMNS, map(list, columns), strict=True)))


# ---- one file


class ReadResult(NamedTuple):
    """What one file is; `known` is what may be remembered of it, if anything."""

    seen: ScannedImage
    problem: Problem | None
    known: CachedHeader | None


def _look_at_all(
    root: Path, found: Listing, known: Mapping[str, CachedHeader], progress: Progress | None
) -> list[ReadResult]:
    """Looks at every entry; in threads from when more time goes into waiting for the disk than into work.

    Headers that the system has in its memory are read faster by one thread alone.
    """
    reader = HeaderReader()

    def look_at(entries: list[Entry]) -> list[ReadResult]:
        return [_look_at(root, e, reader, e.file in found.accompanied, known.get(e.file)) for e in entries]

    chunks = [found.entries[at : at + _CHUNK] for at in range(0, len(found.entries), _CHUNK)]
    looks: list[ReadResult] = []

    def take(chunk: list[ReadResult]) -> None:
        looks.extend(chunk)
        if progress:
            progress(len(looks), len(found.entries))

    with no_georeference_warnings():
        left = iter(chunks)
        for entries in left:
            began, worked = time.perf_counter(), time.thread_time()
            take(look_at(entries))
            if time.perf_counter() - began > 2 * (time.thread_time() - worked):
                _in_threads(look_at, left, take)
    return looks


def _in_threads(
    look_at: Callable[[list[Entry]], list[ReadResult]],
    chunks: Iterator[list[Entry]],
    take: Callable[[list[ReadResult]], None],
) -> None:
    """Looks at all that is left, in order."""
    with ThreadPoolExecutor(_N_THREADS) as pool:
        try:
            for chunk in pool.map(look_at, chunks):
                take(chunk)
        finally:  # when interrupted, without waiting for all that is left
            pool.shutdown(wait=False, cancel_futures=True)


def _look_at(
    root: Path, entry: Entry, reader: HeaderReader, accompanied: bool, known: CachedHeader | None
) -> ReadResult:
    n_bytes, header, lasting = 0, Header(), None
    try:
        path = os.path.join(root, entry.file)  # noqa: PTH118 (a hot loop)
        state = os.stat(path)  # noqa: PTH116
        n_bytes, changed = state.st_size, state.st_mtime_ns
        if not stat.S_ISREG(state.st_mode):
            raise ImageError("neither a file nor a folder")
        if n_bytes == 0:
            problem: Problem | None = Problem(entry.file, "empty", "the file has no bytes")
        else:
            if known and (known.n_bytes, known.mtime_ns) == (n_bytes, changed) and not accompanied:
                header, lasting = known.header, known
            else:
                header = reader.read(path, accompanied)
                if is_lasting(changed) and not accompanied:
                    lasting = CachedHeader(n_bytes, changed, header)
            problem = _fault_of(entry, header)
    except (ImageError, RasterioError, OSError, ValueError) as error:  # ValueError: of a CRS
        problem = Problem(entry.file, "unreadable", f"the file cannot be read: {_reason(error)}")
    return ReadResult(ScannedImage(entry, n_bytes, header, problem is None), problem, lasting)


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return error.what
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _remember(root: Path, looks: list[ReadResult], known: Mapping[str, CachedHeader]) -> None:
    now = {one.seen.entry.file: one.known for one in looks if one.known}
    if now != known:
        save_headers(root, now)


def _fault_of(entry: Entry, header: Header) -> Problem | None:
    path, bands = entry.file, BANDS[entry.modality]
    if header.bands != bands:
        return Problem(path, "bands", f"{header.bands} bands where {entry.modality} has {bands}")
    if header.palette:
        return Problem(path, "bands", "a palette image: its values are indices, no levels")
    if header.dtype not in ("uint8", "uint16"):
        return Problem(path, "dtype", f"pixels are {header.dtype}, not uint8 or uint16")
    if entry.family == "stack" and not (header.crs and header.transform):
        lacking = "transform" if header.crs else "CRS"
        return Problem(path, "no_crs", f"the file does not say where on Earth it lies (no {lacking})")
    return None


# ---- all files together


def _without_duplicates(seen: list[ScannedImage], problems: list[Problem]) -> list[ScannedImage]:
    """Marks all but the first of files that stand for the same capture, by name without case."""
    first: dict[tuple[str, ...], str] = {}
    kept: list[ScannedImage] = []
    for one in seen:
        e = one.entry
        if one.usable:
            names = (e.city.casefold(), e.location.casefold(), e.capture.casefold())
            other = first.setdefault((e.family, e.modality, *names), e.file)
            if other != e.file:
                problems.append(Problem(e.file, "duplicate", f"stands for the same capture as {other}"))
                one = replace(one, usable=False)
        kept.append(one)
    return kept


def _with_equal_tiles(seen: list[ScannedImage], problems: list[Problem]) -> list[ScannedImage]:
    """Marks the two tiles of an EO/SAR pair when they differ in size: they cannot be one place."""
    tiles: dict[str, tuple[int, int]] = {}
    odd: set[str] = set()
    for one in seen:
        if one.usable and one.entry.family == "eo_sar":
            size = (one.header.height_px, one.header.width_px)
            if tiles.setdefault(one.entry.location, size) != size:
                odd.add(one.entry.location)
    kept: list[ScannedImage] = []
    for one in seen:
        if one.usable and one.entry.family == "eo_sar" and one.entry.location in odd:
            told = f"{one.header.height_px} x {one.header.width_px}"
            problems.append(Problem(one.entry.file, "sizes", f"{told}, other than the tile of its pair"))
            one = replace(one, usable=False)
        kept.append(one)
    return kept


def _gaps(seen: Iterable[ScannedImage]) -> Iterator[Problem]:
    """A problem for each modality that a location lacks (among its usable images)."""
    places: dict[tuple[str, str, str], list[ScannedImage]] = {}
    for one in seen:
        places.setdefault((one.entry.family, one.entry.city, one.entry.location), []).append(one)
    for (family, _, location), images in places.items():
        usable = [one.entry for one in images if one.usable]
        have = {entry.modality for entry in usable}
        lacking = [m for m in FAMILY_MODALITIES[family] if m not in have]  # type: ignore[index]
        if lacking and family == "stack":
            what = f"location {location} has no usable {', no '.join(lacking)}"
            yield Problem(images[0].entry.path.parent.as_posix(), "missing_modality", what)
        elif lacking and usable:
            what = f"{usable[0].modality.upper()} without its {lacking[0].upper()}"
            yield Problem(usable[0].file, "unpaired", what)
