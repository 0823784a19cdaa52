"""The characters of made scenes outside towns: a mine in the hills, and farmland."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pbvs.scenes import parts
from pbvs.scenes.brushes import Canvas, Colour, Frame, Material, cut_across, noise

# ---- Bingham: a mine in desert hills


def bingham(canvas: Canvas) -> None:
    """A mine in desert hills: benches, gullies, haul roads, a pond, a yard."""
    rng = canvas.rng
    parts.ground(canvas, replace(parts.SOIL, colour=(172, 148, 118)), parts.DRY_GRASS, 0.0)
    hills = noise(rng, canvas.shape, 110 * canvas.px_per_m, 2) + 0.025 * canvas.mid
    canvas.terrain += np.float32(rng.uniform(9, 16)) * hills
    angle = float(rng.uniform(0, math.pi))
    if rng.random() < 0.65:
        _benches(canvas)
    _gullies(canvas)
    parts.shrubs(canvas, rng.uniform(0.05, 0.12), canvas.material != Material.ROCK)
    if rng.random() < 0.6:
        level = canvas.terrain - float(np.quantile(canvas.terrain, rng.uniform(0.08, 0.2)))
        pond = replace(parts.WATER, colour=(96, 140, 138)) if rng.random() < 0.6 else parts.MUD
        parts.water_body(canvas, level * 2.0, 0.0, pond)
    for _ in range(int(rng.integers(1, 3))):
        parts.track(canvas, canvas.across(angle, rng.uniform(-70, 70), 22.0), rng.uniform(7, 12))
        angle += math.pi / 2
    place = canvas.turned(rng.uniform(-60, 60), rng.uniform(-60, 60), 0.0)
    _works(canvas, *place, angle)


def _benches(canvas: Canvas) -> None:
    """Cuts the terrain into steps: flat benches of rubble, and steep faces of bare rock."""
    step = float(canvas.rng.uniform(5.0, 8.0))
    level = canvas.terrain / step
    part = level - np.floor(level)
    face = np.clip((part - 0.68) / 0.32, 0.0, 1.0)
    mined = canvas.coarse + 0.15 * canvas.mid > -0.3
    canvas.terrain[mined] = (step * (np.floor(level) + face * face * (3 - 2 * face)))[mined]
    bands = 1.0 + 0.09 * np.sin(canvas.terrain * 1.3 + 2 * canvas.coarse)
    colour = parts.pick(canvas, ((186, 168, 146), (176, 150, 128), (160, 154, 150)))
    canvas.paint(canvas.whole, mined & (face <= 0.05), parts.GRAVEL, tone=bands, colour=colour)
    canvas.paint(canvas.whole, mined & (face > 0.05), parts.ROCK, tone=bands * 0.95)


def _gullies(canvas: Canvas) -> None:
    ridged = np.abs(noise(canvas.rng, canvas.shape, 45 * canvas.px_per_m, 3))
    depth = np.exp(-((ridged / 0.09) ** 2))
    canvas.terrain -= 1.3 * depth
    canvas.tint(canvas.whole, depth > 0.3, 1.0 - 0.12 * depth)


def _works(canvas: Canvas, x: float, y: float, angle: float) -> None:
    """A yard with sheds and tanks."""
    rng = canvas.rng
    yard = canvas.box(x, y, rng.uniform(45, 75), rng.uniform(35, 50), angle, margin_m=12.0)
    if yard is None or not yard.cover.any():
        return
    canvas.paint(yard.window, yard.cover, parts.GRAVEL, colour=(176, 168, 156))
    level = float(canvas.terrain[yard.window][yard.cover].mean())
    banks = np.clip(yard.beyond() / 12.0, 0.0, 1.0)
    canvas.terrain[yard.window] = level + banks * (canvas.terrain[yard.window] - level)
    for u in (-18.0, 8.0):
        place = x + u * math.cos(angle), y + u * math.sin(angle)
        shed = parts.Building(
            *place, rng.uniform(14, 20), rng.uniform(9, 16), angle + math.pi / 2, rng.uniform(6, 11), 0.2
        )
        parts.gable_roof(
            canvas, shed, parts.pick(canvas, ((206, 206, 202), (132, 150, 168), (186, 176, 160)))
        )
    for i in range(int(rng.integers(1, 5))):
        u, v = 22.0, -12.0 + 8.0 * i
        cos, sin = math.cos(angle), math.sin(angle)
        parts.silo(canvas, x + u * cos - v * sin, y + u * sin + v * cos, 3.4, 7.0)
    for _ in range(5):
        du, dv = rng.uniform(-15, 15, 2)
        parts.car(canvas, x + du, y + dv, float(rng.uniform(0, math.pi)))


# ---- Centerfield: farmland


def centerfield(canvas: Canvas) -> None:
    """Farmland: fields, a pivot, a stream, a road and a farm."""
    rng = canvas.rng
    parts.ground(canvas, parts.DRY_GRASS, parts.SOIL, rng.uniform(0.3, 1.2))
    angle = float(rng.normal(0.0, 0.12))
    reach = 0.75 * max(canvas.size_m)
    shift = rng.uniform(-40, 40, 2)
    _split_fields(
        canvas, (-reach + shift[0], -reach + shift[1], reach + shift[0], reach + shift[1]), angle, 0
    )
    if rng.random() < 0.5:
        radius = float(rng.uniform(70, 150))
        hub = canvas.turned(rng.uniform(-90, 90), rng.uniform(-90, 90), angle)
        parts.pivot(canvas, *hub, radius)
    if rng.random() < 0.35:
        bed = canvas.distance_to(canvas.across(rng.uniform(0, math.pi), rng.uniform(-50, 50), 25.0))
        parts.water_body(canvas, bed, rng.uniform(2.5, 6.0))
        parts.fringe(canvas, bed, 9.0)
    parts.track(canvas, canvas.across(angle, rng.uniform(-80, 80), 1.0), 4.0)
    offset, turn = float(rng.uniform(-60, 60)), float(rng.choice([0.0, math.pi / 2]))
    way = canvas.across(angle + turn, offset, 1.5)
    parts.road(canvas, way, rng.uniform(6.5, 9.0))
    parts.traffic(canvas, way, 1.8, 70.0)
    if rng.random() < 0.75:
        beside = offset + float(rng.choice([-1.0, 1.0])) * rng.uniform(34, 42)
        place = canvas.turned(float(rng.uniform(-55, 55)), beside, angle + turn)
        _farm(canvas, *place, angle + turn + float(rng.choice([0.0, math.pi])))


def _split_fields(canvas: Canvas, frame: Frame, angle: float, depth: int) -> None:
    """Parts a rectangle (u0, v0, u1, v1) of the turned frame into fields, the longer side first."""
    u0, v0, u1, v1 = frame
    rng = canvas.rng
    longer = max(u1 - u0, v1 - v0)
    if longer > 150 or (longer > 75 and rng.random() < 0.6 and depth < 6):
        cut = float(rng.uniform(0.35, 0.65))
        for half in cut_across(frame, cut):
            _split_fields(canvas, half, angle, depth + 1)
        return
    turn = 0.0 if rng.random() < 0.6 else math.pi / 2
    sides = (u1 - u0, v1 - v0) if turn == 0.0 else (v1 - v0, u1 - u0)
    box = canvas.box(*canvas.turned((u0 + u1) / 2, (v0 + v1) / 2, angle), *sides, angle + turn)
    if box is not None:
        parts.field(canvas, box, box.within(float(rng.uniform(0.8, 2.5))), parts.pick(canvas, parts.CROPS))


def _farm(canvas: Canvas, x: float, y: float, angle: float) -> None:
    rng = canvas.rng
    yard = canvas.box(x, y, rng.uniform(50, 66), rng.uniform(38, 48), angle)
    if yard is None:
        return
    canvas.paint(yard.window, yard.cover, parts.GRAVEL, colour=(182, 166, 138))
    garden = yard.cover & (yard.u < -8)
    canvas.paint(yard.window, garden, parts.LAWN)
    cos, sin = math.cos(angle), math.sin(angle)

    def place(u: float, v: float) -> tuple[float, float]:
        return x + u * cos - v * sin, y + u * sin + v * cos

    parts.gable_roof(canvas, parts.Building(*place(-17, -4), 16, 10, angle, 4.0, 0.5))
    roofs: tuple[Colour, ...] = ((150, 60, 48), (212, 212, 208), (160, 168, 174))
    barn = parts.Building(*place(6, -9), 24, 12, angle, 6.0, 0.45)
    parts.gable_roof(canvas, barn, parts.pick(canvas, roofs))
    parts.gable_roof(canvas, parts.Building(*place(14, 9), 30, 9, angle, 4.0, 0.3), parts.pick(canvas, roofs))
    for i in range(int(rng.integers(0, 4))):
        parts.silo(canvas, *place(24, -14 + 6.5 * i), 2.6, 10.0)
    parts.car(canvas, *place(-4, 6), angle)
    spots = np.array(
        [place(u, v) for u, v in zip(rng.uniform(-34, 34, 16), rng.choice([-24, 24], 16), strict=True)]
    )
    parts.trees(canvas, spots + rng.normal(0, 2, spots.shape), (2.5, 5.0))
