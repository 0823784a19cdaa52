"""`pbvs score`: the local score of translated images against their targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    Device,
    DeviceOption,
    LayerOption,
    Rules,
    RulesOption,
    Weights,
    WeightsOption,
)

if TYPE_CHECKING:
    from pbvs.score.judge import ScoreReport


def score(
    pred: Annotated[
        Path, typer.Argument(help="Predictions: one task's images with --task, else task folders.")
    ],
    target: Annotated[Path, typer.Argument(help="Targets, in the same way.")],
    task: Annotated[str | None, typer.Option("--task", help="The one task that both folders hold.")] = None,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    json: Annotated[Path | None, typer.Option("--json", help="Write the score there; - for stdout.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a row an image there.")] = None,
) -> None:
    """Scores as the challenge does: ((2/pi) arctan(FID) + LPIPS + P) / 3, lower is better."""
    from pbvs.score.judge import Judge, score_folder, score_folders
    from pbvs.score.rules import Ranking
    from pbvs.tasks.chain import write_score
    from pbvs.training.fabric import make_fabric

    ranking = Ranking(rules.value, fid_layer)
    judge = Judge(weights.value, device=make_fabric(device.value).device)
    with console.progress("score") as advance:
        if task is None:
            report = score_folders(judge, pred, target, None, ranking, progress=advance)
        else:
            report = score_folder(judge, task, pred, target, ranking, progress=advance)
    to_stdout = json is not None and str(json) == "-"
    write_score(report, None if to_stdout else json, csv)
    if to_stdout:
        console.result_json(report.to_json())
    else:
        show_score(report)


def show_score(report: ScoreReport) -> None:
    """The score as a table, with everything that a number needs beside it to mean something."""
    told = report.to_json()
    layer, kind = told["fid_layer"], told["weights"]["kind"]
    rows = []
    for task, s in told["tasks"].items():
        low, high = s["interval95"] or ("-", "-")
        rows.append(
            (task, s["images"], s["fid"][str(layer)], s["lpips"], s["l1"], s["l2"], s["score"], low, high)
        )
    columns = ("task", "images", f"FID@{layer}", "LPIPS", "L1", "L2", "score", "95 % from", "to")
    console.table(f"rules {told['rules']}, {kind} weights, lower is better", columns, rows)
    missing = f" (1 each for {', '.join(told['missing'])})" if told["missing"] else ""
    console.result(f"overall {told['overall']:.4f}{missing}")
    for task, s in told["tasks"].items():
        if small := s["fid_layers_short_of_images"]:
            layers = ", ".join(str(d) for d in small)
            console.result(
                f"{task}: {s['images']} images are too few for a settled FID of {layers} dimensions"
            )
        if s["n_resampled"]:
            console.result(f"{task}: {s['n_resampled']} predictions were resampled to their target's size")
    if told["marked"]:
        console.result(told["marked"])
