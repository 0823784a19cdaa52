"""Whether the bytes of one entry are the image that its task asks for.

`pbvs.core.pixels` reads from files; these bytes come from within a zip and may be hostile, so their headers
are judged before any pixel is decoded. PNG header and chunks: PNG specification (third edition), sections
5.2, 5.3 and 11.2.1.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile

from pbvs.core.pixels import PNG_SUFFIXES
from pbvs.submission.rules import KIND_CONSTANT, KIND_SIZE, Expected, Problem, told_px
from pbvs.submission.tiff_guard import MOST_IMAGE_BYTES, NotAnImage, guard_tiff

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_PALETTE = 3
_ANEW = "write the prediction again, as a PNG of 8 bits a band"


@dataclass(frozen=True)
class Facts:
    """What a header says: `size_px` height and width, `bits` of one value, `palette` for indexed colour."""

    size_px: tuple[int, int]
    bands: int
    dtype: str
    bits: int
    palette: bool

    @property
    def n_bytes(self) -> int:
        """The size of the decoded pixels."""
        return self.size_px[0] * self.size_px[1] * self.bands * max(1, -(-self.bits // 8))


def judge(path: str, data: bytes, expected: Expected) -> tuple[list[Problem], int]:
    """What is wrong with an image's bytes, and its number of bands (0 when it cannot be decoded).

    Args:
        path: the entry's path; its suffix says whether it is to be a PNG or a TIFF.
        data: the whole file.
        expected: size and bands of the task. RGB passes where one band is asked for.
    """
    try:
        if path.casefold().endswith(PNG_SUFFIXES):
            facts, image = _from_png(data)
        else:
            facts, image = _from_tiff(data)
    except NotAnImage as error:
        return [Problem(path, f"the image cannot be decoded: {error}", _ANEW, "image")], 0
    problems = [*_against(path, facts, expected), *_content(path, image)]
    return problems, facts.bands


def _against(path: str, facts: Facts, expected: Expected) -> Iterator[Problem]:
    """Size, bands and type against what the task asks for."""
    if facts.size_px != expected.size_px:
        what = f"{told_px(facts.size_px)} pixels instead of {told_px(expected.size_px)} (height x width)"
        cure = "write predictions at the task's size: the evaluation resamples others, at a cost in score"
        yield Problem(path, what, cure, KIND_SIZE)
    if facts.palette:
        yield Problem(path, "a palette image: its values are indices, not grey or RGB levels", _ANEW, "bands")
    elif facts.bands not in (expected.bands, 3):
        what = f"{facts.bands} bands instead of {expected.bands}"
        yield Problem(path, what, f"write it with {expected.bands} band(s), without transparency", "bands")
    if facts.dtype not in ("uint8", "uint16"):
        yield Problem(path, f"pixels are {facts.dtype}, not uint8", _ANEW, "type")
    elif facts.bits != 8:
        yield Problem(path, f"{facts.bits} bits a band instead of 8", _ANEW, "depth")


def _content(path: str, image: NDArray | None) -> Iterator[Problem]:
    """One value all over says nothing. `image` is `H,W` or `H,W,C`, None when too large to decode."""
    if image is None:
        what = f"decoded it would take more than {MOST_IMAGE_BYTES // 1_000_000} MB"
        yield Problem(path, what, _ANEW, "bomb")
    elif (image == image[0, 0]).all() or (image.dtype.kind in "fc" and not np.isfinite(image).any()):
        black = not image.any()
        what = (
            "the image is black all over"
            if black
            else f"every pixel is {np.atleast_1d(image[0, 0]).tolist()}"
        )
        cure = "look at the translator's output for this input; if it is meant so, allow constant images"
        yield Problem(path, what, cure, KIND_CONSTANT)


def _from_png(data: bytes) -> tuple[Facts, NDArray | None]:
    facts = png_facts(data)
    if facts.n_bytes > MOST_IMAGE_BYTES:
        return facts, None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise NotAnImage(str(error).strip()) from error
    if image is None or image.shape[:2] != facts.size_px:
        raise NotAnImage("its compressed pixels are torn")
    return facts, image


def png_facts(data: bytes) -> Facts:
    """The header of a PNG whose every chunk is whole.

    Raises:
        NotAnImage: not a PNG, cut short, or a chunk does not keep its checksum.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise NotAnImage("the file is empty" if not data else "it is named PNG but does not begin as one")
    chunks = list(_png_chunks(data))
    kind, header = chunks[0]
    if kind != b"IHDR" or len(header) != 13:
        raise NotAnImage("its header is missing")
    width, height, bits, colour = struct.unpack(">IIBB", header[:10])
    if colour not in _PNG_BANDS or not width or not height:
        raise NotAnImage("its header is not one of a PNG")
    see_through = any(kind == b"tRNS" for kind, _ in chunks) and colour != _PNG_PALETTE
    bands = _PNG_BANDS[colour] + see_through
    return Facts((height, width), bands, "uint16" if bits == 16 else "uint8", bits, colour == _PNG_PALETTE)


def is_plain_png(data: bytes) -> bool:
    """Whether a PNG holds gray or RGB pixels of 8 bits and nothing else: no text, time or profile."""
    header = data[24:29]  # bits, colour, compression, filter, interlace
    kinds = {bytes(kind) for kind, _ in _png_chunks(data)}
    return header in (b"\x08\0\0\0\0", b"\x08\x02\0\0\0") and kinds == {b"IHDR", b"IDAT", b"IEND"}


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and contents of each chunk up to IEND, checksums proven."""
    view = memoryview(data)
    at = len(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise NotAnImage("the PNG is cut short")
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise NotAnImage("the PNG is cut short")
        kind = data[at + 4 : at + 8]
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise NotAnImage("a part of the PNG does not keep its checksum")
        yield kind, view[at + 8 : end]
        at = end + 4


def _from_tiff(data: bytes) -> tuple[Facts, NDArray | None]:
    guard_tiff(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # Only as GeoTIFF: GDAL would follow other formats, such as VRT, to files outside.
            with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
                facts = _tiff_facts(dataset)
                small = facts.n_bytes <= MOST_IMAGE_BYTES
                return facts, dataset.read().transpose(1, 2, 0) if small else None
    except (RasterioError, ValueError, TypeError) as error:
        raise NotAnImage(f"not a whole TIFF ({type(error).__name__})") from error


def _tiff_facts(dataset: DatasetReader) -> Facts:
    dtype = str(dataset.dtypes[0])
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    itemsize = np.dtype("complex64" if dtype == "complex_int16" else dtype).itemsize
    palette = dataset.colorinterp[0] == ColorInterp.palette
    return Facts((dataset.height, dataset.width), dataset.count, dtype, int(bits or 8 * itemsize), palette)
