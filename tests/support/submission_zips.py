"""Generated zips, good and broken, for the tests of `pbvs.submission`."""

from __future__ import annotations

import stat
import struct
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from pbvs.core.pixels import encode_png, no_georeference_warnings
from pbvs.submission import Expected, ReadmeFields

EXPECTED = {
    "sar2eo": Expected((16, 16), 1),
    "sar2rgb": Expected((16, 24), 3),
    "rgb2ir": Expected((16, 24), 1),
    "sar2ir": Expected((16, 24), 1),
}
IDS = {
    "sar2eo": ("66", "67", "Gotcha_1"),
    "sar2rgb": ("0", "1", "10"),
    "rgb2ir": ("0", "1"),
    "sar2ir": ("0", "2"),
}
README = ReadmeFields(10.43, cpu=True, extra_data=True, description="for a test")


@dataclass(frozen=True)
class Entry:
    """One entry, written verbatim even when it is wrong."""

    name: str
    data: bytes
    method: int = zipfile.ZIP_STORED
    mode: int = stat.S_IFREG | 0o644


def pixels(rng: np.random.Generator, size_px: tuple[int, int], bands: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (*size_px, bands), dtype=np.uint8)


def tiff(image: NDArray, **options: object) -> bytes:
    with no_georeference_warnings(), MemoryFile() as memory:
        height, width, count = image.shape
        shape = {"height": height, "width": width, "count": count, "dtype": image.dtype.name}
        with memory.open(driver="GTiff", **shape, **options) as dataset:
            dataset.write(image.transpose(2, 0, 1))
        return bytes(memory.read())


def good_entries(seed: int = 0) -> list[Entry]:
    """A whole submission: readme and four tasks, the last of them as TIFF."""
    rng = np.random.default_rng(seed)
    entries = [Entry("readme.txt", README.text().encode(), zipfile.ZIP_DEFLATED)]
    for task, ids in IDS.items():
        for stem in ids:
            image = pixels(rng, EXPECTED[task].size_px, EXPECTED[task].bands)
            if task == "sar2ir":
                entries.append(Entry(f"{task}/{stem}.tiff", tiff(image), zipfile.ZIP_DEFLATED))
            else:
                entries.append(Entry(f"{task}/{stem}.png", encode_png(image)))
    return entries


def write_zip(path: Path, entries: list[Entry]) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns about duplicate names
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, (2026, 1, 1, 0, 0, 0))
            info.filename = info.orig_filename = entry.name  # verbatim, with backslashes and NUL
            info.compress_type = entry.method
            info.external_attr = entry.mode << 16
            info.create_system = 3
            archive.writestr(info, entry.data)
    return path


def make_inputs(root: Path, place: str = "{task}") -> Path:
    """Test inputs (empty files: only their names count) for all four tasks."""
    for task, ids in IDS.items():
        folder = root / place.format(task=task)
        folder.mkdir(parents=True)
        for stem in ids:
            (folder / f"{stem}.tiff").touch()
    return root


def at(entries: list[Entry], name: str) -> int:
    return next(i for i, entry in enumerate(entries) if entry.name == name)


def with_data(entries: list[Entry], name: str, data: bytes) -> list[Entry]:
    return [replace(entry, data=data) if entry.name == name else entry for entry in entries]


def renamed(entries: list[Entry], name: str, new: str) -> list[Entry]:
    return [replace(entry, name=new) if entry.name == name else entry for entry in entries]


def patch_headers(
    path: Path, name: str, offset_local: int, offset_central: int, form: str, value: int
) -> None:
    """Overwrites one field of an entry in its local and its central header (APPNOTE.TXT 4.3.7 and 4.3.12)."""
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo(name).header_offset
        central = archive.start_dir
    data = bytearray(path.read_bytes())
    encoded = name.encode()
    while data[central + 46 : central + 46 + len(encoded)] != encoded:
        central += 46 + sum(struct.unpack_from("<HHH", data, central + 28))
    struct.pack_into(form, data, local + offset_local, value)
    struct.pack_into(form, data, central + offset_central, value)
    path.write_bytes(data)


def declare_size(path: Path, name: str, n_bytes: int) -> None:
    """Makes both headers of an entry declare another unpacked size."""
    patch_headers(path, name, 22, 24, "<I", n_bytes)


def encrypt_flag(path: Path, name: str) -> None:
    patch_headers(path, name, 6, 8, "<H", 1)


def flip_data(path: Path, name: str, at_byte: int = 20) -> None:
    """Changes one byte of an entry's packed data, except the last few: deflate ignores its last bits."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    start = (
        info.header_offset + 30 + len(name) + int.from_bytes(data[info.header_offset + 28 :][:2], "little")
    )
    data[start + at_byte % (info.compress_size - 4)] ^= 0x55
    path.write_bytes(data)
