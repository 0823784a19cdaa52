"""The production training step beside the official order of work written plainly, in one run.

    python benchmarks/train_step.py [--sizes 256 512] [--losses original|winning] [--device cpu|cuda]
                                    [--rounds N] [--steps N] [--record FILE]

Same networks (ngf 64, 9 blocks, batch 1), same weights, same images. Every side runs in a process of its own,
turn by turn, so that what one leaves behind in caches and allocators does not help the next. The rungs
between the two ends show what each measure brings.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hardware import processor
from train_step_side import LOSSES, Side, as_text

SIDE_SCRIPT = Path(__file__).with_name("train_step_side.py")
PARTS = (
    "generator forward",
    "discriminator forward",
    "losses",
    "backward D",
    "backward G",
    "optimizers",
    "rest",
)
_TERMS_ALIKE = 1e-4  # relative, of the first step's losses in fp32


@dataclass(frozen=True)
class Rung:
    """A side by name, and the name of the one that its speed is given against."""

    name: str
    side: Side
    against: str


def rungs(device: str) -> list[Rung]:
    """From the official step to the production step, in fp32 and in bf16."""
    official, ours = "official, fp32", "production, fp32"
    unwrap = Side(device=device)
    whole = replace(unwrap, measures=("memory", "adam", "pass"))
    if device == "cpu":
        measures = [
            Rung("+ memory kept", replace(unwrap, measures=("memory",)), official),
            Rung("+ fused Adam", replace(unwrap, measures=("memory", "adam")), official),
        ]
        half: list[Rung] = []
    else:
        measures = [Rung("+ fused Adam", replace(unwrap, measures=("adam",)), official)]
        half = [
            Rung("official, bf16", replace(unwrap, precision="bf16"), official),
            Rung(
                "production, bf16, channels_last",
                replace(whole, precision="bf16", channels_last=True),
                "official, bf16",
            ),
        ]
    return [
        Rung(official, unwrap, official),
        *measures,
        Rung(ours, whole, official),
        *half,
        Rung("production, bf16", replace(whole, precision="bf16"), "official, bf16" if half else official),
        Rung(
            "production, bf16, checkpointing",
            replace(whole, precision="bf16", checkpointing=True),
            "official, bf16" if half else official,
        ),
    ]


def measured(side: Side) -> dict[str, Any]:
    """One run of a side in a process of its own."""
    ended = subprocess.run(
        [sys.executable, str(SIDE_SCRIPT), as_text(side)], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{as_text(side)}\n{ended.stderr}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median seconds of a step over all rounds, in all and by part; the highest peak."""
    parts = {
        part: statistics.median(s for run in runs for s in run["parts"].get(part, [0.0])) for part in PARTS
    }
    return {
        "seconds": statistics.median(s for run in runs for s in run["seconds"]),
        "cpu_seconds": statistics.median(s for run in runs for s in run["cpu_seconds"]),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "parts": parts,
        "first_terms": runs[0]["first_terms"],
    }


def check_alike(found: dict[str, dict[str, Any]]) -> None:
    """Whether both sides did the same work: the losses of the first step in fp32."""
    official, ours = (found[name]["first_terms"] for name in ("official, fp32", "production, fp32"))
    for name, value in official.items():
        if abs(ours[name] - value) > _TERMS_ALIKE * abs(value):
            raise SystemExit(f"the sides differ: {name} is {value} and {ours[name]}")


def table(size_px: int, ladder: list[Rung], found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"## {size_px} x {size_px}"
    yield ""
    yield "| step | seconds | images/s | ratio | processor s | peak GB | " + " | ".join(PARTS) + " |"
    yield "| --- " * (6 + len(PARTS)) + "|"
    for rung in ladder:
        result = found[rung.name]
        ratio = found[rung.against]["seconds"] / result["seconds"]
        against = "" if rung.against == "official, fp32" else " of bf16"
        cells = [
            rung.name,
            f"{result['seconds']:.3f}",
            f"{1 / result['seconds']:.3g}",
            f"{ratio:.2f} x{against}",
            f"{result['cpu_seconds']:.2f}",
            f"{result['peak_bytes'] / 1e9:.1f}",
            *(f"{result['parts'][part]:.3f}" for part in PARTS),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def hardware(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--losses", choices=list(LOSSES), default="original")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    lines = [
        "# A training step beside the official one",
        "",
        f"{datetime.date.today()}; {hardware(asked.device)}; torch {torch.__version__}; "
        f"losses: {asked.losses}; medians of {asked.rounds} x {asked.steps} steps, the sides turn by turn.",
        "",
    ]
    ladder = rungs(asked.device)
    for size_px in asked.sizes:
        runs: dict[str, list[dict[str, Any]]] = {rung.name: [] for rung in ladder}
        for _ in range(asked.rounds):
            for rung in ladder:
                side = replace(rung.side, size_px=size_px, losses=asked.losses, steps=asked.steps)
                runs[rung.name].append(measured(side))
        found = {name: merged(of_side) for name, of_side in runs.items()}
        check_alike(found)
        lines += table(size_px, ladder, found)
        print("\n".join(lines), flush=True)
    if asked.record:
        asked.record.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
