"""Scored submissions of constant images, as input of report pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pbvs.core.files import write_csv, write_json
from pbvs.core.pixels import write_png

Images = Mapping[str, np.ndarray]


def score_json(tasks: Mapping[str, int], overall: float = 0.3) -> dict:
    """The contents of score.json for this many images per task."""
    by_task = {
        task: {
            "images": n,
            "fid": {"64": 0.5, "192": 1.0, "768": 0.1, "2048": 20.0},
            "lpips": 0.2,
            "l1": 0.1,
            "l2": 0.15,
            "score": 0.25,
            "interval95": [0.2, 0.3],
        }
        for task, n in tasks.items()
    }
    return {
        "schema": 1,
        "rules": "2024",
        "pixel_term": "l2",
        "fid_layer": 64,
        "arctan_weight": 1.0,
        "lpips": {"net": "vgg", "version": "0.1"},
        "weights": {"kind": "standin", "sha256": {}},
        "marked": "stand-in weights: not comparable",
        "tasks": by_task,
        "overall": overall,
        "overall_interval95": [0.25, 0.35],
        "missing": [],
    }


def write_submission(
    folder: Path, preds: Mapping[str, Images], errors: Mapping[str, Mapping[str, float]]
) -> Path:
    """Writes predictions, score.json and score.csv; `errors` are the L2 by task and image."""
    for task, images in preds.items():
        for name, image in images.items():
            write_png(folder / "predictions" / task / f"{name}.png", image)
    write_json(folder / "score.json", score_json({task: len(images) for task, images in preds.items()}))
    rows = [(task, name, 0.1, l2 / 2, l2) for task, by_name in errors.items() for name, l2 in by_name.items()]
    write_csv(folder / "score.csv", ("task", "image", "lpips", "l1", "l2"), rows)
    return folder


def write_images(root: Path, by_task: Mapping[str, Images]) -> Path:
    """Test inputs, or targets: one folder per task."""
    for task, images in by_task.items():
        for name, image in images.items():
            write_png(root / task / f"{name}.png", image)
    return root


def flat(value: int, bands: int = 1, side_px: int = 64) -> np.ndarray:
    """A constant 8-bit image."""
    return np.full((side_px, side_px, bands), value, np.uint8)


def page_data(html: str) -> dict:
    """The JSON embedded in a page."""
    text = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    return json.loads(text)
