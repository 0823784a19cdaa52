"""`pbvs match`: the scoring rule that reproduces the real board's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import Device, DeviceOption, JsonFlag, LpipsNet, LpipsOption, Weights, WeightsOption

_MOST_ROWS = 8


def match(
    file: Annotated[
        Path,
        typer.Argument(
            help="TOML with one table per submission: [[submission]] predictions = 'FOLDER' "
            "targets = 'FOLDER' board = { sar2eo = 0.12, sar2rgb = 0.55 }."
        ),
    ],
    lpips: LpipsOption = LpipsNet.vgg,
    weights: WeightsOption = Weights.official,
    device: DeviceOption = Device.auto,
    json: JsonFlag = False,
) -> None:
    """Tries every rule that the organisers may use, on submissions with known board scores."""
    from pbvs.core.device import device_of_process
    from pbvs.perceptual.metric_weights import disclaimer
    from pbvs.score.match import match_board, read_submissions, summarize_matches
    from pbvs.score.scorer import Scorer

    submissions = read_submissions(file)
    scorer = Scorer(weights.value, lpips.value, device_of_process(device.value))
    with console.progress("match") as advance:
        matches = match_board(scorer, submissions, advance)
    conclusion, standin = summarize_matches(matches), disclaimer(weights.value)
    if json:
        console.result_json(
            {
                "weights": weights.value,
                "marked": standin,
                "verdict": conclusion,
                "matches": [match.to_json() for match in matches],
            }
        )
        return
    columns = ("FID layer", "resized as", "arctan weight", "LPIPS range", "pixel term", "error", "largest")
    rows = [
        (
            *(m.rule.fid_layer, m.rule.resize, f"{m.rule.arctan_weight:g}", m.rule.lpips_range),
            *(m.rule.pixel_term, m.error, m.largest),
        )
        for m in matches[:_MOST_ROWS]
    ]
    console.table(f"the nearest of {len(matches)} rules, {weights.value} weights", columns, rows)
    console.result(conclusion)
    if standin:
        console.result(standin)
