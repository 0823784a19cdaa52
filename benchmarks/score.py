"""`pbvs score` beside what a contestant writes: pytorch-fid's command, and a loop with lpips and numpy.

    python benchmarks/score.py FOLDER [--n 60] [--size 256] [--many 60 600] [--record FILE]

Same weights (stand-ins under the official names), same images, whole processes. FOLDER is for scratch. The
sides are run in turn; the second scoring of ours has other predictions against the same targets, the third
the same again. Peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from hardware import processor

from pbvs.core.pixels import resize, write_png

# What a contestant writes; PIL and numpy as they come.
LOOP = """
import sys, json
from pathlib import Path
import lpips, numpy as np, torch
from PIL import Image
made, real = map(Path, sys.argv[1:3])
net = lpips.LPIPS(net="vgg", verbose=False)
rows = []
with torch.no_grad():
    for path in sorted(real.iterdir()):
        a, b = (np.asarray(Image.open(p).convert("RGB"), np.float32) / 255 for p in (made / path.name, path))
        x, y = (torch.from_numpy(i).permute(2, 0, 1)[None] * 2 - 1 for i in (a, b))
        rows.append((net(x, y).item(), np.abs(a - b).mean(), np.sqrt(((a - b) ** 2).mean())))
print(json.dumps([float(v) for v in np.mean(rows, axis=0)]))
"""


@dataclass(frozen=True)
class Ran:
    """One process: wall seconds, peak memory in GB, what it printed."""

    seconds: float
    peak_gb: float
    out: str


def run(command: list[str], environment: dict[str, str]) -> Ran:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Ran(time.perf_counter() - started, used.ru_maxrss * 1024 / 1e9, out)


def write_pairs(folder: Path, n: int, size_px: int) -> None:
    """Targets, and two sets of predictions."""
    for name in ("real", "made", "other"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        draw = np.random.default_rng(i)
        rough = draw.integers(0, 256, (size_px // 8, size_px // 8, 3), dtype=np.uint8)
        real = resize(rough, (size_px, size_px))
        write_png(folder / "real" / f"{i}.png", real)
        for name, sigma in (("made", 2.0), ("other", 4.0)):
            noise = draw.normal(0, 8, real.shape)
            made = np.clip(np.rint(cv2.GaussianBlur(real, (0, 0), sigma) + noise), 0, 255).astype(np.uint8)
            write_png(folder / name / f"{i}.png", made)


def ours(folder: Path, made: str, environment: dict[str, str], *more: str) -> Ran:
    paths = [str(folder / made), str(folder / "real")]
    words = ["score", *paths, "--task", "sar2rgb", "--weights", "standin", "--device", "cpu", "--json", "-"]
    return run([sys.executable, "-m", "pbvs", *words, *more], environment)


def theirs(folder: Path, made: str, environment: dict[str, str]) -> tuple[Ran, Ran]:
    paths = [str(folder / made), str(folder / "real")]
    fid = [sys.executable, "-m", "pytorch_fid", *paths, "--device", "cpu", "--num-workers", "2"]
    return run(fid, environment), run([sys.executable, "-c", LOOP, *paths], environment)


def compared(folder: Path, n: int, size_px: int, environment: dict[str, str]) -> list[str]:
    """The table of both sides at one size."""
    write_pairs(folder, n, size_px)
    fid, loop = theirs(folder, "made", environment)
    unwrap, plain_gb = fid.seconds + loop.seconds, max(fid.peak_gb, loop.peak_gb)
    sides = {
        "first scoring": ours(folder, "made", environment),
        "other predictions, same targets": ours(folder, "other", environment),
        "the same again": ours(folder, "other", environment),
    }
    told = json.loads(sides["first scoring"].out)["tasks"]["sar2rgb"]
    lpips, l1, l2 = json.loads(loop.out)
    for name, value in (("lpips", lpips), ("l1", l1), ("l2", l2)):
        assert abs(told[name] - value) < 1e-5 * value, (name, told[name], value)
    theirs_fid = float(fid.out.split()[-1])
    assert abs(told["fid"]["2048"] - theirs_fid) < 1e-3 * theirs_fid, (told["fid"], theirs_fid)
    head = f"{n} pairs of {size_px} x {size_px}"
    rows = [
        f"| {head} | pytorch-fid {fid.seconds:.1f} + loop {loop.seconds:.1f} = {unwrap:.1f} | "
        f"| {plain_gb:.2f} |"
    ]
    for name, ran in sides.items():
        rows.append(f"| {name} | {ran.seconds:.1f} | {ran.seconds / unwrap:.2f} | {ran.peak_gb:.2f} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--large", type=int, default=1024, help="size for the peak of memory, with 3 pairs")
    parser.add_argument("--many", type=int, nargs="*", default=[60, 600])
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    # In a process of its own: what this one holds counts among the peak of all that it starts.
    torch_home = str(asked.folder / "torch_home")
    subprocess.run([sys.executable, "-m", "pbvs", "weights", "standin", "--out", torch_home], check=True)
    environment = dict(os.environ)
    environment |= {
        "TORCH_HOME": torch_home,
        "PBVS_CACHE": str(asked.folder / "cache"),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    lines = [
        "# Scoring beside the contestant's own script",
        "",
        f"{datetime.date.today()}; {processor()}; stand-in weights; whole processes, imports included.",
        "",
        "| what | seconds | part of the script's | peak GB |",
        "| --- | --- | --- | --- |",
        *compared(asked.folder / "usual", asked.n, asked.size, environment),
        *compared(asked.folder / "large", 3, asked.large, environment),
        "",
        f"| pairs of {asked.size} px, nothing remembered | seconds | seconds a pair |",
        "| --- | --- | --- |",
    ]
    for n in asked.many:
        folder = asked.folder / f"many-{n}"
        write_pairs(folder, n, asked.size)
        ran = ours(folder, "made", environment, "--no-cache")
        lines.append(f"| {n} | {ran.seconds:.1f} | {ran.seconds / n:.3f} |")
    print("\n".join(lines))
    if asked.record:
        asked.record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
