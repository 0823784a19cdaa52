"""A whole submission, zipped and checked, beside Python's plain archive and Info-ZIP.

    python benchmarks/submit.py FOLDER [--share 1.0] [--record FILE]

3,586 gray images of 256 px and 180 of 1024 px (60 of them RGB), as a full set of predictions has; `--share`
takes a part of them. Ours builds and checks: every image is decoded before and after. The others only pack.
FOLDER is for scratch. Whole processes, in turn; peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from hardware import processor

from pbvs.core.pixels import resize, write_png

TASKS = {"sar2eo": (3586, 256, 1), "sar2rgb": (60, 1024, 3), "rgb2ir": (60, 1024, 1), "sar2ir": (60, 1024, 1)}
PLAIN = "import shutil, sys; shutil.make_archive(sys.argv[2], 'zip', sys.argv[1])"


def scene(seed: int, side_px: int, bands: int) -> np.ndarray:
    """Smooth at three scales with noise, which compresses about as aerial images do."""
    draw = np.random.default_rng(seed)
    total = np.zeros((side_px, side_px, bands))
    for coarse, weight in ((32, 0.6), (8, 0.25), (2, 0.15)):
        rough = draw.integers(0, 256, (side_px // coarse, side_px // coarse, bands), dtype=np.uint8)
        total += weight * resize(cv2.blur(rough, (3, 3)).reshape(rough.shape), (side_px, side_px))
    return np.clip(total + draw.normal(0, 2, total.shape), 0, 255).astype(np.uint8)


def write_predictions(folder: Path, share: float) -> int:
    n_all = 0
    for task, (n, side_px, bands) in TASKS.items():
        for i in range(max(2, round(n * share))):
            write_png(folder / task / f"{i}.png", scene(i, side_px, bands))
            n_all += 1
    return n_all


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and the peak memory in GB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, used.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    n_images = write_predictions(folder / "predictions", asked.share)
    environment = dict(os.environ) | {"PBVS_LEDGER": str(folder / "ledger.sqlite")}
    python, predictions = sys.executable, str(folder / "predictions")
    build = [python, "-m", "pbvs", "submit", "build", predictions, "--runtime", "1", "--overwrite", "--out"]
    sides = {"pbvs, PNGs as they are": [*build, str(folder / "kept.zip")]}
    for level in (1, 6, 9):
        out = str(folder / f"level{level}.zip")
        sides[f"pbvs, written again at level {level}"] = [*build, out, "--compression", str(level)]
    sides["shutil.make_archive"] = [python, "-c", PLAIN, predictions, str(folder / "plain")]
    if zip_program := shutil.which("zip"):
        sides["Info-ZIP, zip -r"] = [zip_program, "-r", "-q", str(folder / "info.zip"), predictions]
        sides["Info-ZIP, zip -r -0"] = [zip_program, "-r", "-q", "-0", str(folder / "info0.zip"), predictions]
    zips = dict(zip(sides, ("kept", "level1", "level6", "level9", "plain", "info", "info0"), strict=False))
    lines = [
        "# A submission, zipped and checked",
        "",
        f"{datetime.date.today()}; {processor()}; {n_images} images"
        + ("." if asked.share == 1.0 else f", a share of {asked.share:g} of a full set."),
        "",
        "| | seconds | MB | peak GB |",
        "| --- | --- | --- | --- |",
    ]
    for name, command in sides.items():
        seconds, peak_gb = run(command, environment)
        n_bytes = (folder / f"{zips[name]}.zip").stat().st_size
        lines.append(f"| {name} | {seconds:.1f} | {n_bytes / 1e6:.1f} | {peak_gb:.2f} |")
    check = [python, "-m", "pbvs", "submit", "check", str(folder / "kept.zip")]
    seconds, peak_gb = run(check, environment)
    lines.append(f"| `pbvs submit check` alone | {seconds:.1f} | | {peak_gb:.2f} |")
    print("\n".join(lines))
    if asked.record:
        asked.record.parent.mkdir(parents=True, exist_ok=True)
        asked.record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
