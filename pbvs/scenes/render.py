"""Renders a synthetic scene as a colour camera, an infrared camera and a radar.

Images are `float64` in 0..255, not rounded, on the given grid: a size and an affine matrix `2,3` that maps
the centre of pixel (column, row) to canvas pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pbvs.core.pixels import WHITE
from pbvs.scenes.brushes import Layer, Material
from pbvs.scenes.scene import Scene

Image = NDArray[np.float64]

_EO_WEIGHTS = (0.30, 0.45, 0.25)  # of red, green, blue in the panchromatic image
_EO_GAIN = 0.62
_VEGETATION_GAIN = 52.0  # grey levels that full vegetation in full sun adds in the near infrared
_WATER_LOSS = 0.62  # fraction of the near infrared that water absorbs

_SKY_LIGHT = 0.34  # fraction of all light on open, flat ground
_SKY_TINT = (0.90, 0.98, 1.16)  # the blue sky lights the shadows
_SUN_TINT = (1.05, 1.01, 0.92)
_STEEPEST = 1.6  # rise over run; a steeper surface is a wall, invisible from above

# Backscatter in decibels at roughness 0.5, typical of X band at medium incidence.
_BACKSCATTER_DB = {
    Material.SOIL: -11.5,
    Material.ROCK: -10.0,
    Material.GRAVEL: -10.0,
    Material.GRASS: -11.0,
    Material.CROP: -9.5,
    Material.SHRUB: -9.5,
    Material.TREE: -8.5,
    Material.WATER: -22.0,
    Material.MUD: -18.0,
    Material.ASPHALT: -17.0,
    Material.CONCRETE: -13.0,
    Material.ROOF: -7.0,
    Material.METAL_ROOF: -3.5,
    Material.CAR: -3.0,
}
_ROUGHNESS_DB = 9.0
_WETNESS_DB = 4.0
_NOISE_FLOOR = 10.0 ** (-2.5)
_WALL_POWER = 0.5  # of a wall of height 1 m (times its square root), spread over its layover
_BOUNCE_POWER = 0.9  # double bounce at the foot of a wall of height 1 m (times its square root)
_SHADOW_FRACTION = 0.12  # of the power that radar shadow still returns, by way of its neighbours
_FULL_SCALE = 0.78  # amplitude stored as 255
_WETNESS_MATERIALS = (Material.SOIL, Material.GRASS, Material.CROP)
_BUILT = (Material.ROOF, Material.METAL_ROOF, Material.CAR)


@dataclass(frozen=True)
class Grid:
    """An image's size, and the affine matrix `2,3` from its pixel centres to canvas pixels."""

    height_px: int
    width_px: int
    to_canvas: NDArray[np.float64]

    @property
    def canvas_px_per_px(self) -> float:
        """Canvas pixels per image pixel, along a side."""
        return math.sqrt(abs(float(np.linalg.det(self.to_canvas[:, :2]))))


@dataclass(frozen=True)
class Flight:
    """Conditions of an optical capture; angles in degrees, azimuth clockwise from north."""

    sun_azimuth: float
    sun_elevation: float
    gain: float
    tint: tuple[float, float, float]
    season: float  # -1 fresh .. 1 parched
    blur_px: float
    noise: float  # standard deviation in grey levels
    haze: float  # in grey levels


@dataclass(frozen=True)
class Pass:
    """Conditions of a SAR capture; angles in degrees, incidence from the vertical."""

    azimuth_to_sensor: float
    incidence: float
    looks: float
    gain: float


@dataclass(frozen=True)
class Optical:
    """A colour image, and the scene layers on its grid that its infrared is computed from.

    Attributes:
        rgb: `H,W,3` float64 in 0..255, not rounded.
        vegetation, wetness: `H,W` float32 in [0,1].
        light: `H,W` float32, 1 on open, flat ground.
    """

    rgb: Image
    vegetation: Layer
    wetness: Layer
    light: Layer


def random_flight(rng: np.random.Generator) -> Flight:
    """A flight around noon in the northern hemisphere."""
    tint = 1.0 + rng.normal(0.0, 0.02, 3)
    return Flight(
        sun_azimuth=float(rng.uniform(135, 215)),
        sun_elevation=float(rng.uniform(44, 62)),
        gain=float(rng.uniform(0.95, 1.07)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        season=float(rng.uniform(-0.8, 0.9)),
        blur_px=float(rng.uniform(0.35, 0.6)),
        noise=float(rng.uniform(1.2, 3.0)),
        haze=float(rng.uniform(10.0, 20.0)),
    )


def random_pass(rng: np.random.Generator) -> Pass:
    """A pass with the radar in the west, so that layover has one direction in all captures."""
    return Pass(
        azimuth_to_sensor=float(rng.uniform(258, 290)),
        incidence=float(rng.uniform(50, 58)),
        looks=float(rng.uniform(1.6, 4.0)),
        gain=float(rng.uniform(0.9, 1.12)),
    )


# ---- light


def optical(scene: Scene, grid: Grid, flight: Flight, rng: np.random.Generator) -> Optical:
    """The scene from straight above in sunlight; `rng` is used for sensor noise only."""
    # light relative to open, flat ground: direct sun with shadows, and the visible part of the sky
    surface = scene.terrain + scene.height
    towards, rise = _direction(flight.sun_azimuth), math.tan(math.radians(flight.sun_elevation))
    overhead = _horizon(surface, towards, rise / scene.px_per_m) - surface
    sunlit = 1.0 - _smooth_step(overhead / 0.8)
    dx, dy = _slopes(cv2.GaussianBlur(surface, (0, 0), 0.7), scene.px_per_m)
    facing = (1.0 - (dx * towards[0] + dy * towards[1]) / rise) / np.sqrt(1.0 + dx * dx + dy * dy)
    sun = (1.0 - _SKY_LIGHT) * np.clip(facing, 0.0, 1.9) * cv2.GaussianBlur(sunlit, (0, 0), 0.6)
    around = cv2.GaussianBlur(scene.height, (0, 0), 3.0 * scene.px_per_m)
    sky = _SKY_LIGHT * np.clip(1.0 - 0.035 * np.clip(around - scene.height, 0.0, 14.0), 0.5, 1.0)
    light = (sun + sky).astype(np.float32)
    tints = np.array(_SUN_TINT, np.float32), np.array(_SKY_TINT, np.float32)
    lit = (sun[:, :, None] * tints[0] + sky[:, :, None] * tints[1]).astype(np.float32)
    # colour in season, haze, blur and noise
    season = np.float32(flight.season) * scene.vegetation[:, :, None]
    albedo = scene.albedo * (1.0 + season * np.array([0.22, 0.05, -0.05], np.float32))
    colour = np.array(flight.tint, np.float32) * np.float32(flight.gain * WHITE)
    radiance = albedo * lit * colour * np.float32(1.0 - flight.haze / WHITE) + np.float32(flight.haze)
    spread = math.hypot(flight.blur_px, 0.4) * max(1.0, grid.canvas_px_per_px)
    image = _sample(cv2.GaussianBlur(radiance, (0, 0), spread), grid).astype(np.float64)
    image += rng.normal(0.0, flight.noise, image.shape)
    layers = (_sample(layer, grid) for layer in (scene.vegetation, scene.wetness, light))
    return Optical(np.clip(image, 0.0, WHITE), *layers)


def infrared(rgb: NDArray[Any], optical_: Optical, gray_factor: float, rng: np.random.Generator) -> Image:
    """Near infrared of a capture from its stored `rgb` (`H,W,3`, 0..255); `H,W` float64 in 0..255.

    With g = gray_factor * mean(R,G,B), v the vegetation, l the light, s(t) = 3 t^2 - 2 t^3 on [0,1] and
    w = (1 - v) s((wetness - 0.55) / 0.4): ir = g (1 - 0.62 w) + 52 v l, plus noise of 1.5 grey levels.
    So vegetation is bright, open water dark, and everything else near `gray_factor` times the gray.
    """
    gray = gray_factor * rgb.astype(np.float64).mean(axis=-1)
    vegetation = optical_.vegetation.astype(np.float64)
    open_water = _smooth_step((optical_.wetness.astype(np.float64) - 0.55) / 0.4) * (1.0 - vegetation)
    ir = gray * (1.0 - _WATER_LOSS * open_water) + _VEGETATION_GAIN * vegetation * optical_.light
    noisy: Image = np.clip(ir + rng.normal(0.0, 1.5, ir.shape), 0.0, WHITE)
    return noisy


def gray_infrared(rgb: NDArray[Any], gray_factor: float) -> NDArray[np.uint8]:
    """`clip(round_half_even(gray_factor * mean(R,G,B)), 0, 255)` in float64 of stored uint8; `H,W` uint8."""
    return np.asarray(np.rint(np.clip(gray_factor * rgb.mean(axis=-1), 0, WHITE)), np.uint8)


def panchromatic(rgb: Image) -> Image:
    """One broad band, darker than the colours as the real sensor's is: `H,W` in 0..255 of `H,W,3`."""
    return np.asarray(_EO_GAIN * (rgb @ np.array(_EO_WEIGHTS)), np.float64)


# ---- radar


def radar(scene: Scene, grid: Grid, sar_pass: Pass, rng: np.random.Generator) -> Image:
    """SAR amplitude in 0..255, `H,W` float64: backscatter with layover, shadow and speckle.

    A point `h` metres above the ground appears h / tan(incidence) nearer to the sensor, and casts a
    shadow of h * tan(incidence) behind it. Speckle is gamma noise on power, of mean 1.
    """
    towards = _direction(sar_pass.azimuth_to_sensor)
    dx, dy = _slopes(cv2.GaussianBlur(scene.terrain, (0, 0), 1.5), scene.px_per_m)
    facing = np.clip(-(dx * towards[0] + dy * towards[1]), -0.8, 0.8)
    dx, dy = _slopes(scene.height, scene.px_per_m)
    roofs = np.clip(-(dx * towards[0] + dy * towards[1]), -0.8, 0.8) * (scene.material == Material.ROOF)
    power = np.power(10.0, backscatter_db(scene) / 10.0) * np.exp(1.5 * facing + 1.6 * roofs)
    power = _layover(scene, power, towards, 1.0 / math.tan(math.radians(sar_pass.incidence)))
    # side lobes: faint crosses about the brightest points
    bright = np.where(power > 2.5, power, 0.0).astype(np.float32)
    bright *= rng.random(power.shape, np.float32) < 0.25
    power += 0.25 * (cv2.blur(bright, (1, 17)) + cv2.blur(bright, (17, 1)))
    spread = 0.5 * max(1.0, grid.canvas_px_per_px)
    power = np.maximum(_sample(cv2.GaussianBlur(power, (0, 0), spread), grid), _NOISE_FLOOR)
    power = power * rng.gamma(sar_pass.looks, 1.0 / sar_pass.looks, power.shape)
    amplitude = np.sqrt(cv2.GaussianBlur(power, (0, 0), 0.45))
    return np.clip(amplitude * (sar_pass.gain * WHITE / _FULL_SCALE), 0.0, WHITE)


def backscatter_db(scene: Scene) -> Layer:
    """Backscatter of each pixel's surface in decibels, without slope and shadow, `H,W` float32.

    Roughness has full effect on the ground and on roofs, and a third of it on water, roads and cars.
    """
    table = np.array([_BACKSCATTER_DB[m] for m in Material], np.float32)
    textured = (scene.material < Material.WATER) | (scene.material == Material.ROOF)
    return (
        table[scene.material]
        + np.float32(_ROUGHNESS_DB)
        * (scene.roughness - 0.5)
        * np.where(textured, 1.0, 0.33).astype(np.float32)
        + np.float32(_WETNESS_DB) * (scene.wetness - 0.2) * np.isin(scene.material, _WETNESS_MATERIALS)
    )


def _layover(scene: Scene, power: Layer, towards: tuple[float, float], cot: float) -> Layer:
    """Moves each pixel's power to its place in the SAR image, adds walls, and darkens the shadow."""
    surface = 0.5 * scene.terrain + scene.height  # the processor has corrected gentle hills
    shadow = _horizon(surface, towards, cot / scene.px_per_m) > surface + 0.3
    lit = np.where(shadow, _SHADOW_FRACTION * power, power).astype(np.float32)
    total = _accumulate(lit, scene.height * (cot * scene.px_per_m), towards)
    # a wall that faces the sensor: its foot is the pixel before the step up
    before = (-round(towards[0] * 1.5), -round(towards[1] * 1.5))
    step = np.clip(_shifted(scene.height, *before) - scene.height, 0.0, 40.0)
    built = np.isin(_shifted(scene.material, *before), _BUILT)
    wall = np.where(built & (step > 1.2) & ~shadow, step, 0.0).astype(np.float32)
    total += _BOUNCE_POWER * np.sqrt(wall)
    for fraction in np.linspace(0.1, 1.0, 8):
        lean = (scene.height + np.float32(fraction) * wall) * np.float32(cot * scene.px_per_m)
        total += _accumulate(_WALL_POWER * np.sqrt(wall) / 8.0, lean, towards)
    return total


def _accumulate(power: Layer, lean_px: Layer, towards: tuple[float, float]) -> Layer:
    """Sums each pixel's power at the pixel `lean_px` nearer to the sensor; off the canvas it is lost."""
    height, width = power.shape
    rows, columns = np.nonzero(power)
    lean = lean_px[rows, columns]
    to_row = np.rint(rows + lean * towards[1]).astype(np.int64)
    to_column = np.rint(columns + lean * towards[0]).astype(np.int64)
    inside = (to_row >= 0) & (to_row < height) & (to_column >= 0) & (to_column < width)
    pixels = (to_row * width + to_column)[inside]
    summed = np.bincount(pixels, power[rows, columns][inside], minlength=height * width)
    return summed.reshape(height, width).astype(np.float32)


# ---- geometry


def _sample(layer: Layer, grid: Grid) -> Layer:
    """A canvas layer `H,W` or `H,W,C` at a grid's pixels, bilinear; its edge is repeated beyond."""
    size = (grid.width_px, grid.height_px)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    result: Layer = cv2.warpAffine(layer, grid.to_canvas, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return result


def _direction(azimuth: float) -> tuple[float, float]:
    """Unit vector (x, y) in the image for a compass direction in degrees."""
    return math.sin(math.radians(azimuth)), -math.cos(math.radians(azimuth))


def _slopes(surface: Layer, px_per_m: float) -> tuple[Layer, Layer]:
    dy, dx = np.gradient(surface)
    limit = np.float32(_STEEPEST)
    return np.clip(dx * px_per_m, -limit, limit), np.clip(dy * px_per_m, -limit, limit)


def _horizon(surface: Layer, towards: tuple[float, float], rise_per_px: float) -> Layer:
    """At each pixel the height at which the source becomes visible over the ground towards it.

    The maximum over distances d = 0, 1, 2, ... of surface(p + d * towards) - d * rise, by doubling: eight
    steps reach 255 pixels.
    """
    reach = surface
    for power_of_two in range(8):
        d = 1 << power_of_two
        moved = _shifted(reach, round(-towards[0] * d), round(-towards[1] * d))
        reach = np.maximum(reach, moved - np.float32(d * rise_per_px))
    return reach


def _shifted(image: NDArray[Any], dx: int, dy: int) -> NDArray[Any]:
    """The image moved by (dx, dy) pixels, with its edge repeated."""
    height, width = image.shape
    rows = np.clip(np.arange(height) - dy, 0, height - 1)
    columns = np.clip(np.arange(width) - dx, 0, width - 1)
    return image[rows][:, columns]


def _smooth_step(x: NDArray[Any]) -> NDArray[Any]:
    t = np.clip(x, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
