"""What a scoring yields: rows of images, scores of tasks, and the report that scripts read."""

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
from pbvs.perceptual.metric_weights import WeightsKind, disclaimer
from pbvs.score.interval import Comparison, SubsetScore, compare, overall_interval, subset_score
from pbvs.score.rules import ScoreConfig, overall
from pbvs.score.scored_set import ScoredSet

SCHEMA = 1


@dataclass(frozen=True)
class ImageRow:
    """The terms of one image: `name` is the stem, `l1` and `l2` are in [0,1].

    `columns` holds further measures by name, where they were asked for; None is no number.
    """

    name: str
    lpips: float
    l1: float
    l2: float
    columns: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScore:
    """One task's score and all it is made of; lower is better.

    Args:
        images: how many were scored.
        size_px: height and width of the targets; the commonest, where they differ.
        n_sizes: how many sizes of target there are.
        n_resampled: predictions that had another size than their target.
        fid: FID by layer.
        lpips, l1, l2: means over the images.
        score: under the layer that is ranked by.
        score_by_layer: under each layer.
        interval95: 95 % interval of `score` over the choice of images; None where it costs too much.
        columns: means of further measures by name, over the images that have them.
        per_image: one row an image, by name.
        sample: what the score was made of; not part of the JSON.
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
    columns: Mapping[str, float | None]
    per_image: tuple[ImageRow, ...]
    sample: ScoredSet = field(repr=False, compare=False)

    @property
    def short_layers(self) -> list[int]:
        """Layers with as many features as images, or more: FID is computed, but far from its limit."""
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
            **({"columns": dict(self.columns)} if self.columns else {}),
        }


@dataclass(frozen=True)
class ScoreReport:
    """The scores of the tasks that were scored, and by what they were made.

    Args:
        ranking: rules, layer and weight of the arctan.
        kind: of the judges' weights.
        sha256: of each weight file (for stand-ins: of their recipe and values).
        lpips_net: the net of LPIPS.
        tasks: by name.
    """

    ranking: ScoreConfig
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
        """95 % interval of `overall` over the choice of images; None where it costs too much."""
        samples = {task: score.sample for task, score in self.tasks.items()}
        return overall_interval(samples, self.ranking, self.overall)

    @property
    def disclaimer(self) -> str | None:
        """Words that must stand by every number of this report; None with official weights."""
        return disclaimer(self.kind)

    def to_json(self) -> dict[str, Any]:
        """The report in JSON's types, schema 1."""
        return {
            "schema": SCHEMA,
            "rules": self.ranking.rules,
            "pixel_term": self.ranking.pixel_term,
            "fid_layer": self.ranking.fid_layer,
            "arctan_weight": self.ranking.arctan_weight,
            "lpips": {"net": self.lpips_net, "version": "0.1"},
            "weights": {"kind": self.kind, "sha256": dict(self.sha256)},
            "marked": self.disclaimer,
            "tasks": {task: score.to_json() for task, score in self.tasks.items()},
            "missing": self.missing,
            "overall": self.overall,
            "overall_interval95": None if self.interval95 is None else list(self.interval95),
        }

    def subsets(self, images: int) -> dict[str, SubsetScore]:
        """Each task's score at so many images, see `subset_score`; UsageError where there are fewer."""
        return {task: subset_score(score.sample, images, self.ranking) for task, score in self.tasks.items()}

    def against(self, other: ScoreReport) -> dict[str, Comparison]:
        """Each task that both scored, this report's predictions beside the other's on the same targets.

        Raises:
            ScoreError: different targets, or no task in common.
        """
        common = [task for task in self.tasks if task in other.tasks]
        if not common:
            raise ScoreError("the two have no task in common")
        return {
            task: compare(self.tasks[task].sample, other.tasks[task].sample, self.ranking) for task in common
        }

    def csv_rows(self) -> list[dict[str, str | float | None]]:
        """One row an image, for a CSV; each says which weights made it."""
        return [
            {
                "task": task,
                "image": row.name,
                "lpips": row.lpips,
                "l1": row.l1,
                "l2": row.l2,
                **row.columns,
                "weights": self.kind,
                "marked": self.disclaimer or "",
            }
            for task, score in self.tasks.items()
            for row in score.per_image
        ]


def write_score(
    report: ScoreReport, to_json: Path | None, to_csv: Path | None, told: dict[str, Any] | None = None
) -> None:
    """Writes a score as JSON (`told`, by default the report's own) and, a row an image, as CSV."""
    if to_json is not None:
        write_json(to_json, told or report.to_json())
    if to_csv is not None:
        rows = report.csv_rows()
        write_csv(to_csv, list(rows[0]), [list(row.values()) for row in rows])


def read_score(path: Path) -> dict[str, Any]:
    """A score written by `write_score`."""
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told
