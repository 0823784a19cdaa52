"""`pbvs match`: which scoring rule reproduces the real board's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import Device, DeviceOption, JsonFlag, LpipsNet, LpipsOption, Weights, WeightsOption

_N_SHOWN = 8


def match(
    file: Annotated[
        Path,
        typer.Argument(
            help="TOML with a table for each submission: [[submission]] predictions = 'FOLDER' "
            "targets = 'FOLDER' board = { sar2eo = 0.12, sar2rgb = 0.55 }."
        ),
    ],
    lpips: LpipsOption = LpipsNet.vgg,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    json: JsonFlag = False,
) -> None:
    """Tries every rule the organisers may mean on submissions whose board scores are known."""
    from pbvs.core.device import device_of_process
    from pbvs.perceptual.metric_weights import disclaimer
    from pbvs.score.match import match_board, read_submissions, verdict
    from pbvs.score.scorer import Scorer

    submissions = read_submissions(file)
    judge = Scorer(weights.value, lpips.value, device_of_process(device.value))
    with console.progress("match") as advance:
        found = match_board(judge, submissions, advance)
    told = verdict(found)
    if json:
        console.result_json(
            {
                "weights": weights.value,
                "marked": disclaimer(weights.value),
                "verdict": told,
                "matches": [match.to_json() for match in found],
            }
        )
        return
    columns = ("FID layer", "resized as", "arctan weight", "LPIPS range", "pixel term", "error", "largest")
    rows = [
        (
            *(m.rule.fid_layer, m.rule.resize, f"{m.rule.arctan_weight:g}", m.rule.lpips_range),
            *(m.rule.pixel_term, m.error, m.largest),
        )
        for m in found[:_N_SHOWN]
    ]
    console.table(f"the nearest of {len(found)} rules, {weights.value} weights", columns, rows)
    console.result(told)
    if disclaimer(weights.value):
        console.result(str(disclaimer(weights.value)))
