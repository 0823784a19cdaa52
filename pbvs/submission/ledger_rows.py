"""The ledger's rows of builds and scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pbvs
from pbvs.core.files import files_fingerprint
from pbvs.core.pixels import list_images
from pbvs.submission.build import BuiltZip
from pbvs.submission.ledger import Ledger


def note_build(built: BuiltZip, predictions: Path, provenance: Mapping[str, Any]) -> int:
    """Adds a row for a zip: its hash and size, the images' fingerprints and their provenance.

    Args:
        built: the zip.
        predictions: the folder of task folders that it was built from.
        provenance: per task, the fingerprints of what its images were computed from; None where unknown.
    """
    row = {
        "zip": str(built.path),
        "sha256": built.sha256,
        "bytes": built.n_bytes,
        "images": built.images,
        "predictions": _fingerprints({task: predictions / task for task in built.images}),
        "made_of": dict(provenance),
        "pbvs": pbvs.__version__,
    }
    return Ledger().add("build", row)


def note_score(report: Mapping[str, Any], predictions: Mapping[str, Path], targets: Path) -> int:
    """Adds a row for a score.

    Args:
        report: the score report's JSON.
        predictions: the folder of each scored task.
        targets: the folder of targets.
    """
    row = {
        "report": dict(report),
        "predictions": _fingerprints(predictions),
        "targets": str(targets),
        "pbvs": pbvs.__version__,
    }
    return Ledger().add("score", row)


def _fingerprints(folders: Mapping[str, Path]) -> dict[str, str]:
    return {task: files_fingerprint(list_images(folder)) for task, folder in folders.items()}
