"""Weight files of the metrics: names, download addresses, and the state of the local copies.

File names are those of the torch hub cache, so the reference packages find the same files. Importing this
module does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pbvs.core.errors import UsageError, WeightsError, did_you_mean
from pbvs.core.files import sha256_of_file

WeightsKind = Literal["official", "standin"]
FileState = Literal["ok", "torn", "missing", "wrong"]
NOT_COMPARABLE = "stand-in weights: not comparable"
MARKER_SUFFIX = ".standin.json"
_TORCHVISION = "https://download.pytorch.org/models/"
_PYTORCH_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"


@dataclass(frozen=True)
class MetricWeightFile:
    """One official weight file.

    Args:
        name: its name in this package.
        url: the official address.
        sha256: of the whole file, in hex.
        n_bytes: its size.
        used_for: its purpose, shown to the user.
    """

    name: str
    url: str
    sha256: str
    n_bytes: int
    used_for: str

    @property
    def file_name(self) -> str:
        """Its name in the torch hub cache."""
        return self.url.rsplit("/", 1)[1]


METRIC_WEIGHT_FILES: dict[str, MetricWeightFile] = {
    file.name: file
    for file in (
        MetricWeightFile(
            "inception",
            _PYTORCH_FID + "pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95628359,
            "FID",
        ),
        MetricWeightFile(
            "vgg16",
            _TORCHVISION + "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553433881,
            "LPIPS of the score, and as a loss",
        ),
        MetricWeightFile(
            "alexnet",
            _TORCHVISION + "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            244408911,
            "LPIPS with AlexNet, by choice",
        ),
        MetricWeightFile(
            "squeezenet1_1",
            _TORCHVISION + "squeezenet1_1-b8a52dc0.pth",
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            4958839,
            "LPIPS with SqueezeNet, by choice",
        ),
        MetricWeightFile(
            "vgg19",
            _TORCHVISION + "vgg19-dcbb9e9d.pth",
            "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
            574673361,
            "the VGG loss",
        ),
    )
}


@dataclass(frozen=True)
class FileRow:
    """The state of one weight file on this machine.

    `state` is `ok` (the official file), `torn` (truncated), `missing`, or `wrong` (other contents);
    `detail` explains it, empty if there is nothing to add.
    """

    name: str
    file: Path
    n_bytes: int
    state: FileState
    detail: str = ""


def disclaimer(kind: WeightsKind) -> str | None:
    """The disclaimer for all results computed with weights of this kind; None for official weights."""
    return NOT_COMPARABLE if kind == "standin" else None


def hub_folder() -> Path:
    """The checkpoint folder of torch hub (follows TORCH_HOME)."""
    import torch  # takes seconds

    return Path(torch.hub.get_dir()) / "checkpoints"


def metric_weight_file(name: str) -> MetricWeightFile:
    """The weight file with this name.

    Raises:
        UsageError: unknown name.
    """
    if name not in METRIC_WEIGHT_FILES:
        known = list(METRIC_WEIGHT_FILES)
        raise UsageError("unknown metric weights", where=name, next_step=did_you_mean(name, known))
    return METRIC_WEIGHT_FILES[name]


def chosen(names: Sequence[str] | None) -> list[MetricWeightFile]:
    """The weight files with these names, in that order; all for None.

    Raises:
        UsageError: unknown name.
    """
    return [metric_weight_file(name) for name in (METRIC_WEIGHT_FILES if names is None else names)]


def marker_of(path: Path) -> Path:
    """The marker file next to a weight file that holds stand-in weights."""
    return path.with_name(path.name + MARKER_SUFFIX)


def recipe_in_marker(path: Path) -> str | None:
    """The recipe of the stand-in weights at `path`; None without a valid marker."""
    try:
        marker = json.loads(marker_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(marker.get("recipe", "")) if isinstance(marker, dict) else None


# Each file is hashed once per process, as long as its size and time stamp stay the same.
_hashes: dict[tuple[str, int, int], str] = {}


def _sha256(path: Path) -> str:
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = sha256_of_file(path)
    return _hashes[key]


def state_of(file: MetricWeightFile, path: Path) -> tuple[FileState, str]:
    """The state of the file at `path`, by size and SHA-256, and a detail for the user."""
    if not path.is_file():
        return "missing", ""
    n_bytes = path.stat().st_size
    if n_bytes == file.n_bytes and _sha256(path) == file.sha256:
        return "ok", ""
    if recipe_in_marker(path) is not None:
        return "wrong", "stand-in weights under the official name"
    if n_bytes < file.n_bytes:
        return "torn", f"{n_bytes} of {file.n_bytes} bytes"
    if n_bytes > file.n_bytes:
        return "wrong", f"{n_bytes} bytes where the official file has {file.n_bytes}"
    return "wrong", f"SHA-256 is {_sha256(path)}"


def status(names: Sequence[str] | None = None, folder: Path | None = None) -> list[FileRow]:
    """One row per weight file, with its contents checked; uses no network.

    Args:
        names: the weight files; all for None.
        folder: where the files are; torch hub's checkpoints for None.

    Raises:
        UsageError: unknown name.
    """
    folder = hub_folder() if folder is None else folder
    rows = []
    for file in chosen(names):
        path = folder / file.file_name
        state, detail = state_of(file, path)
        n_bytes = 0 if state == "missing" else path.stat().st_size
        rows.append(FileRow(file.name, path, n_bytes, state, detail))
    return rows


def check(names: Sequence[str] | None = None, folder: Path | None = None) -> list[FileRow]:
    """The rows of `status`, if all of them are `ok`.

    Raises:
        UsageError: unknown name.
        WeightsError: files are missing, truncated or wrong; lists them.
    """
    rows = status(names, folder)
    bad = [row for row in rows if row.state != "ok"]
    if len(bad) == 1:
        raise not_usable(bad[0])
    if bad:
        listed = "".join(f"\n    {r.name}: {r.state}: {r.file}" for r in bad)
        raise WeightsError(
            f"{len(bad)} metric weight files are not usable{listed}",
            next_step="run `pbvs weights fetch`, or copy them with `pbvs weights pack` and `unpack`",
        )
    return rows


def not_usable(row: FileRow) -> WeightsError:
    """The error for a missing, truncated or wrong file: names file, folder, hash and the remedies."""
    file = metric_weight_file(row.name)
    detail = f" ({row.detail})" if row.detail else ""
    return WeightsError(
        f"the official weights {file.file_name} ({file.used_for}) are {row.state}{detail}; "
        f"the file has SHA-256 {file.sha256}",
        where=row.file,
        next_step=f"run `pbvs weights fetch {file.name}`; without network, `pbvs weights pack` on a machine "
        "that has them and `pbvs weights unpack` here; or use `--weights standin`, whose numbers "
        "are not comparable",
    )
