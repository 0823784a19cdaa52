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
    pred: Annotated[Path, typer.Argument(help="Predictions: the images of --task, or one folder per task.")],
    target: Annotated[Path, typer.Argument(help="Targets, in the same layout.")],
    task: Annotated[str | None, typer.Option("--task", help="The only task that both folders hold.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Other predictions for the same targets, to compare with."),
    ] = None,
    subset: Annotated[
        int | None,
        typer.Option("--subset", min=2, help="Also the mean score of random subsets of this many images."),
    ] = None,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    arctan_weight: Annotated[
        float, typer.Option("--arctan-weight", help="Weight of FID inside the arctan.")
    ] = 1.0,
    lpips: LpipsOption = LpipsNet.vgg,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    json: Annotated[Path | None, typer.Option("--json", help="Write the score here; - for stdout.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a CSV with one row per image.")] = None,
    columns: Annotated[
        bool,
        typer.Option("--columns", help="Also PSNR, SSIM, MAE, NCC, VIF and angular error; this is slower."),
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep the images' features for the next score.")
    ] = True,
    ledger: Annotated[
        bool, typer.Option("--ledger/--no-ledger", help="Add the score to the ledger, see `pbvs board`.")
    ] = True,
) -> None:
    """Scores as the challenge does: ((2/pi) arctan(FID) + LPIPS + P) / 3, lower is better."""
    from pbvs.core.device import device_of_process
    from pbvs.core.process_group import default_process_group
    from pbvs.score.folders import score_folder, score_folders
    from pbvs.score.results import write_score
    from pbvs.score.rules import ScoreConfig
    from pbvs.score.scorer import Scorer
    from pbvs.submission.ledger_rows import note_score

    config = ScoreConfig(rules.value, fid_layer, arctan_weight)
    new_scorer = Scorer.with_disk_cache if cache else Scorer
    scorer = new_scorer(weights.value, lpips.value, device_of_process(device.value))
    scorer.with_extra_metrics = columns
    group = default_process_group()

    def scored(predictions: Path, label: str) -> ScoreReport:
        with console.progress(label) if group.rank == 0 else nullcontext() as advance:
            if task is None:
                return score_folders(scorer, predictions, target, None, config, progress=advance, group=group)
            return score_folder(scorer, task, predictions, target, config, progress=advance, group=group)

    report = scored(pred, "score")
    result = report.to_json()
    if subset is not None:
        result["subsets"] = {name: asdict(found) for name, found in report.subsets(subset).items()}
    if against is not None:
        comparisons = report.against(scored(against, "against"))
        result["against"] = {
            name: asdict(found) | {"difference": found.difference} for name, found in comparisons.items()
        }
    if group.rank:
        return  # only the first process reports
    if ledger:
        folders = {name: pred if task else pred / name for name in result["tasks"]}
        note_score(result, folders, target)
    to_stdout = str(json) == "-"
    write_score(report, None if to_stdout else json, csv, result)
    if to_stdout:
        console.result_json(result)
        return
    _show(result)
    for name, found in result.get("subsets", {}).items():
        console.result(
            f"{name} at {found['images']} images: {found['score']:.4f} +- {found['score_sd']:.4f} "
            f"(standard deviation over {found['subsets']} subsets)"
        )
    for name, found in result.get("against", {}).items():
        console.result(f"{name} against {against}: {_comparison(found)}")


def _show(result: dict[str, Any]) -> None:
    """The score as a table, with everything that decides what the numbers mean."""
    layer, lpips = result["fid_layer"], result["lpips"]
    rows = []
    for task, s in result["tasks"].items():
        errors = (s["fid"][str(layer)], s["lpips"], s["l1"], s["l2"], s["score"])
        rows.append((task, s["images"], *errors, *(s["interval95"] or ("-", "-"))))
    columns = ("task", "images", f"FID@{layer}", "LPIPS", "L1", "L2", "score", "95 % from", "to")
    title = f"rules {result['rules']} (P = {result['pixel_term'].upper()}), FID of {layer} dimensions"
    if result["arctan_weight"] != 1.0:
        title += f" times {result['arctan_weight']:g} inside the arctan"
    kind = f"{result['weights']['kind']} weights, lower is better"
    console.table(f"{title}, LPIPS {lpips['net']} {lpips['version']}, {kind}", columns, rows)
    overall = f"overall {result['overall']:.4f}"
    if result["overall_interval95"]:
        low, high = result["overall_interval95"]
        overall += f", 95 % from {low:.4f} to {high:.4f}"
    if result["missing"]:
        overall += f" (1 each for {', '.join(result['missing'])})"
    console.result(overall)
    for task, s in result["tasks"].items():
        if s["fid_layers_short_of_images"]:
            layers = ", ".join(map(str, s["fid_layers_short_of_images"]))
            console.result(
                f"{task}: {s['images']} images are too few for a stable FID of {layers} dimensions"
            )
        if s.get("columns"):
            means = (f"{k} -" if v is None else f"{k} {v:.4f}" for k, v in s["columns"].items())
            console.result(f"{task}: {', '.join(means)}")
        if s["n_resampled"]:
            console.result(f"{task}: {s['n_resampled']} predictions were resampled to their target's size")
    if result["marked"]:
        console.result(result["marked"])


def _comparison(found: dict[str, Any]) -> str:
    """Two scores, which is better, and how certain that is."""
    scores = f"{found['score']:.4f} to {found['other']:.4f}"
    if found["interval95"] is None:
        return f"{scores}; too few images for this many features to say how certain"
    outcome = "better" if found["difference"] < 0 else "worse" if found["difference"] > 0 else "the same"
    low, high = found["interval95"]
    certainty = f"{found['certainty']:.0%} certain; difference 95 % from {low:+.4f} to {high:+.4f}"
    return f"{scores}, {outcome}, {certainty}"
