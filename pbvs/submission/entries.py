"""Opening a zip and taking single entries out of it, with every size bounded."""

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
_MAGIC = ((b"Rar!", "a RAR archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"\x1f\x8b", "a gzip file (tar.gz?)"))
_TORN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    struct.error,
)
_ANEW = "make the zip anew, and copy it again if it came over a network"


def open_zip(path: Path) -> zipfile.ZipFile | Problem:
    """The zip, open for reading, or what keeps it from being opened."""
    try:
        archive = zipfile.ZipFile(path)
    except _TORN as error:
        return Problem(WHOLE_ZIP, f"{_told_file(path)}: {error}", _ANEW, "archive")
    infos = archive.infolist()
    problem = None
    if len(infos) > MOST_ENTRIES:
        what = f"{len(infos)} entries; a full submission has under {MOST_ENTRIES}"
        problem = Problem(WHOLE_ZIP, what, "put only the predictions and the readme into the zip", "bomb")
    elif infos and min(info.header_offset for info in infos) > 0:
        what = "bytes stand before the first entry, as in a self-extracting archive"
        problem = Problem(WHOLE_ZIP, what, "make a plain zip", "archive")
    if problem:
        archive.close()
        return problem
    return archive


def _told_file(path: Path) -> str:
    """What a file is that cannot be opened as a zip."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError:
        return "the file cannot be read"
    if not head:
        return "the file is empty"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return f"not a zip but {name}"
    return "the zip is torn" if head.startswith(b"PK") else "not a zip"


def read_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, most_bytes: int
) -> bytes | Problem:
    """An entry's whole contents, its checksum proven, or what keeps it from being read.

    No more than `most_bytes` are ever unpacked, whatever the headers say.
    """
    refusal = _refusal(info, path, most_bytes)
    if refusal:
        return refusal
    try:
        with archive.open(info) as stream:
            # With a length, zipfile never inflates beyond it (without one, up to 2 GB at a time); at the
            # announced end it compares the checksum.
            data = stream.read(info.file_size + 1)
    except _TORN as error:
        return Problem(path, f"the entry cannot be unpacked: {error}", _ANEW, "torn")
    if len(data) != info.file_size:
        what = f"the entry announces {info.file_size} bytes and holds {len(data)}"
        return Problem(path, what, _ANEW, "torn")
    return data


def _refusal(info: zipfile.ZipInfo, path: str, most_bytes: int) -> Problem | None:
    """Why an entry is not even tried: encrypted, packed by an unusual method, or too large."""
    if info.flag_bits & _ENCRYPTED_BITS:
        return Problem(path, "the entry is encrypted", "make the zip without a password", "encrypted")
    if info.compress_type not in _METHODS:
        what = f"packed by method {info.compress_type}, which not every unpacker knows"
        return Problem(path, what, "make the zip with the methods 'store' or 'deflate'", "method")
    if info.file_size > most_bytes:
        what = f"unpacked it would take {info.file_size} bytes; at most {most_bytes} are expected"
        return Problem(path, what, "put only the predictions and the readme into the zip", "bomb")
    return None
