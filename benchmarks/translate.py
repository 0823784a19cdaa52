"""Translation beside plain code: gray from colour, whole folders, and a network at 1024 px.

    python benchmarks/translate.py FOLDER [--size 1024] [--repeats 5] [--device cpu|cuda] [--record FILE]

Three tables. Gray: one RGB image in memory, by the table, by float numpy, by a loop over Pillow's pixels, and
a copy of the same bytes. Folders: `pbvs translate rgb2ir` beside a loop with Pillow and numpy, files read and
written. Network: the winning solution's generator as a plain fp32 loop has it, and as pbvs runs it; each side
in a process of its own, sides in turn, medians. FOLDER is for scratch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hardware import processor

from pbvs.core.pixels import resize
from pbvs.graph.nodes.channel_sums import apply_lut
from pbvs.pipeline.lut_fit import factor_luts

FACTOR = 1.3
N_FILES = 12

# What a contestant writes.
FOLDER_LOOP = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
inputs, out = map(Path, sys.argv[1:3])
out.mkdir()
for path in sorted(inputs.iterdir()):
    rgb = np.asarray(Image.open(path).convert("RGB").resize((1024, 1024), Image.BOX), np.float64)
    gray = np.rint(np.clip(1.3 * rgb.mean(axis=2), 0, 255)).astype(np.uint8)
    Image.fromarray(gray).save(out / f"{path.stem}.png")
"""

# One side of the network's table: prints seconds of each image, peak memory and a sum of the image.
NETWORK = """
import json, resource, sys, time
import torch
side, size_px, repeats, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), torch.device(sys.argv[4])
from pbvs.systems.pix2pixhd.config import GeneratorConfig
from pbvs.systems.pix2pixhd.network import Generator
torch.manual_seed(0)
network = Generator(GeneratorConfig(), 1, 3).to(device).eval()
levels = torch.rand(1, 1, size_px, size_px, dtype=torch.float64) * 255
if side == "plain":
    def run():
        with torch.no_grad():
            return (network((levels.float() / 127.5 - 1).to(device)).cpu() + 1) * 127.5
else:
    from pbvs.graph import trained
    from pbvs.graph.node import InferenceOptions
    from pbvs.core.device import device_of_process
    from pbvs.systems.pix2pixhd.system import Pix2PixHD
    from pbvs.training.system import Translation
    device_of_process(device.type)
    options = InferenceOptions("bf16-mixed" if "bf16" in side else "32-true", "strips" in side)
    translation = Translation(Pix2PixHD, {"G": network})
    def run():
        return trained.run(translation, levels, options)
seconds = []
for _ in range(repeats + 1):
    started = time.perf_counter()
    made = run()
    seconds.append(time.perf_counter() - started)
torch.save(made, sys.argv[5])
peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds[1:], "peak_gb": peak / 1e9}))
"""


def scene(seed: int, height: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    smooth = resize(draw.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8), (height, width))
    return np.clip(smooth + draw.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def median_ms(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def gray(size_px: int) -> list[str]:
    rgb = scene(0, size_px, size_px)
    table = factor_luts(np.array([FACTOR]))[0]

    def floats() -> np.ndarray:
        return np.rint(np.clip(FACTOR * rgb.mean(axis=2), 0, 255)).astype(np.uint8)

    def loop_of_a_strip() -> None:
        from PIL import Image

        image = Image.fromarray(rgb[:16])
        pred = Image.new("L", image.size)
        for y in range(16):
            for x in range(size_px):
                pred.putpixel((x, y), min(255, round(FACTOR * sum(image.getpixel((x, y))) / 3)))

    assert np.array_equal(apply_lut(rgb, table)[..., 0], floats())
    sides = {
        "a copy of the bytes": median_ms(lambda: rgb.copy(), 60),
        "by the table": median_ms(lambda: apply_lut(rgb, table), 60),
        "float numpy": median_ms(floats, 10),
        "loop over Pillow's pixels": median_ms(loop_of_a_strip, 2) * size_px / 16,
    }
    copy = sides["a copy of the bytes"]
    return [f"| {name} | {ms:.2f} | {ms / copy:.1f} |" for name, ms in sides.items()]


def seconds_of(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def folders(folder: Path, environment: dict[str, str]) -> list[str]:
    """Whole processes: both load Python and their libraries."""
    import cv2

    (folder / "in").mkdir()
    for i in range(N_FILES):
        cv2.imwrite(str(folder / "in" / f"{i}.tiff"), scene(i, 1332, 1291))
    times: dict[str, list[float]] = {"plain": [], "pbvs": []}
    for n in range(3):
        args = [str(folder / "in"), str(folder / f"plain{n}")]
        times["plain"].append(seconds_of([sys.executable, "-c", FOLDER_LOOP, *args], environment))
        args = ["translate", "rgb2ir", "--inputs", str(folder / "in"), "--out", str(folder / f"pbvs{n}")]
        times["pbvs"].append(
            seconds_of([sys.executable, "-m", "pbvs", *args, "--device", "cpu"], environment)
        )
    own = json.loads((folder / "pbvs0" / ".translate.json").read_text())
    unwrap, ours = (statistics.median(times[side]) for side in ("plain", "pbvs"))
    return [
        f"| Pillow and numpy, one after the other | {unwrap:.2f} | |",
        f"| `pbvs translate rgb2ir` | {ours:.2f} | {unwrap / ours:.2f} |",
        f"| of that, an image from reading to writing | {own['seconds'] / own['timed_images']:.3f} | |",
    ]


def network(folder: Path, size_px: int, repeats: int, device: str, environment: dict[str, str]) -> list[str]:
    import torch

    made_path = str(folder / "made.pt")

    def one(side: str, at_px: int, times: int) -> dict:
        args = [sys.executable, "-c", NETWORK, side, str(at_px), str(times), device, made_path]
        result = json.loads(subprocess.run(args, check=True, env=environment, capture_output=True).stdout)
        return result | {"median_s": statistics.median(result["seconds"])}

    rows, plain_s, whole = [], 0.0, torch.zeros(())
    for side in ("plain", "fp32", "bf16", "fp32 strips"):
        result = one(side, size_px, repeats)
        seconds, pred = result["median_s"], torch.load(made_path).double()
        if side == "plain":
            plain_s, whole = seconds, pred
        apart = (pred - whole).abs()
        difference = f"{float(apart.max()):.2g} | {float(apart.mean()):.2g}"
        speed = "" if side == "plain" else f"{plain_s / seconds:.2f}"
        rows.append(f"| {side} | {seconds:.3f} | {speed} | {result['peak_gb']:.2f} | {difference} |")
    result = one("fp32 strips", 2 * size_px, 1)
    args = f"fp32 strips, {2 * size_px} px: four times the pixels"
    rows.append(f"| {args} | {result['median_s']:.3f} | | {result['peak_gb']:.2f} | | |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    environment = dict(os.environ) | {"OMP_WAIT_POLICY": "PASSIVE"}
    where = processor()
    if asked.device == "cuda":
        import torch

        where = f"{torch.cuda.get_device_name()}, {where}"
    lines = [
        "# Translation beside plain code",
        "",
        f"{datetime.date.today()}; {where}.",
        "",
        f"| gray of an RGB image of {asked.size} x {asked.size} | ms | copies |",
        "| --- | --- | --- |",
        *gray(asked.size),
        "",
        f"| {N_FILES} TIFFs of 1332 x 1291 to PNGs of 1024 x 1024 | seconds | times as fast |",
        "| --- | --- | --- |",
        *folders(asked.folder, environment),
        "",
        f"| generator of 64 channels at {asked.size} px, one image | seconds | times as fast as plain "
        "| peak GB | largest difference | mean difference (of 255) |",
        "| --- | --- | --- | --- | --- | --- |",
        *network(asked.folder, asked.size, asked.repeats, asked.device, environment),
    ]
    print("\n".join(lines))
    if asked.record:
        asked.record.parent.mkdir(parents=True, exist_ok=True)
        asked.record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
