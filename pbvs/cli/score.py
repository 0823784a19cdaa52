"""`pbvs score`: the local score of translated images against their targets."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    Device,
    DeviceOption,
    LayerOption,
    LpipsNet,
    LpipsOption,
    Rules,
    RulesOption,
    Weights,
    WeightsOption,
)

if TYPE_CHECKING:
    from pbvs.score.results import ScoreReport


def score(
    pred: Annotated[
        Path, typer.Argument(help="Predictions: one task's images with --task, else task folders.")
    ],
    target: Annotated[Path, typer.Argument(help="Targets, in the same way.")],
    task: Annotated[str | None, typer.Option("--task", help="The one task that both folders hold.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Other predictions for the same targets, to compare with."),
    ] = None,
    subset: Annotated[
        int | None,
        typer.Option("--subset", min=2, help="Also the mean score of random subsets of so many images."),
    ] = None,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    arctan_weight: Annotated[
        float, typer.Option("--arctan-weight", help="Weight of FID inside the arctan.")
    ] = 1.0,
    lpips: LpipsOption = LpipsNet.vgg,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    json: Annotated[Path | None, typer.Option("--json", help="Write the score there; - for stdout.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a row an image there.")] = None,
    columns: Annotated[
        bool,
        typer.Option("--columns", help="Also PSNR, SSIM, MAE, NCC, VIF and angular error, at some cost."),
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Remember features of images for the next scoring.")
    ] = True,
    ledger: Annotated[
        bool, typer.Option("--ledger/--no-ledger", help="Add the score to the ledger, see `pbvs board`.")
    ] = True,
) -> None:
    """Scores as the challenge does: ((2/pi) arctan(FID) + LPIPS + P) / 3, lower is better."""
    from pbvs.core.device import device_of_process
    from pbvs.core.process_group import started_process_group
    from pbvs.score.folders import score_folder, score_folders
    from pbvs.score.results import write_score
    from pbvs.score.rules import ScoreConfig
    from pbvs.score.scorer import Scorer
    from pbvs.submission.ledger_rows import note_score

    ranking = ScoreConfig(rules.value, fid_layer, arctan_weight)
    made_by = Scorer.remembering if cache else Scorer
    judge = made_by(weights.value, lpips.value, device_of_process(device.value))
    judge.takes_columns = columns
    share = started_process_group()

    def scored(predictions: Path, words: str) -> ScoreReport:
        with console.progress(words) if share.rank == 0 else nullcontext() as advance:
            if task is None:
                return score_folders(judge, predictions, target, None, ranking, progress=advance, share=share)
            return score_folder(judge, task, predictions, target, ranking, progress=advance, share=share)

    report = scored(pred, "score")
    told = report.to_json()
    if subset is not None:
        told["subsets"] = {name: asdict(found) for name, found in report.subsets(subset).items()}
    if against is not None:
        compared = report.against(scored(against, "against"))
        told["against"] = {
            name: asdict(found) | {"difference": found.difference} for name, found in compared.items()
        }
    if share.rank:
        return  # of several processes, the first one tells
    if ledger:
        folders = {name: pred if task else pred / name for name in told["tasks"]}
        note_score(told, folders, target)
    to_stdout = json is not None and str(json) == "-"
    write_score(report, None if to_stdout else json, csv, told)
    if to_stdout:
        console.result_json(told)
        return
    show_score(report)
    for name, found in told.get("subsets", {}).items():
        console.result(f"{name} {_at_subset(found)}")
    for name, found in told.get("against", {}).items():
        console.result(f"{name} against {against}: {_verdict(found)}")


def _at_subset(found: dict[str, Any]) -> str:
    """A score at a given number of images, in a line."""
    mean = f"at {found['images']} images: {found['score']:.4f} +- {found['score_sd']:.4f}"
    return f"{mean} (standard deviation over {found['subsets']} subsets)"


def _verdict(found: dict[str, Any]) -> str:
    """A comparison in a line."""
    numbers = f"{found['score']:.4f} to {found['other']:.4f}"
    if found["interval95"] is None:
        return f"{numbers}; with so many images and features no certainty is taken"
    word = "better" if found["difference"] < 0 else "worse" if found["difference"] > 0 else "the same"
    low, high = found["interval95"]
    return (
        f"{numbers}, {word}, {found['certainty']:.0%} certain; difference 95 % from {low:+.4f} to {high:+.4f}"
    )


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
    made_by = f"rules {told['rules']} (P = {told['pixel_term'].upper()}), FID of {layer} dimensions"
    weight = "" if told["arctan_weight"] == 1.0 else f" times {told['arctan_weight']:g} inside the arctan"
    lpips = f"LPIPS {told['lpips']['net']} {told['lpips']['version']}"
    console.table(f"{made_by}{weight}, {lpips}, {kind} weights, lower is better", columns, rows)
    missing = f" (1 each for {', '.join(told['missing'])})" if told["missing"] else ""
    low, high = told["overall_interval95"] or (None, None)
    interval = "" if low is None else f", 95 % from {low:.4f} to {high:.4f}"
    console.result(f"overall {told['overall']:.4f}{interval}{missing}")
    for task, s in told["tasks"].items():
        if small := s["fid_layers_short_of_images"]:
            layers = ", ".join(str(d) for d in small)
            console.result(
                f"{task}: {s['images']} images are too few for a settled FID of {layers} dimensions"
            )
        if s.get("columns"):
            shown = (f"{k} {v:.4f}" if v is not None else f"{k} -" for k, v in s["columns"].items())
            console.result(f"{task}: {', '.join(shown)}")
        if s["n_resampled"]:
            console.result(f"{task}: {s['n_resampled']} predictions were resampled to their target's size")
    if told["marked"]:
        console.result(told["marked"])
