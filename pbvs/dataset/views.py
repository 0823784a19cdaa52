"""What a trained node sees of a pair: its views, as data. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pbvs.core.config import Config
from pbvs.core.types import Image8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE, TARGET = "source", "target"
Filter = Literal["area", "bilinear", "bicubic"]
_DEGRADATIONS = 5  # keeps these random numbers apart from others under one seed
_BLUR_SIGMA_PX, _NOISE_SIGMA = (0.2, 2.0), (1.0, 20.0)  # of `degraded`: ranges; the noise in 0..255


class View(Config):
    """One image of a pair as a network sees it: reduced, then gray, then degraded."""

    of: str = Field(default=SOURCE, description="`source` or `target` of the task, or an upstream node")
    gray: bool = Field(default=False, description="luma of ITU-R BT.601; one band stays as it is")
    low: int = Field(default=1, ge=1, description="the factor by which the image is reduced; 1: not")
    filter: Filter = Field(
        default="area",
        description="by which `low` reduces. area: the stored image is resampled once, straight to the low "
        "size; bilinear (not anti-aliased) and bicubic: the image at the node's size is reduced",
    )
    degraded: bool = Field(
        default=False, description="a Gaussian blur and Gaussian noise of random strength, drawn per image"
    )

    @property
    def read_low(self) -> int:
        """The factor below the node's size at which the stored image is read."""
        return self.low if self.filter == "area" else 1

    @property
    def described(self) -> str:
        """In a few words, for `pbvs tasks show`."""
        low = f"1/{self.low} by {self.filter}"
        steps = ((self.low > 1, low), (self.gray, "gray"), (self.degraded, "degraded"))
        return ", ".join([self.of, *(step for is_on, step in steps if is_on)])

    def bands(self, of_bands: int) -> int:
        """Bands of the view, made of an image of `of_bands`."""
        return 1 if self.gray else of_bands

    def plain(self, image: Image8) -> Image8:
        """The view `h,w,c uint8` without degradation, of an image `H,W,C uint8` read at `read_low`."""
        if self.low > self.read_low:
            image = reduced(image, self.low, self.filter)
        return luma(image) if self.gray else image

    def apply(self, image: Image8, seed: int, n: int) -> Image8:
        """As `plain`, degraded where that is asked for: item `n` of a dataset with this seed."""
        image = self.plain(image)
        if self.degraded:
            import numpy as np

            image = degraded(image, np.random.default_rng([_DEGRADATIONS, seed, n]))
        return image


PAIR = {SOURCE: View(of=SOURCE), TARGET: View(of=TARGET)}


def luma(image: Image8) -> Image8:
    """`H,W,1`: 0.299 R + 0.587 G + 0.114 B of `H,W,3` (ITU-R BT.601), rounded; one band as it is."""
    import cv2
    import numpy as np

    if image.shape[2] == 1:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[:, :, None]


def reduced(image: NDArray, factor: int, by: Filter) -> NDArray:
    """`H,W,C` at 1/factor of its size, sides rounded down to whole pixels, at least one."""
    import cv2
    import numpy as np

    filters = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
    height, width = (max(1, side // factor) for side in image.shape[:2])
    out = np.asarray(cv2.resize(image, (width, height), interpolation=filters[by]))
    return out[:, :, None] if out.ndim == 2 else out


def degraded(image: Image8, rng: np.random.Generator) -> Image8:
    """`H,W,C uint8` blurred by a Gaussian and with Gaussian noise, both of random strength; same shape."""
    import cv2
    import numpy as np

    blur, noise = rng.uniform(*_BLUR_SIGMA_PX), rng.uniform(*_NOISE_SIGMA)
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), blur).reshape(image.shape)
    noisy = blurred + rng.normal(0.0, noise, image.shape)
    return np.rint(np.clip(noisy, 0.0, 255.0)).astype(np.uint8)
