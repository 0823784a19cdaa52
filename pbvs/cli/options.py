"""Options that several commands share, each defined once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Weights(StrEnum):
    """The weights of FID, LPIPS and VGG."""

    official = "official"
    standin = "standin"


class Rules(StrEnum):
    """The year whose rules the score follows."""

    y2024 = "2024"
    y2026 = "2026"


class Device(StrEnum):
    """The device of the networks."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class LpipsNet(StrEnum):
    """The network of LPIPS."""

    vgg = "vgg"
    alex = "alex"
    squeeze = "squeeze"


class Precision(StrEnum):
    """The numbers that networks compute with while training."""

    fp32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"


WeightsOption = Annotated[
    Weights,
    typer.Option(
        "--weights",
        help="Weights of FID, LPIPS and VGG; standin: seeded, not comparable, for tests and demos.",
    ),
]
RulesOption = Annotated[Rules, typer.Option("--rules", help="The pixel term is L2 in 2024, L1 in 2026.")]
LayerOption = Annotated[int, typer.Option("--fid-layer", help="Inception layer of the FID in the score.")]
LpipsOption = Annotated[LpipsNet, typer.Option("--lpips", help="Network of LPIPS; the challenge uses vgg.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
TasksFolderOption = Annotated[
    Path | None, typer.Option("--tasks", help="Your own folder of task files, instead of --solution.")
]
SolutionOption = Annotated[
    str | None, typer.Option("--solution", help="A name from `pbvs solutions`; default: winning2024.")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of the training runs.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Device of the networks.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision", help="bf16-mixed: faster on devices with bfloat16; 16-mixed: for older GPUs."
    ),
]
DataWorkersOption = Annotated[
    int,
    typer.Option("--data-workers", min=0, help="Processes that load images; 0: the main process loads them."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the task file (dotted key, TOML value)."
    ),
]
SetByTaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="TASK.KEY=VALUE", help="Override a value of a task file (dotted key, TOML value)."
    ),
]
TargetsOption = Annotated[
    Path | None,
    typer.Option("--targets", help="Root of the test targets; default: test_targets next to --test."),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Print what would be done and why; do nothing.")]


def default_targets(test: Path | None) -> Path | None:
    """The folder `test_targets` next to the test inputs; None where there is none."""
    targets = test.parent / "test_targets" if test else None
    return targets if targets and targets.is_dir() else None
