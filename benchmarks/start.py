"""CPU time and memory of the commands that need no network, each as a whole process on a warm disk.

    python benchmarks/start.py [--beside OTHER_CHECKOUT] [--record FILE]

The commands run on a small synthetic archive and a zip with one image per task, both written first. CPU
seconds are user + system, the median of five runs; MB is the largest peak of resident memory. The last row is
the slowest of all commands' help pages. `--beside` runs the same with another checkout of pbvs and prints how
many times as much CPU time that takes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hardware import processor

ROOT = Path(__file__).resolve().parents[1]
N_RUNS = 5
COMMANDS = {
    "pbvs --help": ["--help"],
    "pbvs tasks list": ["tasks", "list"],
    "pbvs tasks show sar2rgb": ["tasks", "show", "sar2rgb"],
    "pbvs solutions": ["solutions"],
    "pbvs board": ["board"],
    "pbvs submit check ZIP": ["submit", "check", "small.zip"],
    "pbvs data scan DIR": ["data", "scan", "archives"],
}
HELP = (
    *("tasks", "solutions", "data", "train", "calibrate", "translate", "score", "match"),
    *("submit", "board", "run", "report", "ablate", "weights"),
)
# One smooth image per task, of the size and bands that the winning solution's tasks have.
WRITE_PREDICTIONS = """
import numpy as np
from pathlib import Path
from pbvs.core.pixels import write_png
tasks = {"sar2eo": (256, 1), "sar2rgb": (1024, 3), "rgb2ir": (1024, 1), "sar2ir": (1024, 1)}
for task, (side_px, bands) in tasks.items():
    ramp = np.linspace(0, 255, side_px).astype(np.uint8)
    write_png(Path("predictions") / task / "0.png", np.repeat(np.add.outer(ramp, ramp)[:, :, None], bands, 2))
"""


def run(python_path: Path, folder: Path, arguments: list[str]) -> tuple[float, float] | None:
    """CPU seconds and peak MB of one process; None where it fails (an older version without the command)."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(python_path),
        "PBVS_LEDGER": str(folder / "ledger.sqlite"),
        "PBVS_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, *arguments]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return None if status else (used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def commit(checkout: Path) -> str:
    """The abbreviated hash and date of the checkout's last commit."""
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure(python_path: Path, folder: Path, command: list[str]) -> tuple[float, float] | None:
    """Median CPU seconds and largest peak of five runs, after one that warms the disk's cache."""
    runs = [run(python_path, folder, ["-m", "pbvs", *command]) for _ in range(1 + N_RUNS)][1:]
    if None in runs:
        return None
    return statistics.median(r[0] for r in runs if r), max(r[1] for r in runs if r)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--beside", type=Path, metavar="OTHER_CHECKOUT", help="compare with this checkout")
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    checkouts = [ROOT, *([args.beside.resolve()] if args.beside else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = [
            ["-m", "pbvs", "data", "synth", "archives", "--locations", "4", "--tiles", "4", "--chip", "64"],
            ["-c", WRITE_PREDICTIONS],
            ["-m", "pbvs", "submit", "build", "predictions", "--out", "small.zip", "--runtime", "1"],
        ]
        for arguments in prepare:
            if run(ROOT, folder, arguments) is None:
                raise SystemExit(f"{' '.join(arguments)} failed")
        found = {
            label: [measure(checkout, folder, command) for checkout in checkouts]
            for label, command in COMMANDS.items()
        }
        pages = [[measure(checkout, folder, [name, "--help"]) for checkout in checkouts] for name in HELP]
    found["--help of a command"] = [max(page[i] for page in pages if page[i]) for i in range(len(checkouts))]

    lines = [
        "# Start of the commands that need no network",
        "",
        f"{datetime.date.today()}; {processor()}; Python {sys.version.split()[0]}; "
        f"median CPU seconds (user + system) of {N_RUNS} runs, peak resident memory.",
        *([f"The other checkout is commit {commit(checkouts[1])}."] if args.beside else []),
        "",
        "| | CPU s | peak MB |" + (" other CPU s | other peak MB | ratio of CPU s |" if args.beside else ""),
        "| --- | --- | --- |" + " --- |" * 3 * bool(args.beside),
    ]
    for label, sides in found.items():
        cells = [
            value
            for side in sides
            for value in ((f"{side[0]:.2f}", f"{side[1]:.0f}") if side else ("-", "-"))
        ]
        if args.beside:
            ours, other = sides
            cells.append(f"{other[0] / ours[0]:.1f}" if ours and other else "-")
        lines.append(f"| `{label}` | {' | '.join(cells)} |")
    print("\n".join(lines))
    if args.record:
        args.record.parent.mkdir(parents=True, exist_ok=True)
        args.record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
