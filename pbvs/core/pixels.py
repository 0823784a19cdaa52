"""The only place where stored integers become model floats and back, and where images are decoded.

Three forms of an image:

* stored: `H,W,C uint8` (numpy, RGB order), as in a file; 16-bit files keep `uint16` until prepared.
* levels: `N,C,H,W float64 in [0,255]` (torch), the form on the edges of a task's graph: the scale of
  stored values, but not yet rounded, so a chain of nodes rounds once, at its end.
* model: `N,C,H,W float32 in [-1,1]`; the judges use unit, `float32 in [0,1]`.

Going back to stored values rounds half to even (as `numpy.rint`) after clipping to 0..255.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pbvs.core.errors import ImageError
from pbvs.core.files import atomic_write
from pbvs.core.tiff import read_tiff_header

if TYPE_CHECKING:
    import torch  # seconds, and half a GB, that a check of a zip does without

WHITE = 255.0
TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
IMAGE_SUFFIXES = PNG_SUFFIXES + TIFF_SUFFIXES

Stored = NDArray[np.uint8] | NDArray[np.uint16]


@contextmanager
def no_georeference_warnings() -> Iterator[None]:
    """No warnings about images that have no place on Earth.

    Filters of warnings are one for all threads: code that starts threads enters this once, around them all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def list_images(folder: Path) -> list[Path]:
    """The images directly in `folder`, sorted by name; hidden files (`._name` litter) are passed over."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )


def read_image(path: Path) -> Stored:
    """Decodes a PNG or TIFF whole.

    Returns:
        `H,W,C` in the file's own type, `uint8` or `uint16`, bands in the file's order (RGB for colour).

    Raises:
        ImageError: missing, torn, of another format, of an absurd size (see `pbvs.core.tiff`), or neither
            8 nor 16 bits unsigned.
    """
    suffix = path.suffix.lower()
    if suffix in PNG_SUFFIXES:
        image = _read_png(path)
    elif suffix in TIFF_SUFFIXES:
        image = _read_tiff(path)
    else:
        raise ImageError("not a PNG or TIFF", where=path, next_step="convert it without loss to PNG")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"pixels are {image.dtype}, not uint8 or uint16",
            where=path,
            next_step="convert the image to 8 or 16 bits unsigned",
        )
    return image


def _read_png(path: Path) -> Stored:
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    # OpenCV refuses a torn PNG (its GDAL twin fills the missing rows with zeros and goes on).
    try:
        image: Any = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    except cv2.error as error:  # it announces more pixels than OpenCV makes room for
        raise _unreadable(path, "not a PNG of a sane size") from error
    if image is None:
        raise _unreadable(path, "not a whole PNG")
    # OpenCV's order is BGR(A), ours RGB(A).
    image = image[:, :, None] if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    stored: Stored = np.ascontiguousarray(image)
    return stored


def _read_tiff(path: Path) -> Stored:
    try:
        read_tiff_header(path)  # before GDAL, which believes any size and makes room for it
    except ImageError as error:
        raise _unreadable(path, error.what) from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        with no_georeference_warnings(), rasterio.open(path) as dataset:
            bands = dataset.read()
    except RasterioError as error:
        raise _unreadable(path, str(error)) from error
    return np.ascontiguousarray(bands.transpose(1, 2, 0))


def _unreadable(path: Path, reason: str) -> ImageError:
    return ImageError(
        f"the image cannot be read: {reason}",
        where=path,
        next_step="get the file again, or take it out of the folder",
    )


def encode_png(stored: NDArray[np.uint8], compression: int = 6) -> bytes:
    """`H,W,1` or `H,W,3` uint8 as PNG bytes, lossless; `compression` is zlib's 0..9.

    Raises:
        ImageError: other type or number of bands.
    """
    if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[2] not in (1, 3):
        raise ImageError(f"a PNG is written from H,W,1 or H,W,3 uint8, not {stored.shape} {stored.dtype}")
    done, encoded = cv2.imencode(".png", stored[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not done:
        raise ImageError(f"the image could not be encoded as PNG ({stored.shape})")
    return encoded.tobytes()


def write_png(path: Path, stored: NDArray[np.uint8], compression: int = 6) -> None:
    """Writes `H,W,1` or `H,W,3` uint8 as a lossless PNG, whole or not at all."""
    data = encode_png(stored, compression)
    with atomic_write(path) as beside:
        beside.write_bytes(data)


def resize(image: NDArray, size_px: tuple[int, int]) -> NDArray:
    """`H,W,C` to `size_px` (height, width): by area where both sides shrink, else bilinear.

    One rule for every place that changes an image's size, so training and translation agree.
    Works on uint8, uint16, float32 and float64; integers are rounded by OpenCV.
    """
    height, width = size_px
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    resized = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized[:, :, None] if resized.ndim == 2 else resized


def float255_from_stored(stored: NDArray[np.uint8]) -> torch.Tensor:
    """`H,W,C uint8` to levels `1,C,H,W float64 in [0,255]`, the same values."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1))).double()[None]


def stored_from_float255(levels: torch.Tensor) -> NDArray[np.uint8]:
    """Levels `1,C,H,W` to `H,W,C uint8`: clipped to 0..255, rounded half to even."""
    rounded = levels[0].clamp(0.0, WHITE).round().byte()
    return np.ascontiguousarray(rounded.permute(1, 2, 0).cpu().numpy())


def normalize(levels: torch.Tensor) -> torch.Tensor:
    """0..255 (any type) to model floats: `float32 in [-1,1]`, the same shape."""
    return levels.float() / (WHITE / 2) - 1.0


def denormalize(model: torch.Tensor) -> torch.Tensor:
    """Model floats in [-1,1] to levels `float64`, clipped to [0,255], not rounded."""
    return ((model.double() + 1.0) * (WHITE / 2)).clamp(0.0, WHITE)


def unit_from_float255(levels: torch.Tensor) -> torch.Tensor:
    """0..255 (any type) to unit floats: `float32 in [0,1]`, the same shape."""
    return levels.float() / WHITE


def unit_from_model(model: torch.Tensor) -> torch.Tensor:
    """Model floats in [-1,1] to unit floats in [0,1]; differentiable, not clipped."""
    return (model + 1.0) * 0.5


def eight_bits(stored: Stored, low: float = 0.0, high: float | None = None) -> NDArray[np.uint8]:
    """16-bit to 8-bit values by a linear stretch; 8-bit values are given back as they are.

    Args:
        stored: `H,W,C` uint8 or uint16.
        low, high: the values that become 0 and 255; by default the whole range of uint16
            (the rule `full`, a factor of 255/65535).
    """
    if stored.dtype == np.uint8:
        return stored  # type: ignore[return-value]
    top = float(np.iinfo(np.uint16).max) if high is None else high
    scaled = (stored.astype(np.float64) - low) * (WHITE / (top - low))
    return np.rint(np.clip(scaled, 0.0, WHITE)).astype(np.uint8)


def resize_float255(levels: torch.Tensor, size_px: tuple[int, int]) -> torch.Tensor:
    """Levels `N,C,H,W float64` to another size, each image by `resize`; the values stay unrounded."""
    if (levels.shape[2], levels.shape[3]) == tuple(size_px):
        return levels
    import torch

    resized = [resize(image.permute(1, 2, 0).cpu().numpy(), size_px) for image in levels]
    return torch.from_numpy(np.stack([image.transpose(2, 0, 1) for image in resized]))
