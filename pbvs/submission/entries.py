"""Opens a zip and reads single entries, with every size bounded."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from pbvs.submission.rules import WHOLE_ZIP, Problem

MOST_ENTRIES = 20_000
"""The whole challenge has fewer than 4,000 test images."""

_ENCRYPTED_BITS = 0x2041  # bit 0 encrypted, 6 strong encryption, 13 masked headers (APPNOTE.TXT 4.4.4)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SIGNATURES = (
    (b"Rar!", "not a zip but a RAR archive"),
    (b"7z\xbc\xaf", "not a zip but a 7z archive"),
    (b"\x1f\x8b", "not a zip but a gzip file (tar.gz?)"),
    (b"PK", "the zip is truncated or corrupt"),
    (b"", "not a zip"),
)
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    struct.error,
)
_RECREATE = "recreate the zip, and copy it again if it came over a network"
_REMOVE = "put only the predictions and the readme into the zip"


def open_zip(path: Path) -> zipfile.ZipFile | Problem:
    """The zip, open for reading, or the problem that prevents opening it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        return Problem(WHOLE_ZIP, f"the file cannot be read: {error}", _RECREATE, "archive")
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        what = next(text for magic, text in _SIGNATURES if head.startswith(magic))
        return Problem(WHOLE_ZIP, f"{what if head else 'the file is empty'}: {error}", _RECREATE, "archive")
    infos = archive.infolist()
    problem = None
    if len(infos) > MOST_ENTRIES:
        what = f"{len(infos)} entries; a full submission has under {MOST_ENTRIES}"
        problem = Problem(WHOLE_ZIP, what, _REMOVE, "bomb")
    elif infos and min(info.header_offset for info in infos) > 0:
        what = "there are bytes before the first entry, as in a self-extracting archive"
        problem = Problem(WHOLE_ZIP, what, "create a plain zip", "archive")
    if problem:
        archive.close()
        return problem
    return archive


def read_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, most_bytes: int
) -> bytes | Problem:
    """An entry's whole contents with a valid checksum, or the problem that prevents reading it.

    Never unpacks more than `most_bytes`, even when the headers lie.
    """
    if info.flag_bits & _ENCRYPTED_BITS:
        return Problem(path, "the entry is encrypted", "create the zip without a password", "encrypted")
    if info.compress_type not in _METHODS:
        what = f"compressed by method {info.compress_type}, which not every unpacker supports"
        return Problem(path, what, "create the zip with the methods 'store' or 'deflate'", "method")
    if info.file_size > most_bytes:
        what = f"unpacked it would have {info.file_size} bytes; at most {most_bytes} are expected"
        return Problem(path, what, _REMOVE, "bomb")
    try:
        with archive.open(info) as stream:
            # With a length, zipfile never inflates beyond it (without one, up to 2 GB at a time); at the
            # declared end it compares the checksum.
            data = stream.read(info.file_size + 1)
    except _UNREADABLE as error:
        return Problem(path, f"the entry cannot be unpacked: {error}", _RECREATE, "torn")
    if len(data) != info.file_size:
        what = f"the entry declares {info.file_size} bytes and has {len(data)}"
        return Problem(path, what, _RECREATE, "torn")
    return data
