"""What stands in a made scene: ground, fields, water, roads, roofs, cars and trees, a function each.

All places and lengths are metres on the canvas; the canvas' own generator makes every choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pbvs.scenes.brushes import Box, Canvas, Colour, Cover, Layer, Look, Material, Points

SOIL = Look(Material.SOIL, (158, 132, 104), 0.05, 0.07, 0.05, 0.15, 0.55)
PALE_SOIL = Look(Material.SOIL, (190, 170, 140), 0.04, 0.06, 0.0, 0.05, 0.35)
ROCK = Look(Material.ROCK, (150, 140, 130), 0.09, 0.08, 0.0, 0.02, 0.9)
GRAVEL = Look(Material.GRAVEL, (184, 172, 154), 0.05, 0.04, 0.0, 0.02, 0.6)
LAWN = Look(Material.GRASS, (108, 126, 84), 0.04, 0.06, 0.75, 0.4, 0.35)
DRY_GRASS = Look(Material.GRASS, (164, 153, 118), 0.06, 0.08, 0.3, 0.1, 0.45)
SHRUB = Look(Material.SHRUB, (104, 106, 78), 0.1, 0.08, 0.45, 0.15, 0.75)
WATER = Look(Material.WATER, (58, 84, 92), 0.02, 0.04, 0.0, 1.0, 0.1)
MUD = Look(Material.MUD, (168, 158, 140), 0.02, 0.06, 0.0, 0.8, 0.15)
ASPHALT = Look(Material.ASPHALT, (112, 112, 114), 0.035, 0.05, 0.0, 0.0, 0.2)
CONCRETE = Look(Material.CONCRETE, (180, 176, 168), 0.03, 0.04, 0.0, 0.0, 0.35)
FLAT_ROOF = Look(Material.ROOF, (168, 164, 158), 0.03, 0.03, 0.0, 0.0, 0.4)
SHEET_ROOF = Look(Material.METAL_ROOF, (206, 210, 212), 0.02, 0.02, 0.0, 0.0, 0.3)
CAR = Look(Material.CAR, (200, 200, 200), 0.02, 0.0, 0.0, 0.0, 0.5)
TREE = Look(Material.TREE, (72, 92, 54), 0.14, 0.08, 0.95, 0.5, 0.9)

CROPS = (
    Look(Material.CROP, (98, 124, 76), 0.04, 0.045, 0.95, 0.5, 0.5),  # alfalfa
    Look(Material.CROP, (82, 106, 68), 0.06, 0.04, 0.85, 0.45, 0.8),  # maize
    Look(Material.CROP, (132, 142, 96), 0.04, 0.06, 0.6, 0.35, 0.35),  # young grain
    Look(Material.CROP, (190, 174, 130), 0.04, 0.05, 0.2, 0.1, 0.12),  # ripe grain
    Look(Material.SOIL, (172, 146, 116), 0.05, 0.06, 0.02, 0.1, 0.4),  # harrowed
    Look(Material.SOIL, (122, 98, 78), 0.07, 0.07, 0.02, 0.5, 0.78),  # ploughed, moist
    Look(Material.GRASS, (152, 147, 112), 0.06, 0.12, 0.35, 0.15, 0.45),  # fallow
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
    """Where a building stands and how it is roofed; `pitch` is a gable's rise over run, 0 for a flat roof."""

    x: float
    y: float
    length_m: float
    width_m: float
    angle: float
    height_m: float
    pitch: float = 0.0


def pick(canvas: Canvas, choices: tuple, weights: tuple[float, ...] | None = None):  # type: ignore[no-untyped-def]
    """One of `choices`, by the canvas' generator."""
    share = None if weights is None else np.asarray(weights) / sum(weights)
    return choices[int(canvas.rng.choice(len(choices), p=share))]


def _varied(canvas: Canvas, colour: Colour, by: float = 10.0) -> Colour:
    """`colour` a little lighter or darker, and a little warmer or cooler."""
    level, warmth = canvas.rng.normal(0.0, by), canvas.rng.normal(0.0, by / 3)
    red, green, blue = (float(np.clip(value + level, 12, 246)) for value in colour)
    return red + warmth, green, blue - warmth


# ---- ground


def ground(canvas: Canvas, look: Look, other: Look, relief_m: float) -> None:
    """Covers the canvas with two surfaces that change from one to the other, over hills of `relief_m`."""
    everywhere = np.ones(canvas.shape, np.bool_)
    canvas.terrain += relief_m * canvas.coarse + 0.04 * relief_m * canvas.mid
    canvas.paint(canvas.whole, everywhere, look)
    patches = canvas.mid + 0.8 * canvas.coarse > 0.55
    canvas.paint(canvas.whole, patches, other)
    soft: Layer = np.asarray(cv2.GaussianBlur(canvas.albedo, (0, 0), 1.2 * canvas.px_per_m))
    canvas.albedo[:] = soft * (1.0 + 0.05 * canvas.fine + 0.05 * canvas.mid)[:, :, None]


def shrubs(canvas: Canvas, share: float, where: Cover | None = None) -> None:
    """Scatters bushes over about `share` of the free ground, denser in some places than in others."""
    dots = cv2.GaussianBlur(
        canvas.rng.standard_normal(canvas.shape, np.float32), (0, 0), 0.5 * canvas.px_per_m
    )
    dots = dots / np.float32(max(float(dots.std()), 1e-6)) + 0.5 * canvas.mid
    cover = (dots > np.quantile(dots, 1.0 - share)) & (canvas.room() > 1.0)
    if where is not None:
        cover &= where
    canvas.paint(canvas.whole, cover, SHRUB, height=1.2)


def water_body(canvas: Canvas, distance: Layer, reach: Layer | float, look: Look = WATER) -> None:
    """Fills with water what lies nearer than `reach` metres by `distance`, with a bank and darker depths."""
    edge = distance - reach + 0.6 * canvas.mid
    bank = (edge < 3.0) & (edge >= 0.0)
    canvas.paint(canvas.whole, bank, replace(PALE_SOIL, wetness=0.5), tone=0.86)
    inside = edge < 0.0
    depth = np.clip(1.0 - 0.03 * np.clip(-edge, 0.0, 10.0), 0.6, 1.0)
    canvas.paint(canvas.whole, inside, look, tone=depth)
    canvas.terrain[inside] = cv2.GaussianBlur(canvas.terrain, (0, 0), 12.0)[inside]


# ---- fields


def field(canvas: Canvas, box: Box, cover: Cover, crop: Look) -> None:
    """A sown or ploughed field: rows along its length, tramlines, and patches of better and worse growth."""
    rng = canvas.rng
    spacing = float(rng.choice([1.8, 2.6, 4.0]))
    bend = 0.15 * canvas.coarse[box.window]
    rows = np.sin(2 * math.pi / spacing * (box.v + bend))
    tone: Layer = 1.0 + 0.055 * rows + 0.05 * canvas.coarse[box.window]
    swath = float(rng.uniform(9.0, 16.0))
    tone = tone * (1.0 + float(rng.choice([0.0, 0.04])) * np.sign(np.sin(math.pi / swath * box.v)))
    height = 1.8 if crop.roughness == CROPS[1].roughness else 0.3 * crop.vegetation
    canvas.paint(box.window, cover, crop, tone=tone, colour=_varied(canvas, crop.colour, 7.0), height=height)
    tracks = cover & (np.abs((box.v + swath / 2) % swath - swath / 2) < 0.35)
    canvas.tint(box.window, tracks, 0.88)
    weak = np.clip(canvas.mid[box.window] + canvas.coarse[box.window] - 1.4, 0.0, 1.0) * cover
    _thin(canvas, box, weak * crop.vegetation)


def _thin(canvas: Canvas, box: Box, share: Layer) -> None:
    """Lets the soil show through a crop by `share` in [0,1]."""
    soil = np.array(SOIL.colour, np.float32) / 255
    canvas.albedo[box.window] += (0.7 * share)[:, :, None] * (soil - canvas.albedo[box.window])
    canvas.vegetation[box.window] *= 1.0 - 0.6 * share


def pivot(canvas: Canvas, x: float, y: float, radius_m: float) -> None:
    """A field watered by an arm that turns about (x, y): a disc with rings, a sector another crop."""
    window = canvas.around(x, y, radius_m)
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
    tracks = disc & (np.abs(r % 27.0 - 13.0) < 0.5)
    canvas.paint(window, tracks, SOIL, tone=0.92)
    canvas.tint(window, disc & (r > radius_m - 2.0), 1.08)


# ---- roads


def road(canvas: Canvas, points: Points, width_m: float, *, lanes: bool = True, kerb_m: float = 0.0) -> None:
    """A paved road with worn lanes, a dashed centre line, edge lines and, if asked, pavements."""
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
    if lanes:
        _lane_lines(canvas, points, distance, half)


def _lane_lines(canvas: Canvas, points: Points, distance: Layer, half_m: float) -> None:
    line_m = max(0.3, 0.55 / canvas.px_per_m)
    if half_m > 4.0:
        edges = np.abs(distance - (half_m - 0.6)) < line_m / 2
        canvas.paint(canvas.whole, edges, ASPHALT, colour=(196, 196, 190))
    dashes = np.zeros(canvas.shape, np.uint8)
    steps = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    for start in np.arange(0.0, float(steps[-1]) - 3.0, 9.0):
        at = np.array([start, start + 3.5])
        ends = np.stack([np.interp(at, steps, points[:, 0]), np.interp(at, steps, points[:, 1])], axis=1)
        canvas.draw_line(dashes, ends, 1)
    canvas.paint(canvas.whole, (dashes > 0) & (distance < half_m), ASPHALT, colour=(214, 200, 128))


def track(canvas: Canvas, points: Points, width_m: float) -> None:
    """An unpaved way: pale, with two darker wheel ruts."""
    distance = canvas.distance_to(points) + 0.25 * canvas.mid
    half = width_m / 2
    ruts = 1.0 - 0.1 * np.exp(-(((distance - half * 0.5) / 0.5) ** 2))
    canvas.paint(canvas.whole, distance < half, GRAVEL, tone=ruts, colour=_varied(canvas, (196, 178, 150)))


def path(canvas: Canvas, points: Points, width_m: float) -> None:
    """A concrete footpath over open ground."""
    open_ground = (canvas.material == Material.GRASS) | (canvas.material == Material.SOIL)
    canvas.paint(canvas.whole, canvas.line_cover(points, width_m) & open_ground, CONCRETE)


# ---- buildings and what stands about them


def flat_roof(canvas: Canvas, at: Building, colour: Colour | None = None) -> None:
    """A building with a flat roof: parapet, and machines on it."""
    box = canvas.box(at.x, at.y, at.length_m, at.width_m, at.angle)
    if box is None:
        return
    metal = canvas.rng.random() < 0.25
    look = SHEET_ROOF if metal else FLAT_ROOF
    roof = _varied(canvas, colour or (look.colour if metal else pick(canvas, FLAT_ROOFS)))
    # pale roofs are gravel, rough to the radar; dark ones are smooth felt
    look = look if metal else replace(look, roughness=(sum(roof) / 3 - 70.0) / 180.0)
    seams = 1.0 + (0.05 * np.sin(2 * math.pi * box.u / 1.8) if metal else 0.0)
    canvas.paint(box.window, box.cover, look, tone=seams, colour=roof, height=at.height_m)
    rim = box.cover & ~box.within(0.6)
    canvas.tint(box.window, rim, 1.12)
    canvas.height[box.window][rim] += 0.7
    for _ in range(int(canvas.rng.poisson(at.length_m * at.width_m / 130.0))):
        _roof_machine(canvas, at)


def _roof_machine(canvas: Canvas, at: Building) -> None:
    rng = canvas.rng
    u, v = rng.uniform(-0.38, 0.38, 2) * (at.length_m, at.width_m)
    cos, sin = math.cos(at.angle), math.sin(at.angle)
    sides = rng.uniform(1.5, 4.0, 2)
    box = canvas.box(at.x + u * cos - v * sin, at.y + u * sin + v * cos, sides[0], sides[1], at.angle)
    if box is not None:
        grey = float(rng.uniform(120, 215))
        top = at.height_m + rng.uniform(1.0, 2.5)
        canvas.paint(box.window, box.cover, SHEET_ROOF, colour=(grey, grey, grey), height=top)


def gable_roof(canvas: Canvas, at: Building, colour: Colour | None = None) -> None:
    """A house or barn whose roof falls to both sides of a ridge along its length."""
    box = canvas.box(at.x, at.y, at.length_m, at.width_m, at.angle)
    if box is None:
        return
    rise = (at.width_m / 2 - np.abs(box.v)) * at.pitch
    hip = (at.length_m / 2 - np.abs(box.u)) * at.pitch * 1.6
    tiles = 1.0 + 0.03 * np.sin(2 * math.pi * box.v / 0.9)
    roof = _varied(canvas, colour or pick(canvas, HOUSE_ROOFS), 8.0)
    canvas.paint(
        box.window, box.cover, FLAT_ROOF, tone=tiles, colour=roof, height=at.height_m + np.minimum(rise, hip)
    )
    canvas.tint(box.window, box.cover & (np.abs(box.v) < 0.3), 1.12)


def silo(canvas: Canvas, x: float, y: float, radius_m: float, height_m: float) -> None:
    """A round tank or silo with a domed metal roof."""
    window = canvas.around(x, y, radius_m)
    if window is None:
        return
    r = np.hypot(canvas.x[window] - np.float32(x), canvas.y[window] - np.float32(y)) / radius_m
    dome = height_m + 0.5 * radius_m * (1.0 - r)
    canvas.paint(window, r < 1.0, SHEET_ROOF, tone=1.0 - 0.12 * (r > 0.88), height=dome)


def car(canvas: Canvas, x: float, y: float, angle: float, colour: Colour | None = None) -> None:
    """A car: body, and darker glass before and behind the roof."""
    length = float(canvas.rng.uniform(4.0, 5.2))
    box = canvas.box(x, y, length, 1.9, angle)
    if box is None:
        return
    paint = _varied(canvas, colour or pick(canvas, CAR_COLOURS, (5, 5, 3, 3, 1, 1, 2)), 6.0)
    canvas.paint(box.window, box.cover, CAR, colour=paint, height=1.5)
    glass = box.cover & (np.abs(np.abs(box.u + 0.2) - 1.1) < 0.4)
    canvas.tint(box.window, glass, 0.5)


def car_park(canvas: Canvas, x: float, y: float, length_m: float, width_m: float, angle: float) -> None:
    """Asphalt with marked stalls in rows, most of them taken."""
    lot = canvas.box(x, y, length_m, width_m, angle)
    if lot is None:
        return
    canvas.paint(lot.window, lot.cover, ASPHALT, colour=_varied(canvas, ASPHALT.colour, 12.0))
    cos, sin = math.cos(angle), math.sin(angle)
    fullness = canvas.rng.uniform(0.3, 0.85)
    for v in np.arange(-width_m / 2 + 3.2, width_m / 2 - 2.5, 8.5):
        near = (np.abs(lot.v - v) < 2.6) & lot.within(1.0)
        lines = near & (np.abs((lot.u + 1.4) % 2.8 - 1.4) < max(0.12, 0.3 / canvas.px_per_m))
        canvas.tint(lot.window, lines, 1.35)
        for u in np.arange(-length_m / 2 + 2.8, length_m / 2 - 2.0, 2.8):
            if canvas.rng.random() < fullness:
                car(canvas, x + u * cos - v * sin, y + u * sin + v * cos, angle + math.pi / 2)


def traffic(canvas: Canvas, points: Points, offset_m: float, gap_m: float, taxis: float = 0.0) -> None:
    """Cars along a road, on both sides of its middle, about `gap_m` apart."""
    rng = canvas.rng
    steps = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
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
    """One crown: a dome with a broken outline; the taller crown hides the lower."""
    window = canvas.around(x, y, radius_m * 1.3)
    if window is None:
        return
    dx, dy = canvas.x[window] - np.float32(x), canvas.y[window] - np.float32(y)
    lobes = 1.0 + 0.16 * np.sin(5 * np.arctan2(dy, dx) + x) + 0.1 * canvas.fine[window]
    r = np.hypot(dx, dy) / (radius_m * lobes)
    dome = np.sqrt(np.clip(1.0 - r * r, 0.0, 1.0))
    height = radius_m * 1.4 * (0.35 + 0.65 * dome) + 0.35 * canvas.fine[window]
    cover = (r < 1.0) & (height > canvas.height[window])
    tone = 0.8 + 0.3 * dome
    canvas.paint(window, cover, TREE, tone=tone, colour=_varied(canvas, colour, 9.0), height=height)


def trees(canvas: Canvas, x: Points, radius_m: tuple[float, float], colour: Colour = TREE.colour) -> None:
    """A tree at each place `n,2` that has room for it."""
    room = canvas.room()
    for place in x:
        radius = float(canvas.rng.uniform(*radius_m))
        if canvas.at(room, place[0], place[1]) > 0.55 * radius:
            tree(canvas, float(place[0]), float(place[1]), radius, colour)


def scattered(canvas: Canvas, per_hectare: float, clump: float = 0.0) -> Points:
    """Random places `n,2`; with `clump` above 0 only where the middle noise is high (denser the higher)."""
    height_m, width_m = canvas.size_m
    count = int(canvas.rng.poisson(per_hectare * height_m * width_m / 1e4))
    places = canvas.rng.uniform((0.0, 0.0), (width_m, height_m), (count, 2))
    if not clump:
        return places
    growth = canvas.mid + canvas.coarse
    level = np.array([canvas.at(growth, x, y) for x, y in places])
    return np.asarray(places[level > clump])


def in_row(start: Points, end: Points, gap_m: float) -> Points:
    """Places `n,2` along a straight line."""
    length = float(np.hypot(*(end - start)))
    t = (np.arange(0.5, max(1.0, length / gap_m)) * gap_m / max(length, 1e-6))[:, None]
    return np.asarray(start + np.clip(t, 0.0, 1.0) * (end - start))


def fringe(canvas: Canvas, bed: Layer, width_m: float) -> None:
    """Trees and reeds along a stream."""
    places = scattered(canvas, 260)
    near = np.array([0.0 < canvas.at(bed, x, y) < width_m for x, y in places], np.bool_)
    trees(canvas, places[near], (1.5, 3.6), (84, 102, 60))
