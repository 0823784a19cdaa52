"""Options that several commands share, each defined once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Weights(StrEnum):
    """Which weights the judges have."""

    official = "official"
    standin = "standin"


class Rules(StrEnum):
    """Which year's rules the score follows."""

    y2024 = "2024"
    y2026 = "2026"


class Device(StrEnum):
    """Where the networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class LpipsNet(StrEnum):
    """Networks of LPIPS."""

    vgg = "vgg"
    alex = "alex"
    squeeze = "squeeze"


class Precision(StrEnum):
    """Numbers the networks compute with while training."""

    fp32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"


WeightsOption = Annotated[
    Weights,
    typer.Option(
        "--weights", help="Of FID, LPIPS and VGG; standin: seeded, not comparable, for tests and demos."
    ),
]
RulesOption = Annotated[Rules, typer.Option("--rules", help="2024: pixel term L2; 2026: L1.")]
LayerOption = Annotated[int, typer.Option("--fid-layer", help="Inception layer that the score ranks by.")]
LpipsOption = Annotated[LpipsNet, typer.Option("--lpips", help="Network of LPIPS; the challenge's is vgg.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Machine-readable, to stdout.")]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace what lies there.")]
TasksFolderOption = Annotated[
    Path | None, typer.Option("--tasks", help="Folder of task files of your own, in place of --solution.")
]
SolutionOption = Annotated[
    str | None, typer.Option("--solution", help="Whose tasks: see `pbvs solutions`; default: winning2024.")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of training runs.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the networks run.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="bf16-mixed: faster where the device can; 16-mixed: older GPUs."),
]
DataWorkersOption = Annotated[
    int,
    typer.Option("--data-workers", min=0, help="Processes that load images; 0: none beside the main one."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Lay a value over the task file (dotted key, TOML value)."
    ),
]
