"""`pbvs weights`: the judges' weights, listed, fetched, checked, carried over, or stood in for.

And trained weights, written as the published code has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, OverwriteFlag

if TYPE_CHECKING:
    from pbvs.perceptual.metric_weights import FileRow

app = typer.Typer(
    help="The weights of FID, LPIPS and VGG; trained ones for other programs.", no_args_is_help=True
)

Names = Annotated[list[str] | None, typer.Argument(help="Which; default: all.")]


@app.command("list")
def list_weights(json: JsonFlag = False) -> None:
    """Every file, whether it is there and whole, and what it is for."""
    from pbvs.perceptual import metric_weights as weights

    _show(weights.status(), json)


@app.command()
def fetch(names: Names = None, overwrite: OverwriteFlag = False) -> None:
    """Fetches what is missing from its official address and checks it."""
    from pbvs.perceptual import metric_weights as weights

    with console.progress("weights") as advance:
        weights.fetch(names, progress=advance, overwrite=overwrite)
    _show(weights.status(names), json=False)


@app.command()
def check(names: Names = None, json: JsonFlag = False) -> None:
    """Checks every file that is there by SHA-256; exit 1 if one is missing or wrong."""
    from pbvs.perceptual import metric_weights as weights

    rows = weights.status(names)
    _show(rows, json)
    if any(row.state != "ok" for row in rows):
        raise typer.Exit(1)


@app.command()
def pack(
    out: Annotated[Path, typer.Argument(help="The tar file to write.")], overwrite: OverwriteFlag = False
) -> None:
    """Packs the files into one, to carry to a machine without internet."""
    from pbvs.perceptual import metric_weights as weights

    with console.progress("weights") as advance:
        weights.pack(out, progress=advance, overwrite=overwrite)
    console.result(f"{out}: {out.stat().st_size / 1e6:.0f} MB; there, `pbvs weights unpack {out.name}`")


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(help="A file that `pbvs weights pack` wrote.")],
    overwrite: OverwriteFlag = False,
) -> None:
    """Puts packed files into the torch hub folder and checks them."""
    from pbvs.perceptual import metric_weights as weights

    with console.progress("weights") as advance:
        weights.unpack(packed, progress=advance, overwrite=overwrite)
    _show(weights.status(), json=False)


@app.command()
def standin(
    out: Annotated[Path, typer.Option("--out", help="A TORCH_HOME to fill; not the one you use.")],
    overwrite: OverwriteFlag = False,
) -> None:
    """Writes stand-in weights under the official names, so that the reference packages run on them."""
    from pbvs.perceptual import metric_weights as weights

    with console.progress("weights") as advance:
        written = weights.write_standin(out, progress=advance, overwrite=overwrite)
    for path in written:
        console.result(str(path))
    console.result(weights.NOT_COMPARABLE)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Trained weights: a .safetensors file of a run.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    overwrite: OverwriteFlag = False,
) -> None:
    """Writes trained weights as the system's published code saves them (the average, where one was kept)."""
    from pbvs.systems.registry import system_named
    from pbvs.training.checkpoint import load_weights

    record, states = load_weights(checkpoint)
    system = system_named(record.system)
    config = system.config.model_validate(record.config)
    written = system.load().export(config, record.bands, states, out, overwrite=overwrite)
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
