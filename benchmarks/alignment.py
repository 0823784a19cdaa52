"""How well SAR lies on the colour images after `prepare`, with and without `register`, in tables.

    python benchmarks/alignment.py FOLDER [--data ROOT] [--made N] [--record FILE]

FOLDER is for scratch, and new. ROOT holds archives in the challenge's layout: of each location the shift at
which the gradients of SAR and colour agree best (`pbvs.prepare.register`), before and after registration; of
each place seen several times whether all captures lie on one grid. `--made N` makes N locations on level
ground and N with their true heights, puts each SAR up to 8 pixels off, and tells how much registration
takes out of that. Pairs that do not belong together tell how often chance is trusted.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from hardware import processor

from pbvs.dataset.index import PreparedData
from pbvs.prepare.prepare import PrepareRules, prepare
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.register import Shift, estimate_shift
from pbvs.scenes.synth import make_archives

PUT_IN_PX, CHIP_PX = 8.0, 320
WITHIN_PX = 3.0
N_WRONG = 3  # colour images of other places that each SAR is shown with


def prepared(root: Path, out: Path, register: bool) -> PreparedData:
    """SAR and colour at native resolution."""
    rules = PrepareRules(register=register, uint16="percentile")
    prepare(root, out, modalities=("sar", "rgb", "ir"), families=("stack",), size_px=None, rules=rules)
    return PreparedData.open(out)


def sar_and_rgb(data: PreparedData) -> pd.DataFrame:
    """The SAR captures with the path of the colour image that gives their grid."""
    rgb = data.captures("stack", "rgb").sort_values(["mosaic", "path"], ascending=[False, True])
    first = rgb.drop_duplicates(["city", "location"])[["city", "location", "path"]]
    return data.captures("stack", "sar").merge(first.rename(columns={"path": "rgb"}), on=["city", "location"])


def shift_between(data: PreparedData, moving: str, fixed: str) -> Shift:
    """As `estimate_shift`, on the part that both have when sizes differ."""
    sizes = [data.table.set_index("path").loc[path, ["height_px", "width_px"]] for path in (moving, fixed)]
    box = (0, 0, *(int(min(sides)) for sides in zip(*sizes, strict=True)))
    paths = data.root / moving, data.root / fixed
    valid = read_valid(paths[0], box) & read_valid(paths[1], box)
    return estimate_shift(read_values(paths[0], box), read_values(paths[1], box), valid)


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    lines = [title, "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


# ---- archives


def told(shift: Shift) -> list[str]:
    return [f"{shift.dx_px:.2f}", f"{shift.dy_px:.2f}", f"{shift.peak:.1f}", "yes" if shift.trusted else "no"]


def within(shifts: list[Shift]) -> str:
    """How many shifts lie within `WITHIN_PX`, by each axis and by distance."""
    sizes = np.abs([(shift.dx_px, shift.dy_px) for shift in shifts])
    by_axis, by_distance = (sizes <= WITHIN_PX).all(axis=1).sum(), (np.hypot(*sizes.T) <= WITHIN_PX).sum()
    return f"{by_axis} of {len(shifts)} by each axis, {by_distance} by distance"


def residual_table(unwrap: PreparedData, registered: PreparedData) -> str:
    pairs = sar_and_rgb(unwrap)
    before = [shift_between(unwrap, row.path, row.rgb) for row in pairs.itertuples()]
    after = [shift_between(registered, row.path, row.rgb) for row in pairs.itertuples()]
    rows = [
        [row.location, row.capture, *told(mine), f"{np.hypot(left.dx_px, left.dy_px):.2f}"]
        for row, mine, left in zip(pairs.itertuples(), before, after, strict=True)
    ]
    columns = ["location", "SAR", "east px", "south px", "peak", "trusted", "px left after registration"]
    means = [np.mean([getattr(shift, name) for shift in before]) for name in ("dx_px", "dy_px")]
    summary = (
        f"Within {WITHIN_PX:.0f} px: {within(before)}; after registration {within(after)}."
        f" Mean {means[0]:.2f} px east, {means[1]:.2f} px south.\n"
    )
    return table("Shift at which SAR and colour agree best", columns, rows) + "\n" + summary


def years_table(data: PreparedData) -> str:
    """Locations with two colour captures or more: their grids, and how the captures agree in turn."""
    rows = []
    for location, captures in data.table[data.table.family == "stack"].groupby("location"):
        colour = captures[captures.modality == "rgb"].sort_values("taken").path.tolist()
        if len(colour) < 2:
            continue
        shifts = [shift_between(data, *pair) for pair in itertools.pairwise(colour)]
        sizes = [np.hypot(shift.dx_px, shift.dy_px) for shift in shifts if shift.trusted]
        numbers = [f"{len(captures)}", f"{n_grids(data, captures.path)}", f"{len(sizes)} of {len(shifts)}"]
        rows.append([str(location), *numbers, f"{np.median(sizes):.2f}", f"{max(sizes):.2f}"])
    columns = ["location", "captures", "grids", "colour pairs trusted", "median px", "largest px"]
    return table("Captures of one place, each colour image with the next", columns, rows)


def n_grids(data: PreparedData, paths: pd.Series) -> int:
    grids = set()
    for path in paths:
        with rasterio.open(data.root / path) as dataset:
            grids.add((dataset.crs.to_string(), tuple(dataset.transform)[:6], dataset.shape))
    return len(grids)


def wrong_row(name: str, data: PreparedData) -> list[str]:
    """Each SAR with the colour of other places."""
    pairs = sar_and_rgb(data)
    found = [
        shift_between(data, mine.path, other.rgb)
        for step in range(1, N_WRONG + 1)
        for mine, other in zip(
            pairs.itertuples(),
            pairs.loc[np.roll(pairs.index, step * len(pairs) // (N_WRONG + 1))].itertuples(),
            strict=True,
        )
        if mine.location != other.location
    ]
    peaks = [shift.peak for shift in found]
    return [name, str(len(found)), f"{max(peaks):.1f}", str(sum(shift.trusted for shift in found))]


# ---- made scenes


def made_row(folder: Path, n_locations: int, relief: float) -> tuple[list[str], list[str]]:
    """What registration leaves of the put-in shifts, by the shifts known; and the row of wrong pairs."""
    name = "level ground" if relief == 0 else "true heights"
    root = folder / f"made_{relief:g}"
    options = {"tiles": 0, "test_images": 0, "seed": 1, "chip_px": CHIP_PX}
    made = make_archives(root, locations=n_locations, sar_shift_px=PUT_IN_PX, relief=relief, **options)
    put = {shift.path.relative_to(root).as_posix(): (shift.east_px, shift.south_px) for shift in made.shifts}
    data = prepared(root, folder / f"made_{relief:g}_prepared", register=True)
    pairs = sar_and_rgb(data)
    off = np.array([put[path] for path in pairs.source_path]) + pairs[["shift_x_px", "shift_y_px"]].to_numpy()
    moved = (pairs[["shift_x_px", "shift_y_px"]] != 0).any(axis=1).to_numpy()
    sizes = np.hypot(*off[moved].T)
    row = [name, str(len(pairs)), f"{100 * moved.mean():.0f} %", f"{100 * (sizes < 1 / 3).mean():.0f} %"]
    row += [f"{np.quantile(sizes, q):.2f}" for q in (0.5, 0.95)] + [f"{off[moved, 0].mean():.2f}"]
    return row, wrong_row(f"made, {name}", data)


# ---- speed and the record


def seconds_an_estimate(side_px: int = 1024, n: int = 5) -> float:
    """Of two images of noise, in this process."""
    rng = np.random.default_rng(0)
    sar, rgb = (rng.integers(0, 256, (side_px, side_px, c), dtype=np.uint8) for c in (1, 3))
    valid = np.ones((side_px, side_px), bool)
    started = time.process_time()
    for _ in range(n):
        estimate_shift(sar, rgb, valid)
    return (time.process_time() - started) / n


def parts(asked: argparse.Namespace) -> Iterator[str]:
    wrong = []
    if asked.data:
        unwrap = prepared(asked.data, asked.folder / "plain", register=False)
        yield residual_table(unwrap, prepared(asked.data, asked.folder / "registered", register=True))
        yield years_table(unwrap)
        wrong.append(wrong_row(asked.data.name, unwrap))
    if asked.made:
        columns = ["made scenes", "SAR", "moved", "of these within 1/3 px", "median px", "95 % px", "east px"]
        both = [made_row(asked.folder, asked.made, relief) for relief in (0.0, 1.0)]
        title = f"What registration leaves of a shift of up to {PUT_IN_PX:.0f} px (chips of {CHIP_PX} px)"
        yield table(title, columns, [row for row, _ in both])
        wrong += [row for _, row in both]
    yield table("SAR with colour of other places", ["of", "pairs", "highest peak", "trusted"], wrong)
    yield f"{seconds_an_estimate():.2f} s of one core an estimate at 1024 x 1024.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--made", type=int, default=16)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)  # a new one: nothing left over is measured
    os.environ["PBVS_CACHE"] = str(asked.folder / "cache")
    lines = [f"{datetime.date.today()}; {processor()}, rasterio {rasterio.__version__}\n"]
    for part in parts(asked):
        print(part, flush=True)
        lines.append(part)
    if asked.record:
        asked.record.write_text("# Alignment\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
