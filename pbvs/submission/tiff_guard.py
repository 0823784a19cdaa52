"""A look at a TIFF's directories before GDAL opens it.

GDAL trusts some fields: a file of 500 bytes that announces 15,000 bands keeps it busy for minutes and takes
most of a gigabyte, before anything can be asked. Layout: TIFF 6.0, section 2, and BigTIFF as libtiff has it.
"""

from __future__ import annotations

import struct

MOST_IMAGE_BYTES = 64_000_000
"""No image of the challenge is near this size, packed or unpacked; larger ones are not unpacked."""

_MOST_BANDS = 16
_MOST_DIRECTORIES = 32  # pages and overviews
_MOST_FIELDS = 1000
_WIDTH, _HEIGHT, _SAMPLES = 256, 257, 277
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


class NotAnImage(Exception):
    """The bytes cannot be decoded; the text says why. It never leaves this part of the package."""


def guard_tiff(data: bytes) -> None:
    """Passes a TIFF whose directories lie within the file and announce an image of sane size.

    Args:
        data: the whole file.

    Raises:
        NotAnImage: not a TIFF, torn, or with announced sizes that no image of the challenge has.
    """
    if not data:
        raise NotAnImage("the file is empty")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    version = struct.unpack_from(f"{order}H", data, 2)[0] if order and len(data) > 16 else 0
    if version not in (42, 43):
        raise NotAnImage("not a whole TIFF (it does not begin as one)")
    try:
        _guard_directories(data, order or "<", big=version == 43)
    except (struct.error, OverflowError) as error:  # OverflowError: a place beyond 2**63
        raise NotAnImage("not a whole TIFF (a directory lies beyond its end)") from error


def _guard_directories(data: bytes, order: str, big: bool) -> None:
    """Follows the chain of directories; each holds a count, that many fields, and the next one's place."""
    count_form, field_form, place_form = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    field = struct.Struct(order + field_form)
    (at,) = struct.unpack_from(order + place_form, data, 8 if big else 4)
    for _ in range(_MOST_DIRECTORIES):
        (n_fields,) = struct.unpack_from(order + count_form, data, at)
        if n_fields > _MOST_FIELDS:
            raise NotAnImage(f"not a whole TIFF ({n_fields} fields)")
        at += struct.calcsize(order + count_form)
        fields = [field.unpack_from(data, at + k * field.size) for k in range(n_fields)]
        _guard_fields(fields, order, len(data))
        (at,) = struct.unpack_from(order + place_form, data, at + n_fields * field.size)
        if at == 0:
            return
    raise NotAnImage(f"not a plain TIFF (more than {_MOST_DIRECTORIES} pages)")


def _guard_fields(fields: list[tuple[int, int, int, bytes]], order: str, n_bytes: int) -> None:
    """One directory: every value fits into the file, and the pixels into `MOST_IMAGE_BYTES`."""
    numbers = {_WIDTH: 1, _HEIGHT: 1, _SAMPLES: 1}
    for tag, kind, count, value in fields:
        if count * _TYPE_BYTES.get(kind, 1) > n_bytes:
            raise NotAnImage("not a whole TIFF (a field is larger than the file)")
        if tag in numbers and kind in _WHOLE_NUMBERS:
            (numbers[tag],) = struct.unpack_from(order + _WHOLE_NUMBERS[kind], value)
    width, height, bands = numbers[_WIDTH], numbers[_HEIGHT], numbers[_SAMPLES]
    if bands > _MOST_BANDS or width * height * bands > MOST_IMAGE_BYTES:
        raise NotAnImage(f"it announces {height} x {width} pixels of {bands} bands")
