"""`pbvs weights`: the weights of FID, LPIPS and VGG, and trained weights for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, OverwriteFlag

if TYPE_CHECKING:
    from pbvs.perceptual.metric_weights import FileRow

app = typer.Typer(
    help="Metric weights (FID, LPIPS, VGG): list, fetch, check, pack. Trained weights: export.",
    no_args_is_help=True,
)

Names = Annotated[list[str] | None, typer.Argument(help="Names as in `pbvs weights list`; default: all.")]


@app.command("list")
def list_weights(json: JsonFlag = False) -> None:
    """Lists the weight files of the metrics: whether each is there and intact, and what uses it."""
    from pbvs.perceptual import metric_weights

    _show(metric_weights.status(), json)


@app.command()
def fetch(names: Names = None, overwrite: OverwriteFlag = False) -> None:
    """Downloads missing weights of the metrics from their official addresses, and checks them."""
    from pbvs.perceptual import metric_weights

    with console.progress("weights") as advance:
        metric_weights.fetch(names, progress=advance, overwrite=overwrite)
    _show(metric_weights.status(names), json=False)


@app.command()
def check(names: Names = None, json: JsonFlag = False) -> None:
    """Checks the weights of the metrics by SHA-256; exit 1 if a file is missing or wrong."""
    from pbvs.perceptual import metric_weights

    rows = metric_weights.status(names)
    _show(rows, json)
    if any(row.state != "ok" for row in rows):
        raise typer.Exit(1)


@app.command()
def pack(
    out: Annotated[Path, typer.Argument(help="The tar file to write.")], overwrite: OverwriteFlag = False
) -> None:
    """Packs the weights of the metrics into one file, for a machine without internet."""
    from pbvs.perceptual import metric_weights

    with console.progress("weights") as advance:
        metric_weights.pack(out, progress=advance, overwrite=overwrite)
    console.result(
        f"{out}: {out.stat().st_size / 1e6:.0f} MB; on the other machine: `pbvs weights unpack {out.name}`"
    )


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(help="A file written by `pbvs weights pack`.")],
    overwrite: OverwriteFlag = False,
) -> None:
    """Unpacks weights of the metrics into the torch hub folder, and checks them."""
    from pbvs.perceptual import metric_weights

    with console.progress("weights") as advance:
        metric_weights.unpack(packed, progress=advance, overwrite=overwrite)
    _show(metric_weights.status(), json=False)


@app.command()
def standin(
    out: Annotated[Path, typer.Option("--out", help="A TORCH_HOME folder to fill; not the one in use.")],
    overwrite: OverwriteFlag = False,
) -> None:
    """Writes stand-in weights under the official file names, so that the reference packages run with them."""
    from pbvs.perceptual import metric_weights

    with console.progress("weights") as advance:
        written = metric_weights.write_standin(out, progress=advance, overwrite=overwrite)
    for path in written:
        console.result(str(path))
    console.result(metric_weights.NOT_COMPARABLE)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Trained weights: a .safetensors file of a run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    overwrite: OverwriteFlag = False,
) -> None:
    """Writes trained weights in the format of the system's published code (the EMA where there is one)."""
    from pbvs.systems.registry import system_named
    from pbvs.training.checkpoint import load_weights

    record, states = load_weights(checkpoint)
    system = system_named(record.system)
    config = system.config.model_validate(record.config)
    written = system.load().export(config, record.bands, states, out, overwrite=overwrite)
    console.result(f"{checkpoint}: {record.task}.{record.node} after {record.images_seen} training images")
    for path, summary in written.items():
        console.result(f"{path}: {summary}")


def _show(rows: list[FileRow], json: bool) -> None:
    from pbvs.perceptual.metric_weights import METRIC_WEIGHT_FILES, hub_folder

    if json:
        console.result_json(
            [
                {
                    "name": r.name,
                    "file": str(r.file),
                    "state": r.state,
                    "bytes": r.n_bytes,
                    "detail": r.detail,
                    "sha256": METRIC_WEIGHT_FILES[r.name].sha256,
                }
                for r in rows
            ]
        )
        return
    table = [(r.name, r.state, r.n_bytes, METRIC_WEIGHT_FILES[r.name].used_for, r.file.name) for r in rows]
    console.table(str(hub_folder()), ("weights", "state", "bytes", "used for", "file"), table)
