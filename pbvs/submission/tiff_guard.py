"""Checks all directories of a TIFF before GDAL opens bytes that may be hostile (see `pbvs.core.tiff`)."""

from __future__ import annotations

from itertools import islice

from pbvs.core.errors import ImageError
from pbvs.core.tiff import TiffSource, check_limits, declared_size, directories

MOST_IMAGE_BYTES = 64_000_000
"""No image of the challenge is near this size, packed or unpacked; larger ones are not unpacked."""

_MOST_BANDS = 16
_MOST_DIRECTORIES = 32  # pages and overviews


class NotAnImage(Exception):
    """The bytes cannot be decoded; the text says why. Never raised outside `pbvs.submission`."""


def guard_tiff(data: bytes) -> None:
    """Accepts a TIFF whose directories lie within the file and declare images of sane size.

    Args:
        data: the whole file.

    Raises:
        NotAnImage: not a TIFF, truncated or corrupt, or it declares sizes that no image of the challenge has.
    """
    if not data:
        raise NotAnImage("the file is empty")
    try:
        pages = list(islice(directories(TiffSource(data)), _MOST_DIRECTORIES + 1))
        for page in pages:
            check_limits(*declared_size(page), most_values=MOST_IMAGE_BYTES, most_bands=_MOST_BANDS)
    except ImageError as error:
        raise NotAnImage(error.what) from error
    if len(pages) > _MOST_DIRECTORIES:
        raise NotAnImage(f"not a plain TIFF (more than {_MOST_DIRECTORIES} pages)")
