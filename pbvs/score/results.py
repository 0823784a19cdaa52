"""The result of a scoring: rows of images, scores of tasks, and the report for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pbvs.core.challenge import TASKS
from pbvs.core.errors import ScoreError
from pbvs.core.files import write_csv, write_json
from pbvs.perceptual.metric_weight_files import WeightsKind, disclaimer
from pbvs.score.interval import Comparison, SubsetScore, compare, overall_interval, subset_score
from pbvs.score.rules import ScoreConfig, overall
from pbvs.score.scored_set import ScoredSet

SCHEMA = 1


@dataclass(frozen=True)
class ImageRow:
    """The terms of one image: `name` is the stem, `l1` and `l2` are in [0,1].

    `extra_metrics` is by name, empty unless requested; None for an undefined metric.
    """

    name: str
    lpips: float
    l1: float
    l2: float
    extra_metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScore:
    """One task's score and its parts; lower is better.

    Args:
        images: number of scored images.
        size_px: height and width of the targets; the most common, if they differ.
        n_sizes: number of different target sizes.
        n_resampled: predictions whose size differs from their target's.
        fid: FID by layer.
        lpips, l1, l2: means over the images.
        score: with the config's layer.
        score_by_layer: with each layer.
        interval95: 95 % interval of `score` over the choice of images; None if it is too costly.
        extra_metrics: means by name, over the images that have them.
        per_image: one row per image, by name.
        scored_set: features and errors per image; not part of the JSON.
    """

    images: int
    size_px: tuple[int, int]
    n_sizes: int
    n_resampled: int
    fid: Mapping[int, float]
    lpips: float
    l1: float
    l2: float
    score: float
    score_by_layer: Mapping[int, float]
    interval95: tuple[float, float] | None
    extra_metrics: Mapping[str, float | None]
    per_image: tuple[ImageRow, ...]
    scored_set: ScoredSet = field(repr=False, compare=False)

    @property
    def short_layers(self) -> list[int]:
        """Layers with at least as many features as images: their FID is far from its limit."""
        return [layer for layer in self.fid if layer >= self.images]

    def to_json(self) -> dict[str, Any]:
        """The task's part of the report, in JSON's types."""
        return {
            "images": self.images,
            "size_px": list(self.size_px),
            "n_sizes": self.n_sizes,
            "n_resampled": self.n_resampled,
            "fid": {str(layer): value for layer, value in self.fid.items()},
            "fid_layers_short_of_images": self.short_layers,
            "lpips": self.lpips,
            "l1": self.l1,
            "l2": self.l2,
            "score": self.score,
            "score_by_layer": {str(layer): value for layer, value in self.score_by_layer.items()},
            "interval95": None if self.interval95 is None else list(self.interval95),
            **({"columns": dict(self.extra_metrics)} if self.extra_metrics else {}),
        }


@dataclass(frozen=True)
class ScoreReport:
    """The scores of the scored tasks, and how they were computed.

    Args:
        config: rules, FID layer and arctan weight.
        kind: of the metric weights.
        sha256: of each weight file (for stand-ins: of their recipe and values).
        lpips_net: the net of LPIPS.
        tasks: by name.
    """

    config: ScoreConfig
    kind: WeightsKind
    sha256: Mapping[str, str]
    lpips_net: str
    tasks: Mapping[str, TaskScore]

    @property
    def missing(self) -> list[str]:
        """The tasks of the four that were not scored; each costs 1."""
        return [task for task in TASKS if task not in self.tasks]

    @property
    def overall(self) -> float:
        """The overall score."""
        return overall({task: score.score for task, score in self.tasks.items()})

    @cached_property
    def interval95(self) -> tuple[float, float] | None:
        """95 % interval of `overall` over the choice of images; None if it is too costly."""
        scored_sets = {task: score.scored_set for task, score in self.tasks.items()}
        return overall_interval(scored_sets, self.config, self.overall)

    @property
    def disclaimer(self) -> str | None:
        """The disclaimer for every number of this report; None with official weights."""
        return disclaimer(self.kind)

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types, schema 1."""
        return {
            "schema": SCHEMA,
            "rules": self.config.rules,
            "pixel_term": self.config.pixel_term,
            "fid_layer": self.config.fid_layer,
            "arctan_weight": self.config.arctan_weight,
            "lpips": {"net": self.lpips_net, "version": "0.1"},
            "weights": {"kind": self.kind, "sha256": dict(self.sha256)},
            "marked": self.disclaimer,
            "tasks": {task: score.to_json() for task, score in self.tasks.items()},
            "missing": self.missing,
            "overall": self.overall,
            "overall_interval95": None if self.interval95 is None else list(self.interval95),
        }

    def subsets(self, images: int) -> dict[str, SubsetScore]:
        """Each task's score for subsets of `images`, see `subset_score`; UsageError if there are fewer."""
        return {
            task: subset_score(score.scored_set, images, self.config) for task, score in self.tasks.items()
        }

    def against(self, other: ScoreReport) -> dict[str, Comparison]:
        """Compares this report's predictions to the other's on the same targets, for each task of both.

        Raises:
            ScoreError: different targets, or no common task.
        """
        common = [task for task in self.tasks if task in other.tasks]
        if not common:
            raise ScoreError("the two have no task in common")
        return {
            task: compare(self.tasks[task].scored_set, other.tasks[task].scored_set, self.config)
            for task in common
        }

    def csv_rows(self) -> list[dict[str, str | float | None]]:
        """One row per image, for a CSV; each names the kind of weights."""
        return [
            {
                "task": task,
                "image": row.name,
                "lpips": row.lpips,
                "l1": row.l1,
                "l2": row.l2,
                **row.extra_metrics,
                "weights": self.kind,
                "marked": self.disclaimer or "",
            }
            for task, score in self.tasks.items()
            for row in score.per_image
        ]


def write_score(
    report: ScoreReport, to_json: Path | None, to_csv: Path | None, content: dict[str, Any] | None = None
) -> None:
    """Writes a score as JSON (`content`, by default the report's own) and, one row per image, as CSV."""
    if to_json is not None:
        write_json(to_json, content or report.to_json())
    if to_csv is not None:
        rows = report.csv_rows()
        write_csv(to_csv, list(rows[0]), [list(row.values()) for row in rows])


def read_score(path: Path) -> dict[str, Any]:
    """Reads a score written by `write_score`."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
