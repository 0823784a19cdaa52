"""The judges' weight files: what they are called, where they come from, and whether those here are whole.

The names are those of the torch hub cache, so the reference packages find the same files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pbvs.core.errors import UsageError, WeightsError, did_you_mean
from pbvs.core.files import sha256_of_file

FileState = Literal["ok", "torn", "missing", "wrong"]
MARKER_SUFFIX = ".standin.json"
_TORCHVISION = "https://download.pytorch.org/models/"
_PYTORCH_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"


@dataclass(frozen=True)
class MetricWeightFile:
    """One official weight file.

    Args:
        name: what the rest of the package calls it.
        file_name: its name in the torch hub cache.
        url: the official address.
        sha256: of the whole file, in hex.
        n_bytes: its size.
        used_for: words for the user.
    """

    name: str
    file_name: str
    url: str
    sha256: str
    n_bytes: int
    used_for: str


def _from_torchvision(
    name: str, file_name: str, sha256: str, n_bytes: int, used_for: str
) -> MetricWeightFile:
    return MetricWeightFile(name, file_name, _TORCHVISION + file_name, sha256, n_bytes, used_for)


_INCEPTION = "pt_inception-2015-12-05-6726825d.pth"

METRIC_WEIGHT_FILES: dict[str, MetricWeightFile] = {
    file.name: file
    for file in (
        MetricWeightFile(
            "inception",
            _INCEPTION,
            _PYTORCH_FID + _INCEPTION,
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95628359,
            "FID",
        ),
        _from_torchvision(
            "vgg16",
            "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553433881,
            "LPIPS of the score, and as a loss",
        ),
        _from_torchvision(
            "alexnet",
            "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            244408911,
            "LPIPS with AlexNet, by choice",
        ),
        _from_torchvision(
            "squeezenet1_1",
            "squeezenet1_1-b8a52dc0.pth",
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            4958839,
            "LPIPS with SqueezeNet, by choice",
        ),
        _from_torchvision(
            "vgg19",
            "vgg19-dcbb9e9d.pth",
            "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
            574673361,
            "the VGG loss",
        ),
    )
}


@dataclass(frozen=True)
class FileRow:
    """What is known of one weight file on this machine.

    `state` is `ok` (the official file), `torn` (too short), `missing`, or `wrong` (other contents);
    `detail` says more in words, empty when there is nothing to add.
    """

    name: str
    file: Path
    present: bool
    n_bytes: int
    state: FileState
    detail: str = ""


def hub_folder() -> Path:
    """The folder in which torch hub keeps checkpoints (follows TORCH_HOME)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def metric_weight_file(name: str) -> MetricWeightFile:
    """The file called `name`.

    Raises:
        UsageError: no judge is called so.
    """
    if name not in METRIC_WEIGHT_FILES:
        raise UsageError("unknown judge", where=name, next_step=did_you_mean(name, list(METRIC_WEIGHT_FILES)))
    return METRIC_WEIGHT_FILES[name]


def chosen(names: Sequence[str] | None) -> list[MetricWeightFile]:
    """The files called `names`, in that order; all of them for None.

    Raises:
        UsageError: no judge is called so.
    """
    return [metric_weight_file(name) for name in (METRIC_WEIGHT_FILES if names is None else names)]


def marker_of(path: Path) -> Path:
    """The note beside a weight file that says that it holds stand-in weights."""
    return path.with_name(path.name + MARKER_SUFFIX)


def recipe_in_marker(path: Path) -> str | None:
    """The recipe by which the stand-in weights at `path` were made; None where none are marked there."""
    try:
        noted = json.loads(marker_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(noted.get("recipe", "")) if isinstance(noted, dict) else None


# A file is hashed once a process, as long as its size and time stamp stay the same.
_hashes: dict[tuple[str, int, int], str] = {}


def _sha256(path: Path) -> str:
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = sha256_of_file(path)
    return _hashes[key]


def state_of(file: MetricWeightFile, path: Path) -> tuple[FileState, str]:
    """The state of the file at `path`, measured by size and SHA-256, and words about it."""
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
    """One row a weight file, its contents checked; touches no network.

    Args:
        names: the judges asked about; all of them for None.
        folder: where the files lie; torch hub's checkpoints for None.

    Raises:
        UsageError: no judge is called so.
    """
    where = hub_folder() if folder is None else folder
    rows = []
    for file in chosen(names):
        path = where / file.file_name
        state, detail = state_of(file, path)
        n_bytes = 0 if state == "missing" else path.stat().st_size
        rows.append(FileRow(file.name, path, state != "missing", n_bytes, state, detail))
    return rows


def check(names: Sequence[str] | None = None, folder: Path | None = None) -> list[FileRow]:
    """The rows of `status`, when every one of them is `ok`.

    Raises:
        UsageError: no judge is called so.
        WeightsError: one or more files are missing, torn or wrong; names each.
    """
    rows = status(names, folder)
    faults = [row for row in rows if row.state != "ok"]
    if len(faults) == 1:
        raise not_usable(faults[0])
    if faults:
        listed = "".join(f"\n    {r.name}: {r.state}: {r.file}" for r in faults)
        raise WeightsError(
            f"{len(faults)} of the judges' weight files are not as they should be{listed}",
            next_step="run `pbvs weights fetch`, or carry them over with `pbvs weights pack` and `unpack`",
        )
    return rows


def not_usable(row: FileRow) -> WeightsError:
    """The error for a file that is missing, torn or wrong: names file, folder, hash and the ways out."""
    file = metric_weight_file(row.name)
    because = f" ({row.detail})" if row.detail else ""
    return WeightsError(
        f"the official weights {file.file_name} ({file.used_for}) are {row.state}{because}; "
        f"the file has SHA-256 {file.sha256}",
        where=row.file,
        next_step=f"run `pbvs weights fetch {file.name}`; without network, `pbvs weights pack` on a machine "
        "that has them and `pbvs weights unpack` here; or take `--weights standin`, whose numbers "
        "are not comparable",
    )
