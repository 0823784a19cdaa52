"""Scene characters in towns: tall blocks on a grid of streets, and a campus with its suburbs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np

from pbvs.scenes import parts
from pbvs.scenes.brushes import Canvas, Frame, Material, Points, Surface, cut_across, offset

# ---- Manhattan: tall blocks on a grid of streets


def manhattan(canvas: Canvas) -> None:
    """Blocks of tall buildings on a rotated grid of streets, squares, and sometimes a shore."""
    rng = canvas.rng
    parts.ground(canvas, parts.CONCRETE, replace(parts.CONCRETE, colour=(166, 162, 156)), 0.4)
    angle = float(rng.uniform(0.2, 0.7) * rng.choice([-1, 1]))
    pitch = float(rng.uniform(95, 130)), float(rng.uniform(62, 78))
    shift = rng.uniform(0, pitch[0]), rng.uniform(0, pitch[1])
    reach = 0.8 * max(canvas.size_m)
    us = np.arange(-reach - shift[0], reach + pitch[0], pitch[0])
    vs = np.arange(-reach - shift[1], reach + pitch[1], pitch[1])
    streets: list[tuple[Points, float]] = [
        *((np.array([canvas.from_frame(u, v, angle) for v in (-reach, reach)]), 17.0) for u in us),
        *((np.array([canvas.from_frame(u, v, angle) for u in (-reach, reach)]), 10.0) for v in vs),
    ]
    for line, width in streets:
        parts.road(canvas, line, width, kerb_m=3.5)
    for line, width in streets:  # crossings have no kerb
        canvas.paint(canvas.whole, canvas.distance_to(line) < width / 2 - 1.0, parts.ASPHALT)
    for u, v in product(us[:-1], vs[:-1]):
        _block(canvas, (u + 12.0, v + 8.5, u + pitch[0] - 12.0, v + pitch[1] - 8.5), angle)
    for line, width in streets:
        parts.traffic(canvas, line, width / 2 - 1.3, 9.0, taxis=0.1)
        parts.traffic(canvas, line, 1.8, 34.0, taxis=0.4)
        for side in (-1, 1):
            across = np.array([-(line[1] - line[0])[1], (line[1] - line[0])[0]])
            across = across / np.hypot(*across) * side * (width / 2 + 1.8)
            spots = parts.in_row(line[0] + across, line[1] + across, 11.0)
            for x, y in spots[rng.random(len(spots)) < 0.5]:
                paved = canvas.at(canvas.material, x, y) == Material.CONCRETE
                if paved and canvas.at(canvas.height, x, y) < 1.0:
                    parts.tree(canvas, float(x), float(y), float(rng.uniform(1.6, 3.0)))
    if rng.random() < 0.3:
        _shore(canvas, angle)


def _block(canvas: Canvas, frame: Frame, angle: float) -> None:
    """A block between streets: a small park, a car park, or buildings."""
    u0, v0, u1, v1 = frame
    length, width = u1 - u0, v1 - v0
    x, y = canvas.from_frame((u0 + u1) / 2, (v0 + v1) / 2, angle)
    use = canvas.rng.random()
    if use >= 0.16:
        _lots(canvas, frame, angle, float(canvas.rng.uniform(8.0, 15.0)))
        return
    if use >= 0.1:
        parts.car_park(canvas, x, y, length, width, angle)
        return
    box = canvas.box(x, y, length, width, angle)
    if box is None:
        return
    canvas.paint(box.window, box.mask(), parts.LAWN)
    paths = np.minimum(np.abs(box.u * width / length - box.v), np.abs(box.u * width / length + box.v))
    plaza = np.hypot(box.u, box.v) < 7.0
    canvas.paint(box.window, box.mask() & ((paths < 1.3) | plaza), parts.CONCRETE)
    spots = parts.scattered(canvas, 220)
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = spots[:, 0] - x, spots[:, 1] - y
    inside = (np.abs(dx * cos + dy * sin) < length / 2) & (np.abs(dy * cos - dx * sin) < width / 2)
    parts.trees(canvas, spots[inside], (2.2, 5.0))


def _lots(canvas: Canvas, frame: Frame, angle: float, tall_m: float) -> None:
    """Splits a block into lots, each with a building, some with a tower or a yard behind."""
    u0, v0, u1, v1 = frame
    rng = canvas.rng
    longer = max(u1 - u0, v1 - v0)
    if longer > 34 or (longer > 17 and rng.random() < 0.62):
        for half in cut_across(frame, float(rng.uniform(0.38, 0.62))):
            _lots(canvas, half, angle, tall_m)
        return
    if rng.random() < 0.06:
        return
    x, y = canvas.from_frame((u0 + u1) / 2, (v0 + v1) / 2, angle)
    length, width = u1 - u0 - rng.choice([0.2, 1.5]), v1 - v0 - rng.choice([0.2, 3.0])
    height = float(np.clip(tall_m * rng.lognormal(0.0, 0.4), 5.0, 26.0))
    parts.flat_roof(canvas, parts.Building(x, y, length, width, angle, height))
    if longer > 20 and rng.random() < 0.4:
        tower = parts.Building(x, y, length * 0.6, width * 0.6, angle, min(height * 1.4, 32.0))
        parts.flat_roof(canvas, tower)


def _shore(canvas: Canvas, angle: float) -> None:
    """Open water along one side, with a quay and piers."""
    side = float(canvas.rng.choice([-1.0, 1.0]))
    dx, dy = canvas.x - canvas.centre[0], canvas.y - canvas.centre[1]
    u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    out = np.asarray(side * u - canvas.rng.uniform(45, 80), np.float32)
    pier = (np.abs(v % 70.0 - 35.0) < 8.0) & (out < 45.0)
    canvas.paint(canvas.whole, (out > -6.0) & (out <= 0.0), parts.CONCRETE)
    waves = 1.0 + 0.05 * canvas.fine + 0.05 * np.sin(v / 2.0 + 3 * canvas.mid)
    canvas.paint(canvas.whole, (out > 0.0) & ~pier, parts.WATER, tone=waves)
    canvas.paint(canvas.whole, (out > 0.0) & pier, parts.CONCRETE, height=2.0)


# ---- UC Davis: campus, houses, trees


def uc_davis(canvas: Canvas) -> None:
    """A campus (a lattice of cells between two roads) or a suburb (streets of houses), under trees."""
    rng = canvas.rng
    parts.ground(canvas, parts.LAWN, parts.DRY_GRASS, rng.uniform(0.3, 1.0))
    angle = float(rng.normal(0.0, 0.25))
    if rng.integers(5) < 3:
        if rng.random() < 0.4:
            bed = canvas.distance_to(canvas.across(angle + 0.3, rng.uniform(-60, 60), 14.0))
            parts.water_body(canvas, bed, rng.uniform(3.0, 6.0))
            parts.fringe(canvas, bed, 14.0)
        for v in (-62.0, 58.0):
            road = canvas.across(angle, v + rng.uniform(-12, 12), 4.0)
            parts.road(canvas, road, 8.0, kerb_m=1.8)
            parts.traffic(canvas, road, 2.0, 45.0)
        for i, j in product(range(-4, 5), repeat=2):
            u, v = i * 46.0 + rng.uniform(-6, 6), j * 46.0 + rng.uniform(-6, 6)
            _campus_cell(canvas, *canvas.from_frame(u, v, angle), angle)
        for _ in range(6):
            path = canvas.across(angle + rng.uniform(0, math.pi), rng.uniform(-80, 80), 6.0)
            parts.path(canvas, path, 2.6)
    else:
        pitch, reach = float(rng.uniform(66, 76)), 0.8 * max(canvas.size_m)
        vs = np.arange(-reach, reach, pitch) + rng.uniform(0, pitch)
        cross_street = canvas.across(angle + math.pi / 2, rng.uniform(-40, 40), 3.0)
        streets = [canvas.across(angle, float(v), 2.0) for v in vs]
        for street in [*streets, cross_street]:
            parts.road(canvas, street, 8.5, lanes=False, kerb_m=1.6)
        canvas.paint(canvas.whole, canvas.distance_to(cross_street) < 3.6, parts.ASPHALT)
        plot = float(rng.uniform(17, 22))
        for v, row, u in product(vs, (-1.0, 1.0), np.arange(-reach, reach, plot)):
            _house(canvas, *canvas.from_frame(float(u), float(v + row * 18.5), angle), angle, row)
        for street in streets:
            parts.traffic(canvas, street, 3.2, 26.0)
    parts.trees(canvas, parts.scattered(canvas, 110, 0.9), (2.5, 6.0))
    parts.trees(canvas, parts.scattered(canvas, 26), (1.5, 4.0), (96, 110, 64))


def _campus_cell(canvas: Canvas, x: float, y: float, angle: float) -> None:
    """A building with a wing, a car park, a pool with its terrace, tennis courts, or a grove."""
    rng = canvas.rng
    if canvas.at(canvas.clearance(), x, y) < 11.0:
        return
    use = rng.random()
    if use < 0.5:
        height = float(rng.uniform(5, 12))
        main = parts.Building(x, y, rng.uniform(22, 40), rng.uniform(12, 18), angle, height)
        parts.flat_roof(canvas, main)
        wing = rng.uniform(8, 14)
        wx, wy = offset(x, y, float(rng.choice([-1.0, 1.0])) * (main.length_m - wing) / 2, 0.0, angle)
        parts.flat_roof(canvas, replace(main, x=wx, y=wy, length_m=wing, width_m=rng.uniform(22, 34)))
    elif use < 0.68:
        parts.car_park(canvas, x, y, rng.uniform(34, 46), rng.choice([20.0, 28.5, 37.0]), angle)
    elif use >= 0.78:
        spots = np.array([x, y]) + rng.normal(0, 13, (14, 2))
        parts.trees(canvas, spots, (3.0, 6.5))
    elif (ground := canvas.box(x, y, 40, 36, angle)) is not None:
        u, v = np.abs(ground.u), np.abs(ground.v)
        if rng.random() < 0.5:
            canvas.paint(ground.window, ground.mask(), parts.CONCRETE)
            canvas.paint(ground.window, (u < 14) & (v < 8), parts.WATER, colour=(96, 186, 206))
            return
        canvas.paint(ground.window, ground.mask(), parts.ASPHALT, colour=(86, 120, 88))
        for centre in (-10.0, 10.0):
            u = np.abs(ground.u - centre)
            court = (u < 5.5) & (v < 12)
            lines = court & (~((u < 5.1) & (v < 11.6)) | (v < 0.3))
            canvas.paint(ground.window, court, parts.ASPHALT, colour=(72, 104, 150))
            canvas.paint(ground.window, lines, parts.ASPHALT, colour=(222, 222, 222))


def _house(canvas: Canvas, x: float, y: float, angle: float, row: float) -> None:
    """A house on its plot: drive to the street, garden behind, perhaps a pool; `row` is 1 or -1."""
    rng = canvas.rng
    if canvas.at(canvas.clearance(), x, y) < 6.0:
        return
    plot = canvas.box(x, y, 16.0, 25.0, angle)
    if plot is not None:
        free = plot.mask() & ~np.isin(canvas.material[plot.window], parts.PAVED)
        surface: Surface = parts.pick(canvas, (parts.LAWN, parts.LAWN, parts.DRY_GRASS, parts.SOIL))
        canvas.paint(plot.window, free, surface, tone=float(rng.uniform(0.9, 1.1)))
    drive = canvas.box(*offset(x, y, 5, -row * 8, angle), 4.5, 11.0, angle)
    if drive is not None:
        canvas.paint(drive.window, drive.mask(), parts.CONCRETE)
        if rng.random() < 0.6:
            parts.car(canvas, *offset(x, y, 5, -row * 9, angle), angle + math.pi / 2)
    body = parts.Building(
        x, y, rng.uniform(12.5, 15.5), rng.uniform(8.5, 10.5), angle, rng.uniform(3.0, 6.0), 0.42
    )
    colour = parts.pick(canvas, parts.HOUSE_ROOFS)
    parts.gable_roof(canvas, body, colour)
    garage = parts.Building(*offset(x, y, 4, -row * 3, angle), 11.0, 6.5, angle + math.pi / 2, 2.8, 0.42)
    parts.gable_roof(canvas, garage, colour)
    if rng.random() < 0.25:
        pool = canvas.box(*offset(x, y, 0, row * 11, angle), 8.0, 4.2, angle)
        if pool is not None:
            canvas.paint(pool.window, pool.mask(), parts.CONCRETE)
            canvas.paint(pool.window, pool.mask(0.6), parts.WATER, colour=(92, 182, 200))
