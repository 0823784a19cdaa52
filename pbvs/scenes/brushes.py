"""The canvas that a made scene is painted on: its layers, its noise, and the ways to choose pixels.

Places are metres from the canvas' top left corner, x to the east and y to the south; angles are radians,
turning from x to y. Every layer is `H,W` (albedo `H,W,3`) at `px_per_m` pixels a metre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Layer = NDArray[Any]  # floating point, float32 once it lies on the canvas
Cover = NDArray[np.bool_]
Window = tuple[slice, slice]
Colour = tuple[float, float, float]
Points = NDArray[np.float64]  # n,2: x and y in metres

_SUBPIXEL_BITS = 4  # cv2 draws at sixteenths of a pixel


class Material(IntEnum):
    """What the ground is made of; the value stored in `Scene.material`."""

    SOIL = 0
    ROCK = 1
    GRAVEL = 2
    GRASS = 3
    CROP = 4
    SHRUB = 5
    TREE = 6
    WATER = 7
    MUD = 8
    ASPHALT = 9
    CONCRETE = 10
    ROOF = 11
    METAL_ROOF = 12
    CAR = 13


# Nothing is planted here, nor built.
TAKEN = (
    Material.WATER,
    Material.ASPHALT,
    Material.CONCRETE,
    Material.ROOF,
    Material.METAL_ROOF,
    Material.CAR,
)


@dataclass(frozen=True)
class Look:
    """How a surface looks from above, to the eye and to the radar.

    Attributes:
        material: its class.
        colour: red, green, blue in 0..255 as seen flat in full sun.
        speck, patch: relative changes of brightness from pixel to pixel and over some metres.
        vegetation, wetness, roughness: in [0,1].
    """

    material: Material
    colour: Colour
    speck: float = 0.04
    patch: float = 0.05
    vegetation: float = 0.0
    wetness: float = 0.1
    roughness: float = 0.5


@dataclass(frozen=True)
class Box:
    """A turned rectangle on the canvas: the window about it, and each pixel's metres along its two sides."""

    window: Window
    u: Layer
    v: Layer
    length_m: float
    width_m: float

    @property
    def cover(self) -> Cover:
        """The pixels within."""
        return self.within(0.0)

    def within(self, inset_m: float) -> Cover:
        """The pixels at least `inset_m` inside each edge."""
        half_u, half_v = self.length_m / 2 - inset_m, self.width_m / 2 - inset_m
        return (np.abs(self.u) <= half_u) & (np.abs(self.v) <= half_v)

    def beyond(self) -> Layer:
        """Metres from the rectangle, 0 within it."""
        du = np.clip(np.abs(self.u) - self.length_m / 2, 0.0, None)
        dv = np.clip(np.abs(self.v) - self.width_m / 2, 0.0, None)
        return np.hypot(du, dv).astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 4) -> Layer:
    """Fractal noise of mean 0 and standard deviation 1, `H,W`; `cell_px` is the size of its largest forms."""
    total = np.zeros(shape, np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        grid = (max(2, math.ceil(shape[0] / cell_px) + 2), max(2, math.ceil(shape[1] / cell_px) + 2))
        coarse = rng.standard_normal(grid, np.float32)
        total += amplitude * cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
        amplitude, cell_px = amplitude / 2, max(1.0, cell_px / 2)
    standard: Layer = (total - total.mean()) / max(float(total.std()), 1e-6)
    return standard


class Canvas:
    """The layers of a scene while it is painted.

    Args:
        rng: the scene's own generator.
        size_m: height and width of the ground shown.
        px_per_m: pixels a metre.
    """

    def __init__(self, rng: np.random.Generator, size_m: tuple[float, float], px_per_m: float) -> None:
        self.rng, self.size_m, self.px_per_m = rng, size_m, px_per_m
        shape = self.shape = (round(size_m[0] * px_per_m), round(size_m[1] * px_per_m))
        self.material = np.zeros(shape, np.uint8)
        self.albedo: Layer = np.zeros((*shape, 3), np.float32)
        self.terrain, self.height = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.vegetation, self.wetness = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.roughness = np.zeros(shape, np.float32)
        ys, xs = np.indices(shape, np.float32)
        self.x: Layer = (xs + 0.5) / np.float32(px_per_m)
        self.y: Layer = (ys + 0.5) / np.float32(px_per_m)
        self.fine = noise(rng, shape, 2.0, 2)
        self.mid = noise(rng, shape, 6.0 * px_per_m, 4)
        self.coarse = noise(rng, shape, 70.0 * px_per_m, 4)

    @property
    def whole(self) -> Window:
        """The window of the whole canvas."""
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def paint(
        self,
        window: Window,
        cover: Cover,
        look: Look,
        *,
        tone: Layer | float = 1.0,
        colour: Colour | None = None,
        height: Layer | float = 0.0,
    ) -> None:
        """Lays `look` over the pixels of `window` where `cover` is True.

        Args:
            window: part of the canvas, of `cover`'s shape.
            cover: `h,w` bool.
            look: the surface.
            tone: factor on the brightness, `h,w` or one number.
            colour: instead of the look's own.
            height: metres above the ground, `h,w` or one number.
        """
        texture = tone * (1.0 + look.speck * self.fine[window] + look.patch * self.mid[window])
        base = np.asarray(colour or look.colour, np.float32) / np.float32(255.0)
        self.albedo[window][cover] = texture[cover][:, None] * base
        self.material[window][cover] = look.material
        self.vegetation[window][cover] = look.vegetation
        self.wetness[window][cover] = look.wetness
        self.roughness[window][cover] = look.roughness
        self.height[window][cover] = np.broadcast_to(height, cover.shape)[cover]

    def tint(self, window: Window, cover: Cover, factor: float | Layer) -> None:
        """Brightens or darkens what is there already."""
        self.albedo[window][cover] *= np.broadcast_to(factor, cover.shape)[cover][:, None]

    @property
    def middle(self) -> Points:
        """The place in the middle, `2`."""
        return np.array([self.size_m[1] / 2, self.size_m[0] / 2])

    def turned(self, u: float, v: float, angle: float) -> tuple[float, float]:
        """The place (u, v) of a frame about the middle that is turned by `angle`."""
        cos, sin = math.cos(angle), math.sin(angle)
        middle = self.middle
        return float(middle[0] + u * cos - v * sin), float(middle[1] + u * sin + v * cos)

    def across(self, angle: float, offset_m: float, sway_m: float) -> Points:
        """A line `n,2` across the canvas at `angle`, `offset_m` beside its middle; it sways by `sway_m`."""
        reach = 0.75 * max(self.size_m)
        start, end = (np.array(self.turned(u, offset_m, angle)) for u in (-reach, reach))
        return wavy_line(self.rng, start, end, sway_m)

    def around(self, x: float, y: float, radius_m: float) -> Window | None:
        """The window that holds a disc; None when the disc lies off the canvas."""
        scale = self.px_per_m
        top, left = max(0, int((y - radius_m) * scale)), max(0, int((x - radius_m) * scale))
        bottom = min(self.shape[0], math.ceil((y + radius_m) * scale) + 1)
        right = min(self.shape[1], math.ceil((x + radius_m) * scale) + 1)
        if top >= bottom or left >= right:
            return None
        return slice(top, bottom), slice(left, right)

    def box(
        self, x: float, y: float, length_m: float, width_m: float, angle: float, margin_m: float = 0.0
    ) -> Box | None:
        """A turned rectangle about (x, y), its length along `angle`; None when it lies off the canvas.

        The window is `margin_m` wider on every side than the rectangle.
        """
        cos, sin = math.cos(angle), math.sin(angle)
        half_x = (abs(length_m * cos) + abs(width_m * sin)) / 2
        half_y = (abs(length_m * sin) + abs(width_m * cos)) / 2
        wide = self.around(x, y, max(half_x, half_y) + margin_m)
        if wide is None:
            return None
        dx, dy = self.x[wide] - np.float32(x), self.y[wide] - np.float32(y)
        u, v = dx * np.float32(cos) + dy * np.float32(sin), dy * np.float32(cos) - dx * np.float32(sin)
        return Box(wide, u, v, length_m, width_m)

    def distance_to(self, points: Points) -> Layer:
        """Metres from each pixel to a line through `points`."""
        drawn = np.full(self.shape, 255, np.uint8)
        self.draw_line(drawn, points, 0)
        distance: Layer = cv2.distanceTransform(drawn, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / np.float32(
            self.px_per_m
        )
        return distance

    def draw_line(self, image: NDArray[np.uint8], points: Points, value: int, width_m: float = 0.0) -> None:
        """Draws a line through `points` into `image`, at least a pixel wide."""
        scaled = np.rint((points * self.px_per_m - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        thickness = max(1, round(width_m * self.px_per_m))
        cv2.polylines(image, [scaled], False, value, thickness, cv2.LINE_8, _SUBPIXEL_BITS)

    def line_cover(self, points: Points, width_m: float) -> Cover:
        """The pixels of a line through `points`, `width_m` wide."""
        drawn = np.zeros(self.shape, np.uint8)
        self.draw_line(drawn, points, 1, width_m)
        return drawn > 0

    def room(self) -> Layer:
        """Metres from each pixel to the nearest one that is taken (road, building, water)."""
        free = (~np.isin(self.material, TAKEN)).astype(np.uint8)
        if free.all():
            return np.full(self.shape, max(self.size_m), np.float32)
        clear: Layer = cv2.distanceTransform(free, cv2.DIST_L2, 3) / np.float32(self.px_per_m)
        return clear

    def at(self, layer: NDArray, x: float, y: float) -> float:
        """A layer's value at a place; 0 off the canvas."""
        row, column = int(y * self.px_per_m), int(x * self.px_per_m)
        inside = 0 <= row < self.shape[0] and 0 <= column < self.shape[1]
        return float(layer[row, column]) if inside else 0.0


def wavy_line(rng: np.random.Generator, start: Points, end: Points, sway_m: float) -> Points:
    """A smooth line from `start` to `end`, each (x, y) in metres, that sways by about `sway_m`; `64,2`."""
    a, b = np.asarray(start, np.float64)[:2], np.asarray(end, np.float64)[:2]
    t = np.linspace(0.0, 1.0, 64)[:, None]
    along = b - a
    across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    sway = sum(
        rng.normal(0.0, sway_m / waves) * np.sin(2 * math.pi * (waves / 2 * t + rng.uniform()))
        for waves in (1, 2, 3)
    )
    return a + t * along + sway * across


Frame = tuple[float, float, float, float]


def cut_across(frame: Frame, share: float) -> tuple[Frame, Frame]:
    """A rectangle (u0, v0, u1, v1) cut in two across its longer side, `share` of it in the first part."""
    u0, v0, u1, v1 = frame
    if u1 - u0 >= v1 - v0:
        middle = u0 + share * (u1 - u0)
        return (u0, v0, middle, v1), (middle, v0, u1, v1)
    middle = v0 + share * (v1 - v0)
    return (u0, v0, u1, middle), (u0, middle, u1, v1)
