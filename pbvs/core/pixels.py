"""Decoding, encoding and resizing of images, and every conversion between stored integers and model floats.

Four forms of an image:

* stored: `H,W,C uint8` (numpy, RGB order), as in a file; 16-bit files keep `uint16` until prepared.
* float255: `N,C,H,W float64 in [0,255]` (torch), the inputs and outputs of a task's graph: the scale of
  stored values, not yet rounded, so that a chain of nodes rounds once, at its end.
* model: `N,C,H,W float32 in [-1,1]`, for the networks.
* unit: `N,C,H,W float32 in [0,1]`, for the metrics.

Conversion to stored values clips to 0..255 and rounds half to even, as `numpy.rint` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pbvs.core.errors import ImageError
from pbvs.core.files import atomic_write
from pbvs.core.tiff import read_tiff_header
from pbvs.core.types import Image8

# Commands that need only names and sizes skip numpy, cv2 and rasterio (0.4 s) and torch (seconds).
if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

WHITE = 255.0
TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
IMAGE_SUFFIXES = PNG_SUFFIXES + TIFF_SUFFIXES

Stored: TypeAlias = "Image8 | NDArray[np.uint16]"


@contextmanager
def no_georeference_warnings() -> Iterator[None]:
    """Suppresses rasterio's warnings about images without a georeference.

    Warning filters are global to the process: code that starts threads enters this once, around them all.
    """
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def list_images(folder: Path) -> list[Path]:
    """The images directly in `folder`, sorted by name, without hidden files (such as macOS `._name`)."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )


def read_image(path: Path) -> Stored:
    """Decodes a PNG or TIFF.

    Returns:
        `H,W,C` in the file's own type, `uint8` or `uint16`, bands in the file's order (RGB for colour).

    Raises:
        ImageError: missing, truncated or corrupt, of another format, of an absurd size (see
            `pbvs.core.tiff`), or neither 8 nor 16 bits unsigned.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ImageError("not a PNG or TIFF", where=path, next_step="convert it to PNG, which is lossless")
    try:
        image = _decode_png(path) if suffix in PNG_SUFFIXES else _decode_tiff(path)
    except (ImageError, OSError) as error:
        reason = error.what if isinstance(error, ImageError) else error.strerror or error
        raise ImageError(
            f"the image cannot be read: {reason}",
            where=path,
            next_step="download the file again, or remove it from the folder",
        ) from error
    if image.dtype not in ("uint8", "uint16"):
        raise ImageError(
            f"pixels are {image.dtype}, not uint8 or uint16",
            where=path,
            next_step="convert the image to 8 or 16 bits unsigned",
        )
    return image


def _decode_png(path: Path) -> Stored:
    import cv2
    import numpy as np

    encoded = np.fromfile(path, np.uint8)
    # OpenCV rejects a truncated PNG; GDAL would fill the missing rows with zeros and succeed.
    try:
        image: Any = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    except cv2.error as error:
        raise ImageError("the PNG declares more pixels than OpenCV accepts") from error
    if image is None:
        raise ImageError("not a PNG, or a truncated or corrupt one")
    # BGR(A) to RGB(A)
    image = image[:, :, None] if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    stored: Stored = np.ascontiguousarray(image)
    return stored


def _decode_tiff(path: Path) -> Stored:
    import numpy as np
    import rasterio
    from rasterio.errors import RasterioError

    read_tiff_header(path)  # checks the size, which GDAL would believe and allocate
    try:
        with no_georeference_warnings(), rasterio.open(path) as dataset:
            bands = dataset.read()
    except RasterioError as error:
        raise ImageError(str(error)) from error
    return np.ascontiguousarray(bands.transpose(1, 2, 0))


def encode_png(stored: Image8, compression: int = 6) -> bytes:
    """Encodes `H,W,1` or `H,W,3` uint8 as a PNG, lossless; `compression` is zlib's 0..9.

    Raises:
        ImageError: another type or number of bands.
    """
    if stored.dtype != "uint8" or stored.ndim != 3 or stored.shape[2] not in (1, 3):
        raise ImageError(f"a PNG is written from H,W,1 or H,W,3 uint8, not {stored.shape} {stored.dtype}")
    import cv2

    ok, encoded = cv2.imencode(".png", stored[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not ok:
        raise ImageError(f"the image could not be encoded as PNG ({stored.shape})")
    return encoded.tobytes()


def write_png(path: Path, stored: Image8, compression: int = 6) -> None:
    """Writes `H,W,1` or `H,W,3` uint8 as a lossless PNG, atomically."""
    data = encode_png(stored, compression)
    with atomic_write(path) as tmp_path:
        tmp_path.write_bytes(data)


def resize(image: NDArray, size_px: tuple[int, int]) -> NDArray:
    """Resizes `H,W,C` to `size_px` (height, width): by area where both sides shrink, else bilinear.

    Everything that changes an image's size uses this, so training and inference agree.
    Accepts uint8, uint16, float32 and float64; OpenCV rounds integers.
    """
    height, width = size_px
    if image.shape[:2] == (height, width):
        return image
    import cv2

    shrinks = height <= image.shape[0] and width <= image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    return resized[:, :, None] if resized.ndim == 2 else resized


def float255_from_stored(stored: Image8) -> torch.Tensor:
    """`H,W,C uint8` to `1,C,H,W float64 in [0,255]`, the same values."""
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1))).double()[None]


def stored_from_float255(float255: torch.Tensor) -> Image8:
    """`1,C,H,W in [0,255]` to `H,W,C uint8`: clipped to 0..255, rounded half to even."""
    import numpy as np

    rounded = float255[0].clamp(0.0, WHITE).round().byte()
    return np.ascontiguousarray(rounded.permute(1, 2, 0).cpu().numpy())


def normalize(float255: torch.Tensor) -> torch.Tensor:
    """0..255 (any type) to model floats: `float32 in [-1,1]`, the same shape."""
    return float255.float() / (WHITE / 2) - 1.0


def denormalize(model: torch.Tensor) -> torch.Tensor:
    """Model floats in [-1,1] to `float64`, clipped to [0,255], not rounded."""
    return ((model.double() + 1.0) * (WHITE / 2)).clamp(0.0, WHITE)


def unit_from_float255(float255: torch.Tensor) -> torch.Tensor:
    """0..255 (any type) to unit floats: `float32 in [0,1]`, the same shape."""
    return float255.float() / WHITE


def unit_from_model(model: torch.Tensor) -> torch.Tensor:
    """Model floats in [-1,1] to unit floats in [0,1]; differentiable, not clipped."""
    return (model + 1.0) * 0.5


def to_uint8(stored: Stored, low: float = 0.0, high: float | None = None) -> Image8:
    """16-bit to 8-bit values by a linear stretch; 8-bit values are returned unchanged.

    Args:
        stored: `H,W,C` uint8 or uint16.
        low, high: the values that become 0 and 255; by default the whole range of uint16
            (the rule `full`, a factor of 255/65535).
    """
    import numpy as np

    if stored.dtype == np.uint8:
        return stored  # type: ignore[return-value]
    top = float(np.iinfo(np.uint16).max) if high is None else high
    scaled = (stored.astype(np.float64) - low) * (WHITE / (top - low))
    return np.rint(np.clip(scaled, 0.0, WHITE)).astype(np.uint8)


def resize_float255(float255: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    """`N,C,H,W float64 in [0,255]` to another size (height, width), each image by `resize`; not rounded."""
    if (float255.shape[2], float255.shape[3]) == tuple(size_px):
        return float255
    import numpy as np
    import torch

    resized = [resize(image.permute(1, 2, 0).cpu().numpy(), size_px) for image in float255]
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in resized]))
