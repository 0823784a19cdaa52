"""What the ledger is told of a build and of a score."""

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
    """Adds a zip: its hash and size, the images' fingerprints, and what each task's were made of.

    Args:
        built: the zip.
        predictions: the folder of task folders that it was built from.
        provenance: of each task, what decided its images by fingerprint; None where that is not known.
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


def note_score(told: Mapping[str, Any], predictions: Mapping[str, Path], targets: Path) -> int:
    """Adds a score with its rules and its weights' kind.

    Args:
        told: the report's JSON.
        predictions: the folder of each scored task.
        targets: where the targets lie.
    """
    row = {
        "report": dict(told),
        "predictions": _fingerprints(predictions),
        "targets": str(targets),
        "pbvs": pbvs.__version__,
    }
    return Ledger().add("score", row)


def _fingerprints(folders: Mapping[str, Path]) -> dict[str, str]:
    return {task: files_fingerprint(list_images(folder)) for task, folder in folders.items()}
