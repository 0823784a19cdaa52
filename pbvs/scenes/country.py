"""Scene characters outside towns: a mine in the hills, and farmland."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pbvs.scenes import parts
from pbvs.scenes.brushes import Canvas, Colour, Frame, Material, cut_across, noise, offset

# ---- Bingham: a mine in desert hills


def bingham(canvas: Canvas) -> None:
    """A mine in desert hills: benches, gullies, haul roads, a pond, a yard."""
    rng = canvas.rng
    parts.ground(canvas, replace(parts.SOIL, colour=(172, 148, 118)), parts.DRY_GRASS, 0.0)
    hills = noise(rng, canvas.shape, 110 * canvas.px_per_m, 2) + 0.025 * canvas.mid
    canvas.terrain += np.float32(rng.uniform(9, 16)) * hills
    angle = float(rng.uniform(0, math.pi))
    if rng.random() < 0.65:  # the mine: flat benches of rubble, steep faces of bare rock
        step = float(rng.uniform(5.0, 8.0))
        level = canvas.terrain / step
        face = np.clip((level - np.floor(level) - 0.68) / 0.32, 0.0, 1.0)
        mined = canvas.coarse + 0.15 * canvas.mid > -0.3
        canvas.terrain[mined] = (step * (np.floor(level) + face * face * (3 - 2 * face)))[mined]
        bands = 1.0 + 0.09 * np.sin(canvas.terrain * 1.3 + 2 * canvas.coarse)
        colour = parts.pick(canvas, ((186, 168, 146), (176, 150, 128), (160, 154, 150)))
        canvas.paint(canvas.whole, mined & (face <= 0.05), parts.GRAVEL, tone=bands, colour=colour)
        canvas.paint(canvas.whole, mined & (face > 0.05), parts.ROCK, tone=bands * 0.95)
    # gullies
    depth = np.exp(-((np.abs(noise(rng, canvas.shape, 45 * canvas.px_per_m, 3)) / 0.09) ** 2))
    canvas.terrain -= 1.3 * depth
    canvas.tint(canvas.whole, depth > 0.3, 1.0 - 0.12 * depth)
    parts.shrubs(canvas, rng.uniform(0.05, 0.12), canvas.material != Material.ROCK)
    if rng.random() < 0.6:
        level = canvas.terrain - float(np.quantile(canvas.terrain, rng.uniform(0.08, 0.2)))
        pond = replace(parts.WATER, colour=(96, 140, 138)) if rng.random() < 0.6 else parts.MUD
        parts.water_body(canvas, level * 2.0, 0.0, pond)
    for _ in range(int(rng.integers(1, 3))):
        parts.track(canvas, canvas.across(angle, rng.uniform(-70, 70), 22.0), rng.uniform(7, 12))
        angle += math.pi / 2
    yard = canvas.from_frame(rng.uniform(-60, 60), rng.uniform(-60, 60), 0.0)
    _works(canvas, *yard, angle)


def _works(canvas: Canvas, x: float, y: float, angle: float) -> None:
    """A yard with sheds and tanks."""
    rng = canvas.rng
    yard = canvas.box(x, y, rng.uniform(45, 75), rng.uniform(35, 50), angle, margin_m=12.0)
    if yard is None or not yard.mask().any():
        return
    canvas.paint(yard.window, yard.mask(), parts.GRAVEL, colour=(176, 168, 156))
    level = float(canvas.terrain[yard.window][yard.mask()].mean())
    slope = np.clip(yard.distance() / 12.0, 0.0, 1.0)
    canvas.terrain[yard.window] = level + slope * (canvas.terrain[yard.window] - level)
    for u in (-18.0, 8.0):
        sides = rng.uniform(14, 20), rng.uniform(9, 16)
        shed = parts.Building(
            *offset(x, y, u, 0.0, angle), *sides, angle + math.pi / 2, rng.uniform(6, 11), 0.2
        )
        roof = parts.pick(canvas, ((206, 206, 202), (132, 150, 168), (186, 176, 160)))
        parts.gable_roof(canvas, shed, roof)
    for i in range(int(rng.integers(1, 5))):
        parts.silo(canvas, *offset(x, y, 22.0, -12.0 + 8.0 * i, angle), 3.4, 7.0)
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
    frame = (-reach + shift[0], -reach + shift[1], reach + shift[0], reach + shift[1])
    _split_fields(canvas, frame, angle, 0)
    if rng.random() < 0.5:
        radius = float(rng.uniform(70, 150))
        hub = canvas.from_frame(rng.uniform(-90, 90), rng.uniform(-90, 90), angle)
        parts.pivot(canvas, *hub, radius)
    if rng.random() < 0.35:
        bed = canvas.distance_to(canvas.across(rng.uniform(0, math.pi), rng.uniform(-50, 50), 25.0))
        parts.water_body(canvas, bed, rng.uniform(2.5, 6.0))
        parts.fringe(canvas, bed, 9.0)
    parts.track(canvas, canvas.across(angle, rng.uniform(-80, 80), 1.0), 4.0)
    road_v, turn = float(rng.uniform(-60, 60)), float(rng.choice([0.0, math.pi / 2]))
    road = canvas.across(angle + turn, road_v, 1.5)
    parts.road(canvas, road, rng.uniform(6.5, 9.0))
    parts.traffic(canvas, road, 1.8, 70.0)
    if rng.random() < 0.75:
        v = road_v + float(rng.choice([-1.0, 1.0])) * rng.uniform(34, 42)
        yard = canvas.from_frame(float(rng.uniform(-55, 55)), v, angle + turn)
        _farm(canvas, *yard, angle + turn + float(rng.choice([0.0, math.pi])))


def _split_fields(canvas: Canvas, frame: Frame, angle: float, depth: int) -> None:
    """Splits a rectangle (u0, v0, u1, v1) of the rotated frame into fields, across the longer side first."""
    u0, v0, u1, v1 = frame
    rng = canvas.rng
    longer = max(u1 - u0, v1 - v0)
    if longer > 150 or (longer > 75 and rng.random() < 0.6 and depth < 6):
        for half in cut_across(frame, float(rng.uniform(0.35, 0.65))):
            _split_fields(canvas, half, angle, depth + 1)
        return
    turn = 0.0 if rng.random() < 0.6 else math.pi / 2
    sides = (u1 - u0, v1 - v0) if turn == 0.0 else (v1 - v0, u1 - u0)
    box = canvas.box(*canvas.from_frame((u0 + u1) / 2, (v0 + v1) / 2, angle), *sides, angle + turn)
    if box is not None:
        parts.field(canvas, box, box.mask(float(rng.uniform(0.8, 2.5))), parts.pick(canvas, parts.CROPS))


def _farm(canvas: Canvas, x: float, y: float, angle: float) -> None:
    """A yard with a garden, a house, barns, silos and trees."""
    rng = canvas.rng
    yard = canvas.box(x, y, rng.uniform(50, 66), rng.uniform(38, 48), angle)
    if yard is None:
        return
    canvas.paint(yard.window, yard.mask(), parts.GRAVEL, colour=(182, 166, 138))
    canvas.paint(yard.window, yard.mask() & (yard.u < -8), parts.LAWN)
    parts.gable_roof(canvas, parts.Building(*offset(x, y, -17, -4, angle), 16, 10, angle, 4.0, 0.5))
    roofs: tuple[Colour, ...] = ((150, 60, 48), (212, 212, 208), (160, 168, 174))
    for u, v, length, width, height, pitch in ((6, -9, 24, 12, 6.0, 0.45), (14, 9, 30, 9, 4.0, 0.3)):
        barn = parts.Building(*offset(x, y, u, v, angle), length, width, angle, height, pitch)
        parts.gable_roof(canvas, barn, parts.pick(canvas, roofs))
    for i in range(int(rng.integers(0, 4))):
        parts.silo(canvas, *offset(x, y, 24, -14 + 6.5 * i, angle), 2.6, 10.0)
    parts.car(canvas, *offset(x, y, -4, 6, angle), angle)
    us, vs = rng.uniform(-34, 34, 16), rng.choice([-24, 24], 16)
    spots = np.array([offset(x, y, u, v, angle) for u, v in zip(us, vs, strict=True)])
    parts.trees(canvas, spots + rng.normal(0, 2, spots.shape), (2.5, 5.0))
