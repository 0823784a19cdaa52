"""The canvas that a synthetic scene is painted on: layers, noise, and pixel masks.

Positions are metres from the canvas' top left corner, x east and y south; angles are radians from x to y.
Every layer is `H,W` (albedo `H,W,3`) at `px_per_m` pixels per metre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.core.types import Mask

Layer = NDArray[Any]  # floating point; the canvas stores float32
Window = tuple[slice, slice]
Colour = tuple[float, float, float]
Points = NDArray[np.float64]  # n,2: x and y in metres
Frame = tuple[float, float, float, float]  # u0, v0, u1, v1 in metres

_SUBPIXEL_BITS = 4  # cv2 draws with a precision of 1/16 pixel


class Material(IntEnum):
    """Material of the ground; the value stored in `Scene.material`."""

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


# No tree or building is added on these.
OCCUPIED = (
    Material.WATER,
    Material.ASPHALT,
    Material.CONCRETE,
    Material.ROOF,
    Material.METAL_ROOF,
    Material.CAR,
)


@dataclass(frozen=True)
class Surface:
    """Optical and radar properties of a surface.

    Attributes:
        material: its class.
        colour: red, green, blue in 0..255, of level ground in full sun.
        speck, patch: relative brightness variation per pixel and over a few metres.
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
    """A rotated rectangle: its bounding window, and each pixel's offset from its centre along both sides.

    Attributes:
        window: of the canvas.
        u, v: `h,w` float32, metres along the length and the width.
        length_m, width_m: sides of the rectangle.
    """

    window: Window
    u: Layer
    v: Layer
    length_m: float
    width_m: float

    def mask(self, inset_m: float = 0.0) -> Mask:
        """The pixels at least `inset_m` inside each edge, `h,w`."""
        half_u, half_v = self.length_m / 2 - inset_m, self.width_m / 2 - inset_m
        return (np.abs(self.u) <= half_u) & (np.abs(self.v) <= half_v)

    def distance(self) -> Layer:
        """Metres to the rectangle, 0 inside, `h,w` float32."""
        du = np.clip(np.abs(self.u) - self.length_m / 2, 0.0, None)
        dv = np.clip(np.abs(self.v) - self.width_m / 2, 0.0, None)
        return np.hypot(du, dv).astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 4) -> Layer:
    """Fractal noise of mean 0 and standard deviation 1, `H,W` float32; `cell_px`: largest feature size."""
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
        rng: the scene's generator.
        size_m: height and width of the ground.
        px_per_m: pixels per metre.
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
        """The window of the full canvas."""
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def paint(
        self,
        window: Window,
        mask: Mask,
        surface: Surface,
        *,
        tone: Layer | float = 1.0,
        colour: Colour | None = None,
        height: Layer | float = 0.0,
    ) -> None:
        """Paints `surface` on the pixels of `window` where `mask` is True.

        Args:
            window: part of the canvas, of the mask's shape.
            mask: `h,w`.
            surface: material, texture and radar properties.
            tone: brightness factor, `h,w` or a number.
            colour: replaces the surface's own.
            height: metres above the ground, `h,w` or a number.
        """
        texture = tone * (1.0 + surface.speck * self.fine[window] + surface.patch * self.mid[window])
        base = np.asarray(colour or surface.colour, np.float32) / np.float32(255.0)
        self.albedo[window][mask] = texture[mask][:, None] * base
        self.material[window][mask] = surface.material
        self.vegetation[window][mask] = surface.vegetation
        self.wetness[window][mask] = surface.wetness
        self.roughness[window][mask] = surface.roughness
        self.height[window][mask] = np.broadcast_to(height, mask.shape)[mask]

    def tint(self, window: Window, mask: Mask, factor: float | Layer) -> None:
        """Multiplies the albedo where `mask` is True."""
        self.albedo[window][mask] *= np.broadcast_to(factor, mask.shape)[mask][:, None]

    @property
    def centre(self) -> Points:
        """The canvas' centre, `2`."""
        return np.array([self.size_m[1] / 2, self.size_m[0] / 2])

    def from_frame(self, u: float, v: float, angle: float) -> tuple[float, float]:
        """The canvas position of (u, v) in a frame about the centre, rotated by `angle`."""
        centre = self.centre
        return offset(float(centre[0]), float(centre[1]), u, v, angle)

    def across(self, angle: float, offset_m: float, sway_m: float) -> Points:
        """A line `64,2` across the canvas at `angle`, `offset_m` from its centre, curved by `sway_m`."""
        reach = 0.75 * max(self.size_m)
        start, end = (np.array(self.from_frame(u, offset_m, angle)) for u in (-reach, reach))
        t = np.linspace(0.0, 1.0, 64)[:, None]
        along = end - start
        normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
        sway = sum(
            self.rng.normal(0.0, sway_m / waves) * np.sin(2 * math.pi * (waves / 2 * t + self.rng.uniform()))
            for waves in (1, 2, 3)
        )
        line: Points = start + t * along + sway * normal
        return line

    def window_around(self, x: float, y: float, radius_m: float) -> Window | None:
        """The window that contains a disc; None for a disc off the canvas."""
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
        """A rectangle centred at (x, y), its length along `angle`; None for one off the canvas.

        The window exceeds the rectangle by `margin_m` on every side.
        """
        cos, sin = math.cos(angle), math.sin(angle)
        half_x = (abs(length_m * cos) + abs(width_m * sin)) / 2
        half_y = (abs(length_m * sin) + abs(width_m * cos)) / 2
        window = self.window_around(x, y, max(half_x, half_y) + margin_m)
        if window is None:
            return None
        dx, dy = self.x[window] - np.float32(x), self.y[window] - np.float32(y)
        u, v = dx * np.float32(cos) + dy * np.float32(sin), dy * np.float32(cos) - dx * np.float32(sin)
        return Box(window, u, v, length_m, width_m)

    def line_mask(self, *lines: Points, width_m: float = 0.0) -> Mask:
        """The pixels of `lines`, each `width_m` wide and at least a pixel."""
        scaled = [
            np.rint((points * self.px_per_m - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
            for points in lines
        ]
        drawn = np.zeros(self.shape, np.uint8)
        thickness = max(1, round(width_m * self.px_per_m))
        cv2.polylines(drawn, scaled, False, 1, thickness, cv2.LINE_8, _SUBPIXEL_BITS)
        return drawn > 0

    def distance_to(self, points: Points) -> Layer:
        """Metres from each pixel to a line through `points`, `H,W` float32."""
        outside = (~self.line_mask(points)).astype(np.uint8)
        distance: Layer = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return distance / np.float32(self.px_per_m)

    def clearance(self) -> Layer:
        """Metres from each pixel to the nearest occupied one (road, building, water), `H,W` float32."""
        free = (~np.isin(self.material, OCCUPIED)).astype(np.uint8)
        if free.all():
            return np.full(self.shape, max(self.size_m), np.float32)
        clear: Layer = cv2.distanceTransform(free, cv2.DIST_L2, 3)
        return clear / np.float32(self.px_per_m)

    def at(self, layer: NDArray, x: float, y: float) -> float:
        """A layer's value at (x, y); 0 off the canvas."""
        row, column = int(y * self.px_per_m), int(x * self.px_per_m)
        inside = 0 <= row < self.shape[0] and 0 <= column < self.shape[1]
        return float(layer[row, column]) if inside else 0.0


def offset(x: float, y: float, u: float, v: float, angle: float) -> tuple[float, float]:
    """The canvas position of (u, v) in a frame with its origin at (x, y), rotated by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return float(x + u * cos - v * sin), float(y + u * sin + v * cos)


def cut_across(frame: Frame, fraction: float) -> tuple[Frame, Frame]:
    """Splits a rectangle (u0, v0, u1, v1) across its longer side; the first part has `fraction` of it."""
    u0, v0, u1, v1 = frame
    if u1 - u0 >= v1 - v0:
        u = u0 + fraction * (u1 - u0)
        return (u0, v0, u, v1), (u, v0, u1, v1)
    v = v0 + fraction * (v1 - v0)
    return (u0, v0, u1, v), (u0, v, u1, v1)
