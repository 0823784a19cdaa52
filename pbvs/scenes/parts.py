"""Parts of a synthetic scene: ground, fields, water, roads, roofs, cars and trees, one function per kind.

All positions and lengths are metres on the canvas; every random choice uses the canvas' generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pbvs.core.types import Mask
from pbvs.scenes.brushes import Box, Canvas, Colour, Layer, Material, Points, Surface, offset

SOIL = Surface(Material.SOIL, (158, 132, 104), 0.05, 0.07, 0.05, 0.15, 0.55)
PALE_SOIL = Surface(Material.SOIL, (190, 170, 140), 0.04, 0.06, 0.0, 0.05, 0.35)
ROCK = Surface(Material.ROCK, (150, 140, 130), 0.09, 0.08, 0.0, 0.02, 0.9)
GRAVEL = Surface(Material.GRAVEL, (184, 172, 154), 0.05, 0.04, 0.0, 0.02, 0.6)
LAWN = Surface(Material.GRASS, (108, 126, 84), 0.04, 0.06, 0.75, 0.4, 0.35)
DRY_GRASS = Surface(Material.GRASS, (164, 153, 118), 0.06, 0.08, 0.3, 0.1, 0.45)
SHRUB = Surface(Material.SHRUB, (104, 106, 78), 0.1, 0.08, 0.45, 0.15, 0.75)
WATER = Surface(Material.WATER, (58, 84, 92), 0.02, 0.04, 0.0, 1.0, 0.1)
MUD = Surface(Material.MUD, (168, 158, 140), 0.02, 0.06, 0.0, 0.8, 0.15)
ASPHALT = Surface(Material.ASPHALT, (112, 112, 114), 0.035, 0.05, 0.0, 0.0, 0.2)
CONCRETE = Surface(Material.CONCRETE, (180, 176, 168), 0.03, 0.04, 0.0, 0.0, 0.35)
FLAT_ROOF = Surface(Material.ROOF, (168, 164, 158), 0.03, 0.03, 0.0, 0.0, 0.4)
SHEET_ROOF = Surface(Material.METAL_ROOF, (206, 210, 212), 0.02, 0.02, 0.0, 0.0, 0.3)
CAR = Surface(Material.CAR, (200, 200, 200), 0.02, 0.0, 0.0, 0.0, 0.5)
TREE = Surface(Material.TREE, (72, 92, 54), 0.14, 0.08, 0.95, 0.5, 0.9)

CROPS = (
    Surface(Material.CROP, (98, 124, 76), 0.04, 0.045, 0.95, 0.5, 0.5),  # alfalfa
    Surface(Material.CROP, (82, 106, 68), 0.06, 0.04, 0.85, 0.45, 0.8),  # maize
    Surface(Material.CROP, (132, 142, 96), 0.04, 0.06, 0.6, 0.35, 0.35),  # young grain
    Surface(Material.CROP, (190, 174, 130), 0.04, 0.05, 0.2, 0.1, 0.12),  # ripe grain
    Surface(Material.SOIL, (172, 146, 116), 0.05, 0.06, 0.02, 0.1, 0.4),  # harrowed
    Surface(Material.SOIL, (122, 98, 78), 0.07, 0.07, 0.02, 0.5, 0.78),  # ploughed, moist
    Surface(Material.GRASS, (152, 147, 112), 0.06, 0.12, 0.35, 0.15, 0.45),  # fallow
)
HOUSE_ROOFS: tuple[Colour, ...] = (
    (142, 92, 74),
    (124, 112, 104),
    (96, 94, 96),
    (164, 144, 120),
    (178, 172, 164),
    (112, 84, 66),
)
FLAT_ROOFS: tuple[Colour, ...] = (
    (200, 196, 188),
    (172, 168, 160),
    (124, 122, 122),
    (150, 132, 114),
    (228, 226, 220),
    (96, 96, 100),
    (164, 120, 100),
)
PAVED = (Material.ASPHALT, Material.CONCRETE)
CAR_COLOURS: tuple[Colour, ...] = (
    (232, 232, 230),
    (190, 192, 194),
    (60, 62, 66),
    (44, 46, 50),
    (150, 36, 34),
    (48, 70, 112),
    (136, 132, 124),
)
TAXI: Colour = (232, 182, 44)


@dataclass(frozen=True)
class Building:
    """A building's centre, size and roof; `pitch` is a gable's rise over run, 0 for a flat roof."""

    x: float
    y: float
    length_m: float
    width_m: float
    angle: float
    height_m: float
    pitch: float = 0.0


def pick(canvas: Canvas, choices: tuple, weights: tuple[float, ...] | None = None):  # type: ignore[no-untyped-def]
    """A random one of `choices`, with probabilities proportional to `weights`."""
    p = None if weights is None else np.asarray(weights) / sum(weights)
    return choices[int(canvas.rng.choice(len(choices), p=p))]


def _varied(canvas: Canvas, colour: Colour, by: float = 10.0) -> Colour:
    """`colour` a little lighter or darker, and a little warmer or cooler."""
    level, warmth = canvas.rng.normal(0.0, by), canvas.rng.normal(0.0, by / 3)
    red, green, blue = (float(np.clip(value + level, 12, 246)) for value in colour)
    return red + warmth, green, blue - warmth


# ---- ground


def ground(canvas: Canvas, surface: Surface, other: Surface, relief_m: float) -> None:
    """Covers the canvas with patches of two surfaces, over hills of `relief_m`."""
    canvas.terrain += relief_m * canvas.coarse + 0.04 * relief_m * canvas.mid
    canvas.paint(canvas.whole, np.ones(canvas.shape, np.bool_), surface)
    canvas.paint(canvas.whole, canvas.mid + 0.8 * canvas.coarse > 0.55, other)
    soft: Layer = np.asarray(cv2.GaussianBlur(canvas.albedo, (0, 0), 1.2 * canvas.px_per_m))
    canvas.albedo[:] = soft * (1.0 + 0.05 * canvas.fine + 0.05 * canvas.mid)[:, :, None]


def shrubs(canvas: Canvas, fraction: float, where: Mask) -> None:
    """Scatters bushes over about `fraction` of the free ground in `where`, in clumps."""
    grain = canvas.rng.standard_normal(canvas.shape, np.float32)
    dots = cv2.GaussianBlur(grain, (0, 0), 0.5 * canvas.px_per_m)
    dots = dots / np.float32(max(float(dots.std()), 1e-6)) + 0.5 * canvas.mid
    mask = (dots > np.quantile(dots, 1.0 - fraction)) & (canvas.clearance() > 1.0) & where
    canvas.paint(canvas.whole, mask, SHRUB, height=1.2)


def water_body(canvas: Canvas, distance: Layer, reach: Layer | float, surface: Surface = WATER) -> None:
    """Water where `distance` (metres, `H,W`) is below `reach`, darker with depth, and its bank."""
    edge = distance - reach + 0.6 * canvas.mid
    bank = (edge < 3.0) & (edge >= 0.0)
    canvas.paint(canvas.whole, bank, replace(PALE_SOIL, wetness=0.5), tone=0.86)
    inside = edge < 0.0
    depth = np.clip(1.0 - 0.03 * np.clip(-edge, 0.0, 10.0), 0.6, 1.0)
    canvas.paint(canvas.whole, inside, surface, tone=depth)
    canvas.terrain[inside] = cv2.GaussianBlur(canvas.terrain, (0, 0), 12.0)[inside]


# ---- fields


def field(canvas: Canvas, box: Box, mask: Mask, crop: Surface) -> None:
    """A sown or ploughed field: rows along its length, tramlines, patches of weak growth."""
    rng = canvas.rng
    spacing = float(rng.choice([1.8, 2.6, 4.0]))
    bend = 0.15 * canvas.coarse[box.window]
    rows = np.sin(2 * math.pi / spacing * (box.v + bend))
    tone: Layer = 1.0 + 0.055 * rows + 0.05 * canvas.coarse[box.window]
    swath = float(rng.uniform(9.0, 16.0))
    tone = tone * (1.0 + float(rng.choice([0.0, 0.04])) * np.sign(np.sin(math.pi / swath * box.v)))
    height = 1.8 if crop.roughness == CROPS[1].roughness else 0.3 * crop.vegetation
    canvas.paint(box.window, mask, crop, tone=tone, colour=_varied(canvas, crop.colour, 7.0), height=height)
    tracks = mask & (np.abs((box.v + swath / 2) % swath - swath / 2) < 0.35)
    canvas.tint(box.window, tracks, 0.88)
    # soil is visible where growth is weak
    weak = (
        np.clip(canvas.mid[box.window] + canvas.coarse[box.window] - 1.4, 0.0, 1.0) * mask * crop.vegetation
    )
    soil = np.array(SOIL.colour, np.float32) / 255
    canvas.albedo[box.window] += (0.7 * weak)[:, :, None] * (soil - canvas.albedo[box.window])
    canvas.vegetation[box.window] *= 1.0 - 0.6 * weak


def pivot(canvas: Canvas, x: float, y: float, radius_m: float) -> None:
    """A pivot-irrigated field about (x, y): a disc with rings, and a sector of another crop."""
    window = canvas.window_around(x, y, radius_m)
    if window is None:
        return
    dx, dy = canvas.x[window] - np.float32(x), canvas.y[window] - np.float32(y)
    r, turn = np.hypot(dx, dy), np.arctan2(dy, dx)
    crop, other = pick(canvas, CROPS[:4]), pick(canvas, CROPS)
    rings = 1.0 + 0.04 * np.sin(2 * math.pi * r / 3.0) + 0.05 * canvas.coarse[window]
    disc = r < radius_m + 0.4 * canvas.mid[window]
    canvas.paint(window, disc, crop, tone=rings, colour=_varied(canvas, crop.colour), height=0.5)
    start = float(canvas.rng.uniform(-math.pi, math.pi))
    sector = disc & (((turn - start) % (2 * math.pi)) < canvas.rng.uniform(0.5, 2.2))
    canvas.paint(window, sector, other, tone=rings, height=0.3)
    canvas.paint(window, disc & (np.abs(r % 27.0 - 13.0) < 0.5), SOIL, tone=0.92)
    canvas.tint(window, disc & (r > radius_m - 2.0), 1.08)


# ---- roads


def road(canvas: Canvas, points: Points, width_m: float, *, lanes: bool = True, kerb_m: float = 0.0) -> None:
    """A paved road with worn lanes, optional lane markings, and pavements of `kerb_m` or gravel verges."""
    distance = canvas.distance_to(points)
    half = width_m / 2
    if kerb_m:
        canvas.paint(canvas.whole, distance < half + kerb_m, CONCRETE)
    else:
        verge = (distance < half + 1.5) & (distance >= half)
        canvas.paint(canvas.whole, verge, GRAVEL, tone=0.92)
    worn = 1.0 + 0.06 * np.cos(2 * math.pi * distance / max(half, 2.0) * 2)
    colour = _varied(canvas, ASPHALT.colour, 14.0)
    canvas.paint(canvas.whole, distance < half, ASPHALT, tone=worn, colour=colour)
    if not lanes:
        return
    if half > 4.0:
        edges = np.abs(distance - (half - 0.6)) < max(0.3, 0.55 / canvas.px_per_m) / 2
        canvas.paint(canvas.whole, edges, ASPHALT, colour=(196, 196, 190))
    steps = _arc_length(points)
    dashes = []
    for start in np.arange(0.0, float(steps[-1]) - 3.0, 9.0):
        s = np.array([start, start + 3.5])
        dashes.append(np.stack([np.interp(s, steps, points[:, k]) for k in (0, 1)], axis=1))
    centre_line = canvas.line_mask(*dashes) & (distance < half)
    canvas.paint(canvas.whole, centre_line, ASPHALT, colour=(214, 200, 128))


def _arc_length(points: Points) -> np.ndarray:
    """Metres from the line's start to each of its points, `n`."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])


def track(canvas: Canvas, points: Points, width_m: float) -> None:
    """An unpaved track: pale, with two darker wheel ruts."""
    distance = canvas.distance_to(points) + 0.25 * canvas.mid
    half = width_m / 2
    ruts = 1.0 - 0.1 * np.exp(-(((distance - half * 0.5) / 0.5) ** 2))
    canvas.paint(canvas.whole, distance < half, GRAVEL, tone=ruts, colour=_varied(canvas, (196, 178, 150)))


def path(canvas: Canvas, points: Points, width_m: float) -> None:
    """A concrete footpath over open ground."""
    open_ground = (canvas.material == Material.GRASS) | (canvas.material == Material.SOIL)
    canvas.paint(canvas.whole, canvas.line_mask(points, width_m=width_m) & open_ground, CONCRETE)


# ---- buildings, tanks and cars


def flat_roof(canvas: Canvas, building: Building) -> None:
    """A building with a flat roof: parapet, and machines on it."""
    rng = canvas.rng
    x, y, length, width, angle = building.x, building.y, building.length_m, building.width_m, building.angle
    box = canvas.box(x, y, length, width, angle)
    if box is None:
        return
    metal = rng.random() < 0.25
    roof = _varied(canvas, SHEET_ROOF.colour if metal else pick(canvas, FLAT_ROOFS))
    # pale roofs are gravel, rough to the radar; dark ones are smooth felt
    surface = SHEET_ROOF if metal else replace(FLAT_ROOF, roughness=(sum(roof) / 3 - 70.0) / 180.0)
    seams = 1.0 + (0.05 * np.sin(2 * math.pi * box.u / 1.8) if metal else 0.0)
    canvas.paint(box.window, box.mask(), surface, tone=seams, colour=roof, height=building.height_m)
    rim = box.mask() & ~box.mask(0.6)
    canvas.tint(box.window, rim, 1.12)
    canvas.height[box.window][rim] += 0.7
    for _ in range(int(rng.poisson(length * width / 130.0))):
        u, v = rng.uniform(-0.38, 0.38, 2) * (length, width)
        sides = rng.uniform(1.5, 4.0, 2)
        machine = canvas.box(*offset(x, y, u, v, angle), sides[0], sides[1], angle)
        if machine is not None:
            grey = float(rng.uniform(120, 215))
            top = building.height_m + rng.uniform(1.0, 2.5)
            canvas.paint(machine.window, machine.mask(), SHEET_ROOF, colour=(grey, grey, grey), height=top)


def gable_roof(canvas: Canvas, building: Building, colour: Colour | None = None) -> None:
    """A house or barn with a gable roof, its ridge along its length."""
    box = canvas.box(building.x, building.y, building.length_m, building.width_m, building.angle)
    if box is None:
        return
    rise = (building.width_m / 2 - np.abs(box.v)) * building.pitch
    hip = (building.length_m / 2 - np.abs(box.u)) * building.pitch * 1.6
    tiles = 1.0 + 0.03 * np.sin(2 * math.pi * box.v / 0.9)
    roof = _varied(canvas, colour or pick(canvas, HOUSE_ROOFS), 8.0)
    height = building.height_m + np.minimum(rise, hip)
    canvas.paint(box.window, box.mask(), FLAT_ROOF, tone=tiles, colour=roof, height=height)
    canvas.tint(box.window, box.mask() & (np.abs(box.v) < 0.3), 1.12)


def silo(canvas: Canvas, x: float, y: float, radius_m: float, height_m: float) -> None:
    """A round tank or silo with a domed metal roof."""
    window = canvas.window_around(x, y, radius_m)
    if window is None:
        return
    r = np.hypot(canvas.x[window] - np.float32(x), canvas.y[window] - np.float32(y)) / radius_m
    dome = height_m + 0.5 * radius_m * (1.0 - r)
    canvas.paint(window, r < 1.0, SHEET_ROOF, tone=1.0 - 0.12 * (r > 0.88), height=dome)


def car(canvas: Canvas, x: float, y: float, angle: float, colour: Colour | None = None) -> None:
    """A car: its body, with darker front and rear windows."""
    length = float(canvas.rng.uniform(4.0, 5.2))
    box = canvas.box(x, y, length, 1.9, angle)
    if box is None:
        return
    paint = _varied(canvas, colour or pick(canvas, CAR_COLOURS, (5, 5, 3, 3, 1, 1, 2)), 6.0)
    canvas.paint(box.window, box.mask(), CAR, colour=paint, height=1.5)
    glass = box.mask() & (np.abs(np.abs(box.u + 0.2) - 1.1) < 0.4)
    canvas.tint(box.window, glass, 0.5)


def car_park(canvas: Canvas, x: float, y: float, length_m: float, width_m: float, angle: float) -> None:
    """Asphalt with rows of painted stalls, most of them occupied."""
    lot = canvas.box(x, y, length_m, width_m, angle)
    if lot is None:
        return
    canvas.paint(lot.window, lot.mask(), ASPHALT, colour=_varied(canvas, ASPHALT.colour, 12.0))
    fullness = canvas.rng.uniform(0.3, 0.85)
    for v in np.arange(-width_m / 2 + 3.2, width_m / 2 - 2.5, 8.5):
        near = (np.abs(lot.v - v) < 2.6) & lot.mask(1.0)
        lines = near & (np.abs((lot.u + 1.4) % 2.8 - 1.4) < max(0.12, 0.3 / canvas.px_per_m))
        canvas.tint(lot.window, lines, 1.35)
        for u in np.arange(-length_m / 2 + 2.8, length_m / 2 - 2.0, 2.8):
            if canvas.rng.random() < fullness:
                car(canvas, *offset(x, y, u, v, angle), angle + math.pi / 2)


def traffic(canvas: Canvas, points: Points, offset_m: float, gap_m: float, taxis: float = 0.0) -> None:
    """Cars along a road, `offset_m` on both sides of its centre line, about `gap_m` apart."""
    rng = canvas.rng
    steps = _arc_length(points)
    for side in (-1.0, 1.0):
        s = float(rng.exponential(gap_m))
        while s < steps[-1]:
            i = min(int(np.searchsorted(steps, s, side="right")), len(points) - 1)
            dx, dy = points[i] - points[i - 1]
            angle = math.atan2(dy, dx)
            x = float(np.interp(s, steps, points[:, 0])) - side * offset_m * math.sin(angle)
            y = float(np.interp(s, steps, points[:, 1])) + side * offset_m * math.cos(angle)
            if canvas.at(canvas.material, x, y) == Material.ASPHALT:
                car(canvas, x, y, angle, TAXI if rng.random() < taxis else None)
            s += 6.0 + float(rng.exponential(gap_m))


# ---- trees


def tree(canvas: Canvas, x: float, y: float, radius_m: float, colour: Colour = TREE.colour) -> None:
    """A tree crown: a dome with an irregular outline; where crowns overlap, the taller one is visible."""
    window = canvas.window_around(x, y, radius_m * 1.3)
    if window is None:
        return
    dx, dy = canvas.x[window] - np.float32(x), canvas.y[window] - np.float32(y)
    lobes = 1.0 + 0.16 * np.sin(5 * np.arctan2(dy, dx) + x) + 0.1 * canvas.fine[window]
    r = np.hypot(dx, dy) / (radius_m * lobes)
    dome = np.sqrt(np.clip(1.0 - r * r, 0.0, 1.0))
    height = radius_m * 1.4 * (0.35 + 0.65 * dome) + 0.35 * canvas.fine[window]
    mask = (r < 1.0) & (height > canvas.height[window])
    colour = _varied(canvas, colour, 9.0)
    canvas.paint(window, mask, TREE, tone=0.8 + 0.3 * dome, colour=colour, height=height)


def trees(canvas: Canvas, spots: Points, radius_m: tuple[float, float], colour: Colour = TREE.colour) -> None:
    """A tree at each of `spots` `n,2` with enough clearance, of a radius within `radius_m`."""
    clearance = canvas.clearance()
    for x, y in spots:
        radius = float(canvas.rng.uniform(*radius_m))
        if canvas.at(clearance, x, y) > 0.55 * radius:
            tree(canvas, float(x), float(y), radius, colour)


def scattered(canvas: Canvas, per_hectare: float, clump: float = 0.0) -> Points:
    """Random positions `n,2`; with `clump` above 0 only where the medium and coarse noise exceed it."""
    height_m, width_m = canvas.size_m
    count = int(canvas.rng.poisson(per_hectare * height_m * width_m / 1e4))
    spots = canvas.rng.uniform((0.0, 0.0), (width_m, height_m), (count, 2))
    if not clump:
        return spots
    growth = canvas.mid + canvas.coarse
    return np.asarray(spots[np.array([canvas.at(growth, x, y) for x, y in spots]) > clump])


def in_row(start: Points, end: Points, gap_m: float) -> Points:
    """Positions `n,2` along a straight line, `gap_m` apart."""
    length = float(np.hypot(*(end - start)))
    t = (np.arange(0.5, max(1.0, length / gap_m)) * gap_m / max(length, 1e-6))[:, None]
    return np.asarray(start + np.clip(t, 0.0, 1.0) * (end - start))


def fringe(canvas: Canvas, bed: Layer, width_m: float) -> None:
    """Trees and reeds along a stream, within `width_m` of its `bed` (distance in metres, `H,W`)."""
    spots = scattered(canvas, 260)
    near = np.array([0.0 < canvas.at(bed, x, y) < width_m for x, y in spots], np.bool_)
    trees(canvas, spots[near], (1.5, 3.6), (84, 102, 60))
