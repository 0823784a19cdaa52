"""Checks whether the bytes of one entry are the image that its task expects.

`pbvs.core.pixels` reads from files; these bytes come from within a zip and may be hostile, so their headers
are checked before any pixel is decoded. PNG header and chunks: PNG specification (third edition), sections
5.2, 5.3 and 11.2.1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pbvs.core.pixels import PNG_SUFFIXES
from pbvs.submission.names import ZipImage
from pbvs.submission.rules import KIND_CONSTANT, KIND_SIZE, Expected, Problem, format_px
from pbvs.submission.tiff_guard import MOST_IMAGE_BYTES, NotAnImage, guard_tiff

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_PALETTE = 3
_REWRITE = "write the prediction again, as a PNG of 8 bits per band"


@dataclass(frozen=True)
class Facts:
    """An image's header: `size_px` height and width, `bits` per value, `palette` for indexed colour."""

    size_px: tuple[int, int]
    bands: int
    dtype: str
    bits: int
    palette: bool

    @property
    def n_bytes(self) -> int:
        """The size of the decoded pixels."""
        return self.size_px[0] * self.size_px[1] * self.bands * max(1, -(-self.bits // 8))


def check_image(
    entry: ZipImage, data: bytes | Problem, expected: Expected | None
) -> tuple[list[Problem], int]:
    """The problems of an image's bytes, and its number of bands (0 when it cannot be decoded).

    Args:
        entry: where the image is in the zip; the suffix of its path selects PNG or TIFF.
        data: the whole file, or the problem that prevents reading it.
        expected: size and bands of the task, None when unknown. RGB passes where one band is expected.
    """
    import numpy as np

    if isinstance(data, Problem):
        return [data], 0
    if expected is None:
        what = f"size and bands of {entry.task} are unknown, so its images are not checked"
        return [Problem(f"{entry.task}/", what, "check the zip with the tasks it was built for", "folder")], 0
    try:
        facts, image = _decode(entry.path, data)
    except NotAnImage as error:
        return [Problem(entry.path, f"the image cannot be decoded: {error}", _REWRITE, "image")], 0
    found = []
    if facts.size_px != expected.size_px:
        what = f"{format_px(facts.size_px)} pixels instead of {format_px(expected.size_px)} (height x width)"
        hint = "write predictions at the task's size: the evaluation resamples others, at a cost in score"
        found.append((what, hint, KIND_SIZE))
    if facts.palette:
        found.append(("a palette image: its values are indices, not grey or RGB values", _REWRITE, "bands"))
    elif facts.bands not in (expected.bands, 3):
        what = f"{facts.bands} bands instead of {expected.bands}"
        found.append((what, f"write it with {expected.bands} band(s), without transparency", "bands"))
    if facts.dtype not in ("uint8", "uint16"):
        found.append((f"pixels are {facts.dtype}, not uint8", _REWRITE, "type"))
    elif facts.bits != 8:
        found.append((f"{facts.bits} bits per band instead of 8", _REWRITE, "depth"))
    if image is None:
        what = f"decoded it would take more than {MOST_IMAGE_BYTES // 1_000_000} MB"
        found.append((what, _REWRITE, "bomb"))
    elif (image == image[0, 0]).all() or (image.dtype.kind in "fc" and not np.isfinite(image).any()):
        what = (
            f"every pixel is {np.atleast_1d(image[0, 0]).tolist()}"
            if image.any()
            else "the image is all black"
        )
        hint = "check the model's output for this input; if it is correct, allow constant images"
        found.append((what, hint, KIND_CONSTANT))
    return [Problem(entry.path, *fault) for fault in found], facts.bands


def _decode(path: str, data: bytes) -> tuple[Facts, NDArray | None]:
    """The header, and the pixels as `H,W` or `H,W,C`; None for pixels that are too large to decode."""
    import numpy as np

    if path.casefold().endswith(PNG_SUFFIXES):
        facts = png_facts(data)
        if facts.n_bytes > MOST_IMAGE_BYTES:
            return facts, None
        import cv2

        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise NotAnImage(str(error).strip()) from error
        if image is None or image.shape[:2] != facts.size_px:
            raise NotAnImage("its compressed pixels are truncated or corrupt")
        return facts, image
    from rasterio.enums import ColorInterp
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    guard_tiff(data)
    try:
        # Only as GeoTIFF: GDAL would follow other formats, such as VRT, to files outside. `map_ahead` ignores
        # the warnings: a filter set here, in a thread, would be that of all threads.
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            dtype = str(dataset.dtypes[0])
            itemsize = np.dtype("complex64" if dtype == "complex_int16" else dtype).itemsize
            bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") or 8 * itemsize)
            palette = dataset.colorinterp[0] == ColorInterp.palette
            facts = Facts((dataset.height, dataset.width), dataset.count, dtype, bits, palette)
            small = facts.n_bytes <= MOST_IMAGE_BYTES
            return facts, dataset.read().transpose(1, 2, 0) if small else None
    except (RasterioError, ValueError, TypeError) as error:
        raise NotAnImage(f"not a whole TIFF ({type(error).__name__})") from error


def png_facts(data: bytes) -> Facts:
    """The header of a PNG, once the checksums of all its chunks are verified.

    Raises:
        NotAnImage: not a PNG, truncated, or the checksum of a chunk is wrong.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise NotAnImage("the file is empty" if not data else "it is named PNG but has no PNG signature")
    chunks = list(_png_chunks(data))
    kind, header = chunks[0]
    if kind != b"IHDR" or len(header) != 13:
        raise NotAnImage("its header is missing")
    width, height, bits, colour = struct.unpack(">IIBB", header[:10])
    if colour not in _PNG_BANDS or not width or not height:
        raise NotAnImage("its header is not that of a PNG")
    transparent = any(kind == b"tRNS" for kind, _ in chunks) and colour != _PNG_PALETTE
    bands = _PNG_BANDS[colour] + transparent
    return Facts((height, width), bands, "uint16" if bits == 16 else "uint8", bits, colour == _PNG_PALETTE)


def is_plain_png(data: bytes) -> bool:
    """True for a PNG with grey or RGB pixels of 8 bits and nothing else: no text, time or profile."""
    header = data[24:29]  # bits, colour, compression, filter, interlace
    kinds = {bytes(kind) for kind, _ in _png_chunks(data)}
    return header in (b"\x08\0\0\0\0", b"\x08\x02\0\0\0") and kinds == {b"IHDR", b"IDAT", b"IEND"}


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and contents of each chunk up to IEND, with valid checksums."""
    view = memoryview(data)
    at = len(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise NotAnImage("the PNG is truncated")
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise NotAnImage("the PNG is truncated")
        kind = data[at + 4 : at + 8]
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise NotAnImage("the checksum of a PNG chunk is wrong")
        yield kind, view[at + 8 : end]
        at = end + 4
