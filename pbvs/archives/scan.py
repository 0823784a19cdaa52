"""`scan`: one row per image under a root, and every problem found; reads headers only."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
    Family,
    Layout,
    Listing,
    find_images,
)
from pbvs.archives.scan_cache import CachedHeader, is_lasting, load_headers, save_headers
from pbvs.core.errors import DataError, ImageError, UsageError
from pbvs.core.pixels import no_georeference_warnings
from pbvs.core.types import Progress

IMAGE_COLUMNS = (
    *("family", "city", "location", "modality", "capture", "mosaic", "taken", "path", "n_bytes"),
    *("height_px", "width_px", "bands", "dtype", "crs", "transform", "nodata", "split", "usable"),
)
PROBLEM_COLUMNS = ("path", "kind", "what")

# (source, target, family) of the challenge's tasks.
TASK_PAIRS = (
    ("sar", "eo", "eo_sar"),
    ("sar", "rgb", "stack"),
    ("rgb", "ir", "stack"),
    ("sar", "ir", "stack"),
)

_N_THREADS = 8
_CHUNK = 256  # files per work item of a thread: with one each, the handover costs more than the reading


@dataclass(frozen=True)
class Problem:
    """One problem: the file or folder (relative to the root), its kind in one word, and a description."""

    path: str
    kind: str
    what: str


@dataclass(frozen=True)
class ScannedImage:
    """One image file with its header, and whether it is usable."""

    entry: Entry
    n_bytes: int
    header: Header
    usable: bool


@dataclass(frozen=True)
class Scan:
    """The result of `scan`.

    Attributes:
        images: one row per image file, sorted by path, with `IMAGE_COLUMNS`. `taken` is a date or a date and
            time (ISO 8601), `transform` six numbers `a b c d e f` (x = a column + b row + c, y = d column +
            e row + f), each "" when unknown. `usable` is False for a file that is empty, unreadable, of an
            unsupported type or a duplicate.
        problems: one row per problem, sorted, with `PROBLEM_COLUMNS`. Kinds: empty, unreadable, bands, dtype,
            no_crs, duplicate, sizes, unpaired, missing_modality, litter.
    """

    images: pd.DataFrame
    problems: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """One row per family, city and modality: images, locations, captures per location, sizes, types."""
        keys = ["family", "city", "modality"]
        rows = []
        for key, part in self._usable().groupby(keys):
            per_location = part.groupby("location").size()
            fewest, most = int(per_location.min()), int(per_location.max())
            captures = str(most) if fewest == most else f"{fewest} to {most}"
            sizes = sorted(set(zip(part.height_px, part.width_px, strict=True)))
            ends = " to ".join(f"{height}x{width}" for height, width in dict.fromkeys((sizes[0], sizes[-1])))
            dtypes = ", ".join(f"{name} {n}" for name, n in sorted(part["dtype"].value_counts().items()))
            rows.append((*key, len(part), len(per_location), captures, ends, dtypes))
        columns = [*keys, "images", "locations", "captures_per_location", "sizes_px", "dtypes"]
        return pd.DataFrame(rows, columns=columns)

    def pairable(self) -> pd.DataFrame:
        """What each task's (source, target, family) can sample from.

        One row each: `locations` with at least one image of both modalities, and `pairs`, the combinations of
        a source and a target image of one location (EO/SAR tiles: of one name).
        """
        usable = self._usable()
        keys = (usable[name] for name in ("family", "modality", "city", "location"))
        counts = Counter(zip(*keys, strict=True))
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
        """All tables as JSON-like values: lists of rows by table name; None for a missing number."""
        tables = {"images": self.images, "problems": self.problems}
        tables |= {"summary": self.summary(), "pairable": self.pairable()}
        return {
            name: table.astype(object).where(table.notna(), None).to_dict("records")
            for name, table in tables.items()
        }

    def _usable(self) -> pd.DataFrame:
        return self.images[self.images.usable]


def scan(
    root: Path,
    progress: Progress | None = None,
    *,
    cache: bool = True,
    layouts: Iterable[Layout] | None = None,
) -> Scan:
    """Finds every image of a known layout under `root` and reads its header.

    Args:
        root: one archive's folder or a parent of all, at any depth.
        progress: called now and then with (files read, files in total).
        cache: whether to reuse the cached headers of files with unchanged size and time, and to cache the
            headers for the next scan (see `pbvs.archives.scan_cache`). The result is the same.
        layouts: the layouts to recognise; by default `pbvs.archives.layouts.LAYOUTS`.

    Raises:
        UsageError: `root` is not a folder.
        DataError: no file under it matches a known layout.
    """
    images, problems = scan_files(root, progress, cache=cache, layouts=layouts)
    transforms: dict[Header, str] = {}
    rows = []
    for image in images:
        e, h = image.entry, image.header
        if h not in transforms:
            transforms[h] = " ".join(map(repr, h.transform)) if h.transform else ""
        about = (e.family, e.city, e.location, e.modality, e.capture, e.mosaic, e.acquired_at, e.file)
        rows.append((*about, image.n_bytes, *h[:5], transforms[h], h.nodata, e.split, image.usable))
    columns = map(list, zip(*rows, strict=True))
    faults = sorted((problem.path, problem.kind, problem.what) for problem in problems)
    return Scan(
        pd.DataFrame(dict(zip(IMAGE_COLUMNS, columns, strict=True))),
        pd.DataFrame(faults, columns=list(PROBLEM_COLUMNS)),
    )


def scan_files(
    root: Path,
    progress: Progress | None = None,
    *,
    cache: bool = True,
    layouts: Iterable[Layout] | None = None,
) -> tuple[list[ScannedImage], list[Problem]]:
    """Like `scan`, with the same errors, but returns objects: images, sorted by path, and problems."""
    if not root.is_dir():
        raise UsageError(
            "there is no such data folder", where=root, next_step="name the folder with the archives"
        )
    listing = find_images(root, layouts)
    if not listing.entries and listing.unreadable:
        path, reason = listing.unreadable[0]
        raise DataError(
            f"no image can be read here: {reason}",
            where=root / path,
            next_step="give yourself permission to read the folder",
        )
    if not listing.entries:
        names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise DataError(
            f"no image matches a known layout; found: {', '.join(names[:8]) + more or 'an empty folder'}",
            where=root,
            next_step=f"name the folder of the unpacked archives, which hold {EXPECTED_LAYOUTS}",
        )
    problems = [Problem(path, "unreadable", what) for path, what in listing.unreadable]
    if listing.n_ignored:
        what = f"{listing.n_ignored} hidden or system files and folders were ignored"
        problems.append(Problem("", "litter", what))
    cached = load_headers(root) if cache else {}
    results = _read_all(root, listing, cached, progress)
    lasting = {result.image.entry.file: result.lasting for result in results if result.lasting}
    if cache and lasting != cached:
        save_headers(root, lasting)
    problems += [result.problem for result in results if result.problem]
    return _cross_check([result.image for result in results], problems), problems


# ---- one file


class ReadResult(NamedTuple):
    """The image, its problem if any, and its header if that may be cached."""

    image: ScannedImage
    problem: Problem | None
    lasting: CachedHeader | None


def _read_all(
    root: Path, listing: Listing, cached: Mapping[str, CachedHeader], progress: Progress | None
) -> list[ReadResult]:
    """Reads every entry, in order; with threads once a chunk waits for the disk longer than it computes.

    Headers that are in the system's memory are read faster by a single thread.
    """
    reader = HeaderReader()

    def read_chunk(entries: list[Entry]) -> list[ReadResult]:
        return [
            _read_file(root, e, reader, e.file in listing.with_sidecars, cached.get(e.file)) for e in entries
        ]

    n = len(listing.entries)
    chunks = iter([listing.entries[at : at + _CHUNK] for at in range(0, n, _CHUNK)])
    results: list[ReadResult] = []
    with no_georeference_warnings(), ThreadPoolExecutor(_N_THREADS) as pool:
        pending: Iterator[list[ReadResult]] = map(read_chunk, chunks)
        is_threaded = False
        try:
            while len(results) < n:
                wall, cpu = time.perf_counter(), time.thread_time()
                results += next(pending)
                if progress:
                    progress(len(results), n)
                if not is_threaded and time.perf_counter() - wall > 2 * (time.thread_time() - cpu):
                    pending, is_threaded = pool.map(read_chunk, chunks), True
        finally:  # an interrupt does not wait for the remaining chunks
            pool.shutdown(wait=False, cancel_futures=True)
    return results


def _read_file(
    root: Path, entry: Entry, reader: HeaderReader, has_sidecar: bool, cached: CachedHeader | None
) -> ReadResult:
    n_bytes, header, lasting, fault = 0, Header(), None, None
    try:
        path = os.path.join(root, entry.file)  # noqa: PTH118 (a hot loop)
        state = os.stat(path)  # noqa: PTH116
        n_bytes, mtime_ns = state.st_size, state.st_mtime_ns
        if not stat.S_ISREG(state.st_mode):
            raise ImageError("not a regular file")
        if cached and (cached.n_bytes, cached.mtime_ns) == (n_bytes, mtime_ns) and not has_sidecar:
            header, lasting = cached.header, cached
        elif n_bytes:
            header = reader.read(path, has_sidecar)
            if is_lasting(mtime_ns) and not has_sidecar:
                lasting = CachedHeader(n_bytes, mtime_ns, header)
    except (ImageError, RasterioError, OSError, ValueError) as error:  # ValueError: of a CRS
        reason = error.what if isinstance(error, ImageError) else getattr(error, "strerror", None) or error
        fault = "unreadable", f"the file cannot be read: {reason}"
    else:
        if n_bytes == 0:
            fault = "empty", "the file has no bytes"
        elif header.bands != (bands := BANDS[entry.modality]):
            fault = "bands", f"{header.bands} bands where {entry.modality} has {bands}"
        elif header.palette:
            fault = "bands", "a palette image: its values are indices, not intensities"
        elif header.dtype not in ("uint8", "uint16"):
            fault = "dtype", f"pixels are {header.dtype}, not uint8 or uint16"
        elif entry.family == "stack" and not (header.crs and header.transform):
            fault = "no_crs", f"the file is not georeferenced (no {'transform' if header.crs else 'CRS'})"
    problem = Problem(entry.file, *fault) if fault else None
    return ReadResult(ScannedImage(entry, n_bytes, header, problem is None), problem, lasting)


# ---- all files together


def _cross_check(images: list[ScannedImage], problems: list[Problem]) -> list[ScannedImage]:
    """Adds the problems that show only between files; returns the images, with those at fault unusable.

    Duplicates: all but the first file of the same capture, names compared without case. Sizes: both tiles of
    an EO/SAR pair that differ in size. Gaps: every modality that a location has no usable image of.
    """
    faults: dict[str, Problem] = {}
    first: dict[tuple[str, ...], str] = {}
    for e in (image.entry for image in images if image.usable):
        names = (e.city.casefold(), e.location.casefold(), e.capture.casefold())
        other = first.setdefault((e.family, e.modality, *names), e.file)
        if other != e.file:
            faults[e.file] = Problem(e.file, "duplicate", f"the same capture as {other}")

    tiles: dict[str, list[ScannedImage]] = defaultdict(list)
    for image in images:
        if image.usable and image.entry.family == "eo_sar" and image.entry.file not in faults:
            tiles[image.entry.location].append(image)
    for pair in tiles.values():
        sizes = {image.entry.file: (image.header.height_px, image.header.width_px) for image in pair}
        if len(set(sizes.values())) > 1:
            for file, (height, width) in sizes.items():
                what = f"{height} x {width}, other than the tile of its pair"
                faults[file] = Problem(file, "sizes", what)
    problems += faults.values()
    images = [replace(image, usable=False) if image.entry.file in faults else image for image in images]

    locations: dict[tuple[Family, str, str], list[ScannedImage]] = defaultdict(list)
    for image in images:
        locations[image.entry.family, image.entry.city, image.entry.location].append(image)
    for (family, _, location), of_location in locations.items():
        usable = [image.entry for image in of_location if image.usable]
        missing = [m for m in FAMILY_MODALITIES[family] if m not in {entry.modality for entry in usable}]
        if missing and family == "stack":
            folder = of_location[0].entry.path.parent.as_posix()
            what = f"location {location} has no usable {', no '.join(missing)}"
            problems.append(Problem(folder, "missing_modality", what))
        elif missing and usable:
            what = f"{usable[0].modality.upper()} without its {missing[0].upper()}"
            problems.append(Problem(usable[0].file, "unpaired", what))
    return images
