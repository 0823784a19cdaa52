"""Ways to break a good zip, and the problem that each must be reported as."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from submission_zips import (
    README,
    Entry,
    declare_size,
    encrypt_flag,
    flip_data,
    patch_headers,
    pixels,
    renamed,
    tiff,
    with_data,
)

from pbvs.core.pixels import encode_png
from pbvs.submission import rules

EO = "sar2eo/66.png"
RGB = "sar2rgb/0.png"
IR = "sar2ir/0.tiff"
Entries = list[Entry]


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@dataclass(frozen=True)
class Broken:
    """One way to break a good zip, and parts of the problem that must be reported."""

    kind: str
    path: str
    what: str
    hint: str
    change: Callable[[Entries], Entries] = lambda entries: entries
    patch: Callable[[Path], object] = lambda path: None


def every(change: Callable[[str], str], readme: bool = True) -> Callable[[Entries], Entries]:
    return lambda es: [replace(e, name=change(e.name)) if readme or "/" in e.name else e for e in es]


def put(*more: Entry) -> Callable[[Entries], Entries]:
    return lambda entries: [*entries, *more]


def data_of(name: str, data: bytes) -> Callable[[Entries], Entries]:
    return lambda entries: with_data(entries, name, data)


def rename(name: str, new: str) -> Callable[[Entries], Entries]:
    return lambda entries: renamed(entries, name, new)


def drop(name: str) -> Callable[[Entries], Entries]:
    return lambda entries: [e for e in entries if e.name != name]


def swap(name: str, new: str, data: bytes) -> Callable[[Entries], Entries]:
    return lambda entries: renamed(with_data(entries, name, data), name, new)


def raw_png(image: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".png", image)
    assert done
    return encoded.tobytes()


def png_from_chunks(
    width: int, height: int, bits: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG assembled chunk by chunk, for headers that no encoder writes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff_declaring(tag: int, value: int, big: bool = False) -> bytes:
    """A TIFF of 16 x 24 pixels, one of whose integer fields declares another value."""
    data = bytearray(tiff(pixels(rng(), (16, 24), 1), **({"BIGTIFF": "YES"} if big else {})))
    start, count_bytes, step, value_at = (16, 8, 20, 12) if big else (8, 2, 12, 8)
    at = start + count_bytes
    while struct.unpack_from("<H", data, at)[0] != tag:
        at += step
    struct.pack_into("<HI", data, at + 2, 4, 1)  # one LONG
    struct.pack_into("<I", data, at + value_at, value)
    return bytes(data)


def overwrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


GRAY = pixels(rng(), (16, 16), 1)
PNG = encode_png(GRAY)
PALETTE_ROWS = b"".join(b"\0" + bytes(range(16)) for _ in range(16))
CORRUPT_PIXELS = png_from_chunks(16, 16, 8, 0, b"\0\1\2")
WHOLE = rules.WHOLE_ZIP

BROKEN = {
    "not a zip": Broken(
        "archive", WHOLE, "not a zip", "recreate", patch=lambda p: p.write_bytes(b"hello" * 9)
    ),
    "empty file": Broken(
        "archive", WHOLE, "the file is empty", "recreate", patch=lambda p: p.write_bytes(b"")
    ),
    "a gzip": Broken(
        "archive", WHOLE, "gzip", "recreate", patch=lambda p: p.write_bytes(b"\x1f\x8b" + b"0" * 60)
    ),
    "cut short": Broken(
        "archive",
        WHOLE,
        "the zip is truncated",
        "copy it again",
        patch=lambda p: overwrite(p, lambda d: d[: len(d) // 2]),
    ),
    "self-extracting": Broken(
        "archive",
        WHOLE,
        "before the first entry",
        "plain zip",
        patch=lambda p: overwrite(p, lambda d: b"#!stub" + d),
    ),
    "bad checksum": Broken("torn", EO, "CRC", "recreate", patch=lambda p: flip_data(p, EO)),
    "declares more": Broken("torn", EO, "and has", "recreate", patch=lambda p: declare_size(p, EO, 10_000)),
    "declares less": Broken("torn", EO, "CRC", "recreate", patch=lambda p: declare_size(p, EO, 10)),
    "encrypted": Broken(
        "encrypted", EO, "encrypted", "without a password", patch=lambda p: encrypt_flag(p, EO)
    ),
    "bzip2": Broken(
        "method",
        EO,
        "method 12",
        "deflate",
        lambda es: [replace(e, method=12) if e.name == EO else e for e in es],
    ),
    "unknown method": Broken(
        "method", EO, "method 99", "deflate", patch=lambda p: patch_headers(p, EO, 8, 10, "<H", 99)
    ),
    "bomb": Broken(
        "bomb", EO, "4000000000", "only the predictions", patch=lambda p: declare_size(p, EO, 4_000_000_000)
    ),
    "huge readme": Broken(
        "bomb", "readme.txt", "70000", "only the predictions", data_of("readme.txt", b"a" * 70_000)
    ),
    "one top folder": Broken(
        "nested", "submission/", "not at the zip's root", "cd submission/", every("submission/{}".format)
    ),
    "two top folders": Broken("nested", "a/b/", "'a/b/'", "zip -r", every("a/b/{}".format)),
    "nested but the readme": Broken(
        "nested", "out/", "'out/'", "cd out/", every("out/{}".format, readme=False)
    ),
    "folder in task": Broken(
        "nested", "sar2eo/images/", "within the task", "move", rename(EO, "sar2eo/images/66.png")
    ),
    "capital folder": Broken(
        "folder",
        "SAR2EO/",
        "lower case",
        "rename it to sar2eo",
        every(lambda n: n.replace("sar2eo", "SAR2EO")),
    ),
    "misspelt folder": Broken(
        "folder",
        "sar_to_eo/",
        "not a task folder",
        "rename it to sar2eo",
        every(lambda n: n.replace("sar2eo", "sar_to_eo")),
    ),
    "unknown folder": Broken(
        "folder", "targets/", "not a task folder", "remove it", put(Entry("targets/0.png", PNG))
    ),
    "unknown empty folder": Broken("folder", "gt/", "not a task folder", "remove it", put(Entry("gt/", b""))),
    "empty task folder": Broken(
        "empty",
        "sar2ir/",
        "no PNG or TIFF",
        "omit the folder",
        lambda es: [*[e for e in es if not e.name.startswith("sar2ir")], Entry("sar2ir/", b"")],
    ),
    "no task folder": Broken("empty", WHOLE, "no task folder at all", "sar2eo, sar2rgb", lambda es: es[:1]),
    "nothing in it": Broken("empty", WHOLE, "no task folder at all", "sar2eo", lambda es: []),
    "images at the root": Broken(
        "extra", "66.png", "in no task folder", "move it into", rename(EO, "66.png")
    ),
    "__MACOSX": Broken(
        "litter",
        "__MACOSX/sar2eo/._66.png",
        "__MACOSX",
        "zip -d",
        put(Entry("__MACOSX/sar2eo/._66.png", b"x")),
    ),
    ".DS_Store": Broken(
        "litter", "sar2eo/.DS_Store", ".DS_Store", "zip -d", put(Entry("sar2eo/.DS_Store", b"x"))
    ),
    "._name": Broken("litter", "sar2eo/._66.png", "._66.png", "zip -d", put(Entry("sar2eo/._66.png", PNG))),
    "Thumbs.db": Broken(
        "litter", "sar2eo/Thumbs.db", "Thumbs.db", "delete", put(Entry("sar2eo/Thumbs.db", b"x"))
    ),
    "script": Broken("extra", "run.py", "scripts", "remove it", put(Entry("run.py", b"x"))),
    "table in task": Broken(
        "extra", "sar2eo/s.csv", "not an image", "remove it", put(Entry("sar2eo/s.csv", b"x"))
    ),
    "weights": Broken("extra", "net.pth", "does not belong", "remove it", put(Entry("net.pth", b"x"))),
    "zip in zip": Broken(
        "extra", "sar2eo.zip", "archive within", "unpack it", put(Entry("sar2eo.zip", b"PK"))
    ),
    "JPEG": Broken("extra", "sar2eo/66.jpg", "JPEG", "as a PNG", rename(EO, "sar2eo/66.jpg")),
    "capital suffix": Broken("name", "sar2eo/66.PNG", "lower case", "66.png", rename(EO, "sar2eo/66.PNG")),
    "missing": Broken("missing", "sar2eo/", "1 of 3 images of sar2eo are missing: 66", "translate", drop(EO)),
    "extra id": Broken(
        "extra", "sar2eo/", "no test input: 68", "remove them", put(Entry("sar2eo/68.png", PNG))
    ),
    "renamed id": Broken(
        "extra", "sar2eo/", "no test input: fake_66", "such as 66.png", rename(EO, "sar2eo/fake_66.png")
    ),
    "two suffixes": Broken(
        "doubled", EO, "sar2eo/66.png, sar2eo/66.tiff", "keep one", put(Entry("sar2eo/66.tiff", tiff(GRAY)))
    ),
    "case only": Broken(
        "doubled",
        "sar2eo/GOTCHA_1.png",
        "2 files for one id",
        "keep one",
        put(Entry("sar2eo/GOTCHA_1.png", PNG)),
    ),
    "doubled entry": Broken("doubled", EO, "2 entries of this name", "recreate", put(Entry(EO, PNG))),
    "absolute": Broken("name", "/sar2eo/68.png", "absolute", "relative", put(Entry("/sar2eo/68.png", PNG))),
    "drive": Broken("name", "C:/sar2eo/68.png", "absolute", "relative", put(Entry("C:/sar2eo/68.png", PNG))),
    "dot dot": Broken("name", "../sar2eo/68.png", "..", "relative", put(Entry("../sar2eo/68.png", PNG))),
    "backslash": Broken("name", "sar2eo\\66.png", "backslash", "tool", rename(EO, "sar2eo\\66.png")),
    "not ASCII": Broken("name", "sar2eo/bäume.png", "ASCII", "rename", put(Entry("sar2eo/bäume.png", PNG))),
    "NUL in name": Broken(
        "name", "sar2eo/66.png\\x00.exe", "ASCII", "rename", rename(EO, "sar2eo/66.png\0.exe")
    ),
    "symlink": Broken(
        "link",
        EO,
        "link",
        "file itself",
        lambda es: [replace(e, mode=stat.S_IFLNK | 0o777) if e.name == EO else e for e in es],
    ),
    "wrong size": Broken(
        "size",
        RGB,
        "8 x 12 pixels instead of 16 x 24",
        "task's size",
        data_of(RGB, encode_png(pixels(rng(), (8, 12), 3))),
    ),
    "turned": Broken(
        "size",
        RGB,
        "24 x 16 pixels instead of 16 x 24",
        "task's size",
        data_of(RGB, encode_png(pixels(rng(), (24, 16), 3))),
    ),
    "gray for RGB": Broken(
        "bands", RGB, "1 bands instead of 3", "3 band", data_of(RGB, encode_png(pixels(rng(), (16, 24), 1)))
    ),
    "alpha": Broken(
        "bands",
        EO,
        "4 bands instead of 1",
        "without transparency",
        data_of(EO, raw_png(pixels(rng(), (16, 16), 4))),
    ),
    "transparent gray": Broken(
        "bands",
        EO,
        "2 bands",
        "transparency",
        data_of(EO, png_from_chunks(16, 16, 8, 0, PALETTE_ROWS, (b"tRNS", b"\0\3"))),
    ),
    "palette": Broken(
        "bands",
        EO,
        "palette",
        "again, as a PNG",
        data_of(EO, png_from_chunks(16, 16, 8, 3, PALETTE_ROWS, (b"PLTE", bytes(range(48))))),
    ),
    "16 bits": Broken(
        "depth",
        EO,
        "16 bits per band instead of 8",
        "8 bits",
        data_of(EO, raw_png(GRAY.astype(np.uint16) * 257)),
    ),
    "16-bit TIFF": Broken(
        "depth",
        "sar2eo/66.tif",
        "16 bits",
        "8 bits",
        swap(EO, "sar2eo/66.tif", tiff(GRAY.astype(np.uint16) * 257)),
    ),
    "one bit": Broken(
        "depth", EO, "1 bits per band", "8 bits", data_of(EO, png_from_chunks(16, 16, 1, 0, b"\0\5\6" * 16))
    ),
    "float TIFF": Broken(
        "type",
        "sar2eo/66.tif",
        "float32",
        "8 bits",
        swap(EO, "sar2eo/66.tif", tiff(GRAY.astype(np.float32) / 255)),
    ),
    "NaN TIFF": Broken(
        "type",
        "sar2eo/66.tif",
        "float32",
        "8 bits",
        swap(EO, "sar2eo/66.tif", tiff(np.full((16, 16, 1), np.nan, np.float32))),
    ),
    "signed TIFF": Broken(
        "type", "sar2eo/66.tif", "int16", "8 bits", swap(EO, "sar2eo/66.tif", tiff(GRAY.astype(np.int16)))
    ),
    "empty image": Broken("image", EO, "empty", "as a PNG", data_of(EO, b"")),
    "truncated PNG": Broken("image", EO, "truncated", "as a PNG", data_of(EO, PNG[:-40])),
    "corrupt pixels": Broken(
        "image", EO, "compressed pixels are truncated", "as a PNG", data_of(EO, CORRUPT_PIXELS)
    ),
    "PNG checksum": Broken(
        "image", EO, "checksum", "as a PNG", data_of(EO, PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:])
    ),
    "JPEG named PNG": Broken("image", EO, "no PNG signature", "as a PNG", data_of(EO, b"\xff\xd8\xff" * 40)),
    "truncated TIFF": Broken(
        "image",
        IR,
        "not a whole TIFF",
        "as a PNG",
        data_of(IR, tiff(pixels(rng(), (16, 24), 1))[:-99]),
    ),
    "TIFF of many bands": Broken(
        "image", IR, "16 x 24 pixels of 65000 bands", "as a PNG", data_of(IR, tiff_declaring(277, 65_000))
    ),
    "BigTIFF of many bands": Broken(
        "image", IR, "of 65000 bands", "as a PNG", data_of(IR, tiff_declaring(277, 65_000, big=True))
    ),
    "TIFF bomb": Broken(
        "image", IR, "2000000000 x 24 pixels", "as a PNG", data_of(IR, tiff_declaring(257, 2_000_000_000))
    ),
    "PNG named TIFF": Broken("image", IR, "not a whole TIFF", "as a PNG", data_of(IR, PNG)),
    "PNG bomb": Broken(
        "bomb",
        EO,
        "more than 64 MB",
        "as a PNG",
        data_of(EO, png_from_chunks(60_000, 60_000, 8, 0, b"\0" * 99)),
    ),
    "all black": Broken("constant", EO, "all black", "model's output", data_of(EO, encode_png(GRAY * 0))),
    "constant": Broken(
        "constant", EO, "every pixel is [9]", "model's output", data_of(EO, encode_png(GRAY * 0 + 9))
    ),
    "one colour": Broken(
        "constant",
        RGB,
        "every pixel is",
        "model's output",
        data_of(RGB, encode_png(np.tile(np.array([1, 2, 3], np.uint8), (16, 24, 1)))),
    ),
    "no readme": Broken("readme", "readme.txt", "missing", "four lines", drop("readme.txt")),
    "nested readme": Broken(
        "readme", "sar2eo/readme.txt", "in a folder", "root", rename("readme.txt", "sar2eo/readme.txt")
    ),
    "README.TXT": Broken(
        "readme", "README.TXT", "named", "exactly readme.txt", rename("readme.txt", "README.TXT")
    ),
    "readme.md": Broken(
        "readme", "readme.md", "named", "exactly readme.txt", rename("readme.txt", "readme.md")
    ),
    "malformed readme": Broken(
        "readme",
        "readme.txt",
        "line 2",
        "four lines",
        data_of("readme.txt", b"runtime per image [s] : 1\nCPU : 1"),
    ),
    "readme in UTF-16": Broken(
        "readme", "readme.txt", "UTF-8", "four lines", data_of("readme.txt", README.text().encode("utf-16"))
    ),
    "empty readme": Broken("readme", "readme.txt", "line 1", "four lines", data_of("readme.txt", b"")),
}
