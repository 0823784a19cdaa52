"""Which prediction belongs to which target: by file stem, and nothing may be left over."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pbvs.errors import ScoreError, UsageError
from pbvs.pixels import list_images

_N_NAMED = 10


class ImagePair(NamedTuple):
    """The files of one stem."""

    stem: str
    prediction: Path
    target: Path


def pair_by_stem(pred_dir: Path, target_dir: Path) -> list[ImagePair]:
    """Pairs the PNGs and TIFFs of two folders, sorted by stem; hidden files are passed over.

    Raises:
        UsageError: a folder does not exist.
        ScoreError: no targets, two files of one stem, or a stem on one side only; names up to ten.
    """
    predictions, targets = _by_stem(pred_dir), _by_stem(target_dir)
    if not targets:
        raise ScoreError("no PNG or TIFF in the folder of targets", where=target_dir)
    missing = sorted(targets.keys() - predictions.keys())
    extra = sorted(predictions.keys() - targets.keys())
    if missing or extra:
        raise ScoreError(
            "predictions and targets do not pair by stem"
            + (f"; {len(missing)} without a prediction: {_listed(missing)}" if missing else "")
            + (f"; {len(extra)} without a target: {_listed(extra)}" if extra else ""),
            where=f"{pred_dir} against {target_dir}",
            next_step="have one PNG or TIFF a target, named by the target's stem, and no other",
        )
    return [ImagePair(stem, predictions[stem], targets[stem]) for stem in sorted(targets)]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError("the folder does not exist", where=folder)
    images = list_images(folder)
    by_stem = {path.stem: path for path in images}
    twice = sorted({path.stem for path in images if by_stem[path.stem] != path})
    if twice:
        raise ScoreError(
            f"two files of one stem: {_listed(twice)}", where=folder, next_step="leave one file a stem"
        )
    return by_stem


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more
