"""The characters of made scenes in towns: tall blocks on a grid, and a campus with its suburbs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pbvs.scenes import parts
from pbvs.scenes.brushes import Canvas, Frame, Look, Material, Points, cut_across

# ---- Manhattan: tall blocks on a grid of streets


def manhattan(canvas: Canvas) -> None:
    """Blocks of tall buildings on a turned grid of streets, squares, and sometimes a shore."""
    rng = canvas.rng
    parts.ground(canvas, parts.CONCRETE, replace(parts.CONCRETE, colour=(166, 162, 156)), 0.4)
    angle = float(rng.uniform(0.2, 0.7) * rng.choice([-1, 1]))
    pitch = float(rng.uniform(95, 130)), float(rng.uniform(62, 78))
    shift = rng.uniform(0, pitch[0]), rng.uniform(0, pitch[1])
    reach = 0.8 * max(canvas.size_m)
    us = np.arange(-reach - shift[0], reach + pitch[0], pitch[0])
    vs = np.arange(-reach - shift[1], reach + pitch[1], pitch[1])
    streets: list[tuple[Points, float]] = []
    for u in us:
        streets.append((np.array([canvas.turned(u, -reach, angle), canvas.turned(u, reach, angle)]), 17.0))
    for v in vs:
        streets.append((np.array([canvas.turned(-reach, v, angle), canvas.turned(reach, v, angle)]), 10.0))
    for line, width in streets:
        parts.road(canvas, line, width, kerb_m=3.5)
    for line, width in streets:  # crossings have no kerb
        canvas.paint(canvas.whole, canvas.distance_to(line) < width / 2 - 1.0, parts.ASPHALT)
    for u in us[:-1]:
        for v in vs[:-1]:
            inner = (u + 12.0, v + 8.5, u + pitch[0] - 12.0, v + pitch[1] - 8.5)
            _block(canvas, inner, angle)
    for line, width in streets:
        parts.traffic(canvas, line, width / 2 - 1.3, 9.0, taxis=0.1)
        parts.traffic(canvas, line, 1.8, 34.0, taxis=0.4)
        for side in (-1, 1):
            across = np.array([-(line[1] - line[0])[1], (line[1] - line[0])[0]])
            across = across / np.hypot(*across) * side * (width / 2 + 1.8)
            spots = parts.in_row(line[0] + across, line[1] + across, 11.0)
            _street_trees(canvas, spots[rng.random(len(spots)) < 0.5])
    if rng.random() < 0.3:
        _shore(canvas, angle)


def _street_trees(canvas: Canvas, places: Points) -> None:
    for x, y in places:
        if canvas.at(canvas.material, x, y) == Material.CONCRETE and canvas.at(canvas.height, x, y) < 1.0:
            parts.tree(canvas, float(x), float(y), float(canvas.rng.uniform(1.6, 3.0)))


def _block(canvas: Canvas, frame: Frame, angle: float) -> None:
    u0, v0, u1, v1 = frame
    x, y = canvas.turned((u0 + u1) / 2, (v0 + v1) / 2, angle)
    use = canvas.rng.random()
    if use < 0.1:
        _square(canvas, x, y, u1 - u0, v1 - v0, angle)
    elif use < 0.16:
        parts.car_park(canvas, x, y, u1 - u0, v1 - v0, angle)
    else:
        tall = float(canvas.rng.uniform(8.0, 15.0))
        _lots(canvas, frame, angle, tall)


def _square(canvas: Canvas, x: float, y: float, length_m: float, width_m: float, angle: float) -> None:
    """A small park: lawn, paths across, trees."""
    box = canvas.box(x, y, length_m, width_m, angle)
    if box is None:
        return
    canvas.paint(box.window, box.cover, parts.LAWN)
    ways = np.minimum(np.abs(box.u * width_m / length_m - box.v), np.abs(box.u * width_m / length_m + box.v))
    ring = np.hypot(box.u, box.v)
    canvas.paint(box.window, box.cover & ((ways < 1.3) | (ring < 7.0)), parts.CONCRETE)
    places = parts.scattered(canvas, 220)
    cos, sin = math.cos(angle), math.sin(angle)
    du, dv = places[:, 0] - x, places[:, 1] - y
    inside = (np.abs(du * cos + dv * sin) < length_m / 2) & (np.abs(dv * cos - du * sin) < width_m / 2)
    parts.trees(canvas, places[inside], (2.2, 5.0))


def _lots(canvas: Canvas, frame: Frame, angle: float, tall_m: float) -> None:
    """Parts a block into lots, each with a building, some with a tower or a yard behind."""
    u0, v0, u1, v1 = frame
    rng = canvas.rng
    longer = max(u1 - u0, v1 - v0)
    if longer > 34 or (longer > 17 and rng.random() < 0.62):
        cut = float(rng.uniform(0.38, 0.62))
        for half in cut_across(frame, cut):
            _lots(canvas, half, angle, tall_m)
        return
    if rng.random() < 0.06:
        return
    x, y = canvas.turned((u0 + u1) / 2, (v0 + v1) / 2, angle)
    length, width = u1 - u0 - rng.choice([0.2, 1.5]), v1 - v0 - rng.choice([0.2, 3.0])
    height = float(np.clip(tall_m * rng.lognormal(0.0, 0.4), 5.0, 26.0))
    parts.flat_roof(canvas, parts.Building(x, y, length, width, angle, height))
    if longer > 20 and rng.random() < 0.4:
        tower = parts.Building(x, y, length * 0.6, width * 0.6, angle, min(height * 1.4, 32.0))
        parts.flat_roof(canvas, tower)


def _shore(canvas: Canvas, angle: float) -> None:
    """Open water along one side, with a quay and piers."""
    middle = canvas.middle
    side = float(canvas.rng.choice([-1.0, 1.0]))
    u = (canvas.x - middle[0]) * math.cos(angle) + (canvas.y - middle[1]) * math.sin(angle)
    out = np.asarray(side * u - canvas.rng.uniform(45, 80), np.float32)
    v = (canvas.y - middle[1]) * math.cos(angle) - (canvas.x - middle[0]) * math.sin(angle)
    pier = (np.abs(v % 70.0 - 35.0) < 8.0) & (out < 45.0)
    canvas.paint(canvas.whole, (out > -6.0) & (out <= 0.0), parts.CONCRETE)
    waves = 1.0 + 0.05 * canvas.fine + 0.05 * np.sin(v / 2.0 + 3 * canvas.mid)
    canvas.paint(canvas.whole, (out > 0.0) & ~pier, parts.WATER, tone=waves)
    canvas.paint(canvas.whole, (out > 0.0) & pier, parts.CONCRETE, height=2.0)


# ---- UC Davis: campus, houses, trees


def uc_davis(canvas: Canvas) -> None:
    """A campus or a suburb under trees."""
    rng = canvas.rng
    parts.ground(canvas, parts.LAWN, parts.DRY_GRASS, rng.uniform(0.3, 1.0))
    angle = float(rng.normal(0.0, 0.25))
    if rng.integers(5) < 3:
        _campus(canvas, angle)
    else:
        _suburb(canvas, angle)
    parts.trees(canvas, parts.scattered(canvas, 110, 0.9), (2.5, 6.0))
    parts.trees(canvas, parts.scattered(canvas, 26), (1.5, 4.0), (96, 110, 64))


def _campus(canvas: Canvas, angle: float) -> None:
    rng = canvas.rng
    if rng.random() < 0.4:
        bed = canvas.distance_to(canvas.across(angle + 0.3, rng.uniform(-60, 60), 14.0))
        parts.water_body(canvas, bed, rng.uniform(3.0, 6.0))
        parts.fringe(canvas, bed, 14.0)
    for offset in (-62.0, 58.0):
        way = canvas.across(angle, offset + rng.uniform(-12, 12), 4.0)
        parts.road(canvas, way, 8.0, kerb_m=1.8)
        parts.traffic(canvas, way, 2.0, 45.0)
    cell = 46.0
    for i in range(-4, 5):
        for j in range(-4, 5):
            u, v = i * cell + rng.uniform(-6, 6), j * cell + rng.uniform(-6, 6)
            _campus_cell(canvas, *canvas.turned(u, v, angle), angle)
    for _ in range(6):
        parts.path(canvas, canvas.across(angle + rng.uniform(0, math.pi), rng.uniform(-80, 80), 6.0), 2.6)


def _campus_cell(canvas: Canvas, x: float, y: float, angle: float) -> None:
    rng = canvas.rng
    if canvas.at(canvas.room(), x, y) < 11.0:
        return
    use = rng.random()
    if use < 0.5:
        height = float(rng.uniform(5, 12))
        main = parts.Building(x, y, rng.uniform(22, 40), rng.uniform(12, 18), angle, height)
        parts.flat_roof(canvas, main)
        wing = rng.uniform(8, 14)
        side = float(rng.choice([-1.0, 1.0])) * (main.length_m - wing) / 2
        wx, wy = x + side * math.cos(angle), y + side * math.sin(angle)
        parts.flat_roof(canvas, replace(main, x=wx, y=wy, length_m=wing, width_m=rng.uniform(22, 34)))
    elif use < 0.68:
        parts.car_park(canvas, x, y, rng.uniform(34, 46), rng.choice([20.0, 28.5, 37.0]), angle)
    elif use < 0.78:
        _courts(canvas, x, y, angle)
    else:
        spots = np.array([x, y]) + rng.normal(0, 13, (14, 2))
        parts.trees(canvas, spots, (3.0, 6.5))


def _courts(canvas: Canvas, x: float, y: float, angle: float) -> None:
    """Tennis courts or a swimming pool with its terrace."""
    rng = canvas.rng
    ground = canvas.box(x, y, 40, 36, angle)
    if ground is None:
        return
    if rng.random() < 0.5:
        canvas.paint(ground.window, ground.cover, parts.CONCRETE)
        pool = (np.abs(ground.u) < 14) & (np.abs(ground.v) < 8)
        canvas.paint(ground.window, pool, parts.WATER, colour=(96, 186, 206))
        return
    canvas.paint(ground.window, ground.cover, parts.ASPHALT, colour=(86, 120, 88))
    for u in (-10.0, 10.0):
        court = (np.abs(ground.u - u) < 5.5) & (np.abs(ground.v) < 12)
        line = court & ~((np.abs(ground.u - u) < 5.1) & (np.abs(ground.v) < 11.6))
        canvas.paint(ground.window, court, parts.ASPHALT, colour=(72, 104, 150))
        canvas.paint(
            ground.window, line | (court & (np.abs(ground.v) < 0.3)), parts.ASPHALT, colour=(222, 222, 222)
        )


def _suburb(canvas: Canvas, angle: float) -> None:
    rng = canvas.rng
    pitch = float(rng.uniform(66, 76))
    reach = 0.8 * max(canvas.size_m)
    offsets = np.arange(-reach, reach, pitch) + rng.uniform(0, pitch)
    side = canvas.across(angle + math.pi / 2, rng.uniform(-40, 40), 3.0)
    ways = [canvas.across(angle, float(offset), 2.0) for offset in offsets]
    for way in [*ways, side]:
        parts.road(canvas, way, 8.5, lanes=False, kerb_m=1.6)
    canvas.paint(canvas.whole, canvas.distance_to(side) < 3.6, parts.ASPHALT)
    plot = float(rng.uniform(17, 22))
    for offset in offsets:
        for row in (-1.0, 1.0):
            for u in np.arange(-reach, reach, plot):
                _house(canvas, canvas.turned(float(u), float(offset + row * 18.5), angle), angle, row)
    for way in ways:
        parts.traffic(canvas, way, 3.2, 26.0)


def _house(canvas: Canvas, place: tuple[float, float], angle: float, row: float) -> None:
    """A house on its plot: drive to the street, garden behind, perhaps a pool."""
    rng = canvas.rng
    x, y = place
    if canvas.at(canvas.room(), x, y) < 6.0:
        return
    back = canvas.box(x, y, 16.0, 25.0, angle)
    if back is not None:
        free = back.cover & ~np.isin(canvas.material[back.window], parts.PAVED)
        look: Look = parts.pick(canvas, (parts.LAWN, parts.LAWN, parts.DRY_GRASS, parts.SOIL))
        canvas.paint(back.window, free, look, tone=float(rng.uniform(0.9, 1.1)))
    cos, sin = math.cos(angle), math.sin(angle)
    drive = canvas.box(x + 5 * cos + row * 8 * sin, y + 5 * sin - row * 8 * cos, 4.5, 11.0, angle)
    if drive is not None:
        canvas.paint(drive.window, drive.cover, parts.CONCRETE)
        if rng.random() < 0.6:
            parts.car(canvas, x + 5 * cos + row * 9 * sin, y + 5 * sin - row * 9 * cos, angle + math.pi / 2)
    body = parts.Building(
        x, y, rng.uniform(12.5, 15.5), rng.uniform(8.5, 10.5), angle, rng.uniform(3.0, 6.0), 0.42
    )
    colour = parts.pick(canvas, parts.HOUSE_ROOFS)
    parts.gable_roof(canvas, body, colour)
    garage = replace(
        body, x=x + 4 * cos + row * 3 * sin, y=y + 4 * sin - row * 3 * cos, length_m=11.0, width_m=6.5
    )
    parts.gable_roof(canvas, replace(garage, angle=angle + math.pi / 2, height_m=2.8), colour)
    if rng.random() < 0.25:
        pool = canvas.box(x - row * 11 * sin, y + row * 11 * cos, 8.0, 4.2, angle)
        if pool is not None:
            canvas.paint(pool.window, pool.cover, parts.CONCRETE)
            canvas.paint(pool.window, pool.within(0.6), parts.WATER, colour=(92, 182, 200))
