"""The whole chain on real images, and each translator beside two trivial answers.

    python benchmarks/real_chain.py REAL [--out DIR] [--record DIR]

REAL holds archives in the challenge's layout, `test/` and `test_targets/`. Trains at the size of
`benchmarks/tasks`, on what device there is; judges with stand-in weights. The trivial answers: the source
itself shown as the target, and the mean of all training targets.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from hardware import processor
from numpy.typing import NDArray

from pbvs.archives.scan import scan
from pbvs.core import pixels
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.chain import find_inputs
from pbvs.score.results import TaskScore
from pbvs.score.scorer import Scorer

TASKS = ("sar2eo", "sar2rgb", "rgb2ir")
HERE = Path(__file__).parent
Stored = NDArray[np.uint8]
Answer = Callable[[str], Stored]


def run_chain(real: Path, out: Path) -> tuple[str, float]:
    """Runs `pbvs run`; gives the command as a person would type it, and the seconds it took."""
    arguments = [
        *("run", *TASKS, "--data", str(real), "--test", str(real / "test"), "--tasks", str(HERE / "tasks")),
        *(
            "--runs",
            str(out / "runs"),
            "--out",
            str(out),
            "--weights",
            "standin",
            "--precision",
            "bf16-mixed",
        ),
    ]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "pbvs", *arguments], check=True)
    words = " ".join(arguments).replace(str(real), "REAL").replace(str(out), "OUT")
    return f"pbvs {words.replace(str(HERE), 'benchmarks')}", time.monotonic() - started


def targets_of(real: Path, task: str) -> dict[str, Stored]:
    return {p.stem: pixels.read_image(p) for p in pixels.list_images(real / "test_targets" / task)}


def mean_training_target(real: Path, book: TaskSet, task: str, size_px: tuple[int, int]) -> Stored:
    """The pixel-wise mean of all training targets of the task, `H,W,C uint8`."""
    spec = book.spec(task)
    images = scan(real).images
    own = images[(images.family == spec.family) & images.usable & (images.split == "train")]
    paired = set(own[own.modality == spec.source].location)
    chosen = own[(own.modality == spec.target) & own.location.isin(paired)]
    stack = [pixels.resize(pixels.to_uint8(pixels.read_image(real / p)), size_px) for p in chosen.path]
    return np.rint(np.mean(stack, axis=0)).astype(np.uint8)


def answers(real: Path, out: Path, book: TaskSet, task: str, targets: dict[str, Stored]) -> dict[str, Answer]:
    inputs = {p.stem: p for p in pixels.list_images(find_inputs(real / "test", task))}
    mean = mean_training_target(real, book, task, next(iter(targets.values())).shape[:2])
    made = out / "predictions" / task
    return {
        "translated": lambda stem: pixels.read_image(made / f"{stem}.png"),
        "source as it is": lambda stem: as_bands(pixels.read_image(inputs[stem]), targets[stem].shape[2]),
        "mean training target": lambda stem: mean,
    }


def as_bands(image: Stored, bands: int) -> Stored:
    """An image shown with other bands: one repeated, or three averaged."""
    if image.shape[2] == bands:
        return image
    if bands == 3:
        return np.repeat(image, 3, axis=2)
    return np.rint(image.mean(axis=2, keepdims=True)).astype(np.uint8)


def scored(judge: Scorer, targets: dict[str, Stored], answer: Answer) -> TaskScore:
    def pairs() -> Iterator[tuple[str, Stored, Stored]]:
        for stem, target in targets.items():
            yield stem, answer(stem), target

    return judge.score_pairs(pairs())


def hardware() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor()}, {device}, torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/real_chain"))
    parser.add_argument("--record", type=Path, default=HERE / "real_chain")
    given = parser.parse_args()
    command, seconds = run_chain(given.real, given.out)
    book, judge = TaskSet(HERE / "tasks"), Scorer("standin")
    given.record.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in TASKS:
        targets = targets_of(given.real, task)
        for name, answer in answers(given.real, given.out, book, task, targets).items():
            s = scored(judge, targets, answer)
            rows.append(
                [task, len(targets), name, *(f"{v:.4f}" for v in (s.l1, s.l2, s.lpips, s.fid[64], s.score))]
            )
            print(*rows[-1], flush=True)
    write_record(given.record, given.out, command, seconds, rows)


def write_record(record: Path, out: Path, command: str, seconds: float, rows: list[list[object]]) -> None:
    columns = ["task", "images", "answer", "L1", "L2", "LPIPS", "FID@64", "score (2024)"]
    with (record / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([columns, *rows])
    for curve in [*sorted(out.glob("runs/*/*/curves.csv")), *sorted(out.glob("runs/*/*/validation.csv"))]:
        shutil.copy(curve, record / f"{curve.parts[-3]}_{curve.name}")
    table = "\n".join(f"| {' | '.join(map(str, row))} |" for row in [columns, ["---"] * len(columns), *rows])
    text = f"""# The whole chain on real images

{datetime.date.today().isoformat()}; {hardware()}; `{command}`: {seconds / 60:.1f} minutes.

Stand-in weights: not comparable with any leaderboard. Lower is better in every column.

{table}
"""
    (record / "record.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
