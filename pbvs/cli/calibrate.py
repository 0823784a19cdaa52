"""`pbvs calibrate`: the intensity factor with the lowest error, and what a factor cannot reach."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import (
    Device,
    DeviceOption,
    JsonFlag,
    LayerOption,
    OverwriteFlag,
    Rules,
    RulesOption,
    RunsOption,
    SetOption,
    SolutionOption,
    TasksFolderOption,
    Weights,
    WeightsOption,
)
from pbvs.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from pbvs.graph.graph import TaskGraph
    from pbvs.graph.task_set import TaskSet
    from pbvs.pipeline.calibrated import Calibration
    from pbvs.pipeline.runs import Runs


class By(StrEnum):
    """What to minimise."""

    l2 = "l2"
    l1 = "l1"
    score = "score"


class WriteAs(StrEnum):
    """How the written task makes gray."""

    factor = "factor"
    table = "table"
    mix = "mix"


def calibrate(
    task: Annotated[str, typer.Argument(help="A task that ends in grayscale and intensity.")],
    data: Annotated[Path, typer.Option("--data", help="Folder written by `pbvs data prepare`.")],
    by: Annotated[By, typer.Option("--by", help="What to minimise; score: over a few factors.")] = By.l2,
    write: Annotated[Path | None, typer.Option("--write", help="Write the calibrated task (TOML).")] = None,
    write_as: Annotated[
        WriteAs, typer.Option("--as", help="What to write: the factor, the free table, or the mix of bands.")
    ] = WriteAs.factor,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the error curve (SVG).")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the errors of all factors (CSV).")] = None,
    runs: RunsOption = Path("runs"),
    set_: SetOption = None,
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    rules: RulesOption = Rules.y2024,
    fid_layer: LayerOption = 64,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    overwrite: OverwriteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Finds the factor on the training pairs: exact for every factor at once, checked on other locations.

    For a task whose image is an average (of checkpoints, or a blend) it finds the weights, on held-out
    locations.
    """
    from pbvs.core.device import device_of_process
    from pbvs.dataset.index import PreparedData
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import task_set_with
    from pbvs.perceptual.metric_weights import disclaimer
    from pbvs.pipeline.calibrate import calibrate
    from pbvs.pipeline.ensemble import is_average
    from pbvs.pipeline.node_training import check_metric_weights
    from pbvs.pipeline.runs import Runs
    from pbvs.pipeline.tone_pairs import Pairs, nodes_before, tone_tail
    from pbvs.pipeline.translator import Translator
    from pbvs.score.rules import ScoreConfig
    from pbvs.score.scorer import Scorer

    for path in (write, plot, csv):
        if path is not None and path.exists() and not overwrite:
            raise UsageError("the file exists already", where=path, next_step="give --overwrite")
    task_set = task_set_with(tasks_folder(solution, tasks), task, set_)
    graph, torch_device = task_set.graph(task), device_of_process(device.value)
    if is_average(graph):
        _calibrate_average(task_set, graph, Runs(runs), torch_device, data, write, json)
        return
    upstream_nodes = nodes_before(graph, tone_tail(graph))
    scorer = None
    if by is By.score:
        check_metric_weights({"inception", "vgg16"}, weights.value)
        scorer = Scorer.with_disk_cache(weights.value, device=torch_device)
    upstream = None
    if upstream_nodes is not None:
        upstream = Translator(task_set, task, Runs(runs), torch_device, upstream_nodes)
    pairs = Pairs(graph, PreparedData.open(data), upstream)
    with console.progress(f"calibrate {task}") as advance:
        calibration = calibrate(
            graph,
            pairs,
            by.value,
            scorer=scorer,
            score_config=ScoreConfig(rules.value, fid_layer),
            progress=lambda what, done, total: advance(done, total),
        )
    _write_files(calibration, graph, plot, csv, write, write_as)
    standin = disclaimer(weights.value) if by is By.score else None
    if json:
        console.result_json(calibration.to_json() | {"marked": standin})
        return
    _show(calibration)
    if standin:
        console.result(f"scores: {standin}")
    if write:
        console.result(f"written: {write} (use it with --tasks {write.parent})")


def _calibrate_average(
    task_set: TaskSet,
    graph: TaskGraph,
    runs: Runs,
    device: torch.device,
    data: Path,
    write: Path | None,
    json: bool,
) -> None:
    """Finds, writes and shows the weights of a task whose image is an average."""
    from pbvs.core.files import write_text
    from pbvs.dataset.index import PreparedData
    from pbvs.pipeline.ensemble import ensemble_weights, members, task_with_weights

    with console.progress(f"calibrate {graph.spec.task}") as advance:
        translators = members(task_set, graph, runs, device)
        found = ensemble_weights(graph, PreparedData.open(data), translators, advance)
    if write:
        write_text(write, task_with_weights(graph, found))
    if json:
        console.result_json(found.to_json())
        return
    rows = list(zip(found.names, found.weights, found.l2_alone, strict=True))
    title = f"{found.task}: {found.images} held-out pairs, {found.pixels:,} values"
    console.table(title, ("member", "weight", "L2 alone"), rows)
    console.result(f"L2 with these weights {found.l2:.4f}, with equal weights {found.l2_equal:.4f}")


def _write_files(
    found: Calibration,
    graph: TaskGraph,
    plot: Path | None,
    csv: Path | None,
    write: Path | None,
    write_as: WriteAs,
) -> None:
    """Writes the chart, the curves and the calibrated task, each where it has a path."""
    from pbvs.core.files import write_csv, write_text
    from pbvs.pipeline.calibrated import FACTORS, chart, task_with

    if plot:
        write_text(plot, chart(found))
    if csv:
        rows = zip(FACTORS.tolist(), found.curve_l1.tolist(), found.curve_l2.tolist(), strict=True)
        write_csv(csv, ("factor", "l1", "l2"), list(rows))
    if write:
        write_text(write, task_with(graph.spec, found, write_as.value))


def _show(found: Calibration) -> None:
    rows = [
        (name, f.l1, f.l2, f.l1_heldout or "-", f.l2_heldout or "-") for name, f in found.candidates.items()
    ]
    title = f"{found.task}: {found.images} pairs of {found.locations} locations, {found.pixels:,} pixels"
    console.table(title, ("gray by", "L1", "L2", "L1 held out", "L2 held out"), rows)
    if found.scored:
        scored = [(c.factor, c.score, *(c.interval95 or ("-", "-"))) for c in found.scored]
        console.table("whole score", ("factor", "score", "95 % from", "to"), scored)
    term = "L1" if found.by == "l1" else "L2"
    low, high = found.plateau
    plateau = f"{term} is within 1 % of its lowest from {low:g} to {high:g}"
    console.result(f"best factor by {found.by}: {found.factor:g}; {plateau}")
    folds = ", ".join(f"{factor:g}" for factor in found.fold_factors)
    console.result(f"with one fifth of the locations left out: {folds}")
    cities = ", ".join(f"{city or 'all'} {factor:g}" for city, factor in found.cities.items())
    console.result(f"by city: {cities}")
    if found.conclusion:
        console.result(found.conclusion)
    mix = ", ".join(f"{weight:.4f}" for weight in found.weights)
    console.result(f"mix of bands: {mix}, offset {found.offset:+.2f}")
