"""TIFFs assembled field by field, for headers that no writer would write, and random GDAL profiles."""

from __future__ import annotations

import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

CODES = {2: "s", 3: "H", 4: "I", 12: "d", 16: "Q"}
# width, height, bits, no compression, dark is 0, one strip at 0 of 0 bytes: the mandatory tags
PLAIN: dict[int, tuple[int, list[Any]]] = {
    **{256: (4, [4]), 257: (4, [3]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1])},
    **{273: (4, [0]), 277: (3, [1]), 278: (4, [3]), 279: (4, [0])},
}


def put_together(
    fields: dict[int, tuple[int, list[Any]]], order: str = "<", big: bool = False, pages: int = 1
) -> bytes:
    """A TIFF whose `pages` directories all hold `fields`: tag to type and values; values are at the end."""
    count, field, place = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    inline = 8 if big else 4
    mark = struct.pack(order + "2sH", b"II" if order == "<" else b"MM", 43 if big else 42)
    head = mark + struct.pack(order + "HHQ", 8, 0, 16) if big else mark + struct.pack(order + "I", 8)
    step = struct.calcsize("=" + count) + len(fields) * (struct.calcsize("=" + field) + inline) + inline
    tables, values = b"", b""
    values_at = len(head) + pages * step
    for page in range(pages):
        tables += struct.pack(order + count, len(fields))
        for tag, (kind, numbers) in sorted(fields.items()):
            packed = b"".join(struct.pack(order + CODES[kind], number) for number in numbers)
            if kind == 2:
                packed = b"".join(numbers)
            tables += struct.pack(order + field, tag, kind, len(packed) if kind == 2 else len(numbers))
            if len(packed) <= inline:
                tables += packed.ljust(inline, b"\0")
            else:
                tables += struct.pack(order + place, values_at + len(values))
                values += packed
        following = 0 if page == pages - 1 else len(head) + (page + 1) * step
        tables += struct.pack(order + place, following)
    return head + tables + values


def bomb(height: int = 10**6, width: int = 10**6, bands: int = 1) -> bytes:
    """A few hundred bytes whose header declares an image of this size."""
    return put_together(PLAIN | {257: (4, [height]), 256: (4, [width]), 277: (3, [bands])})


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    """Keywords for `write_profile`: dtypes, layouts, georeferences and nodata that GDAL writes."""
    dtype = draw(
        st.sampled_from(["uint8", "uint16", "int8", "int16", "uint32", "int32", "float32", "float64"])
    )
    profile: dict[str, Any] = {
        "count": draw(st.integers(1, 5)),
        "height": draw(st.integers(1, 40)),
        "width": draw(st.integers(1, 40)),
        "dtype": dtype,
        "compress": draw(st.sampled_from([None, "deflate", "lzw", "packbits", "zstd"])),
        "interleave": draw(st.sampled_from(["pixel", "band"])),
        "BIGTIFF": draw(st.sampled_from(["YES", "NO"])),
        "ENDIANNESS": draw(st.sampled_from(["LITTLE", "BIG"])),
        "SPARSE_OK": draw(st.booleans()),
    }
    if draw(st.booleans()):
        profile |= {"tiled": True, "blockxsize": 16, "blockysize": 32}
    else:
        profile["blockysize"] = draw(st.integers(1, 40))
    number = draw(st.sampled_from([None, 0, 1, 100, 127, *((0.1, -9999, 1e30) if "float" in dtype else ())]))
    profile["nodata"] = float("nan") if "float" in dtype and draw(st.booleans()) else number
    crs = draw(st.sampled_from([None, "EPSG:32612", "EPSG:26912", "EPSG:4326", "EPSG:3395", LAMBERT]))
    pixel = draw(st.sampled_from([0.5, 1.0, 10.0, 1 / 3, 9e-6]))
    turn = math.radians(draw(st.sampled_from([0.0, 0.0, 30.0, 200.0])))
    corner = draw(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)))
    flip = draw(st.sampled_from([1, -1]))
    if draw(st.booleans()):
        x, y = pixel * math.cos(turn), pixel * math.sin(turn)
        profile["transform"] = Affine(x, -flip * y, corner[0], y, -flip * x, corner[1])
    return profile | {"crs": crs, "AREA_OR_POINT": draw(st.sampled_from(["Area", "Point"]))}


LAMBERT = (
    "+proj=lcc +lat_0=38.3 +lon_0=-111.5 +lat_1=39 +lat_2=40.6 +x_0=500000 +y_0=2000000 +ellps=GRS80 +units=m"
)


def write_profile(path: Path, profile: dict[str, Any]) -> Path:
    """A GeoTIFF of a profile from `profiles`, filled with noise, or empty where it is sparse."""
    profile = dict(profile)
    point = profile.pop("AREA_OR_POINT")
    shape = (profile["count"], profile["height"], profile["width"])
    noise = np.random.default_rng(1).integers(0, 100, shape).astype(profile["dtype"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **profile) as dataset:
            dataset.update_tags(AREA_OR_POINT=point)
            if not profile["SPARSE_OK"]:
                dataset.write(noise)
    return path
