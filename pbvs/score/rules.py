"""The challenge's scoring rules, and its published leaderboards, as data. Lower is better everywhere.

task score    = ((2/pi) * arctan(w * FID) + LPIPS + P) / 3
overall score = (sum of the attempted tasks' scores) / 4 + 1 for each task not attempted
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pbvs.core.challenge import FID_LAYERS, TASKS
from pbvs.core.errors import UsageError, did_you_mean

# Which layer the organisers use is not published; only the 64-d one can produce the boards' low scores.
DEFAULT_FID_LAYER = 64


@dataclass(frozen=True)
class Rules:
    """One year's rule: which pixel error is P, and its source."""

    name: str
    pixel_term: Literal["l1", "l2"]
    source: str


RULES = {
    "2024": Rules(
        "2024", "l2", "the winning solution of 2024, equation 5, as root mean square error in [0,1]"
    ),
    "2026": Rules("2026", "l1", "the organisers' evaluation page of 2026: mean absolute error in [0,1]"),
}


def rules_named(name: str) -> Rules:
    """The rules of the year `name`.

    Raises:
        UsageError: no such rules.
    """
    if name not in RULES:
        raise UsageError("unknown scoring rules", where=name, next_step=did_you_mean(name, list(RULES)))
    return RULES[name]


@dataclass(frozen=True)
class ScoreConfig:
    """How a score is computed.

    Args:
        rules: the year.
        fid_layer: the Inception layer of the score's FID, by its number of features.
        arctan_weight: see `task_score`.

    Raises:
        UsageError: unknown rules or layer, or a weight that is not a finite number above 0.
    """

    rules: str = "2024"
    fid_layer: int = DEFAULT_FID_LAYER
    arctan_weight: float = 1.0

    def __post_init__(self) -> None:
        rules_named(self.rules)
        if self.fid_layer not in FID_LAYERS:
            layers = ", ".join(map(str, FID_LAYERS))
            raise UsageError("unknown FID layer", where=str(self.fid_layer), next_step=f"known: {layers}")
        if not (self.arctan_weight > 0 and math.isfinite(self.arctan_weight)):
            raise UsageError(f"the arctan weight must be a number above 0, not {self.arctan_weight}")

    @property
    def pixel_term(self) -> Literal["l1", "l2"]:
        """The pixel error that is P."""
        return rules_named(self.rules).pixel_term

    def score(self, fid: float, lpips: float, l1: float, l2: float) -> float:
        """One task's score from its means."""
        pixel = l1 if self.pixel_term == "l1" else l2
        return task_score(fid, lpips, pixel, self.arctan_weight)


def task_score(fid: float, lpips: float, pixel: float, arctan_weight: float = 1.0) -> float:
    """One task's score.

    Args:
        fid: >= 0, at the config's layer.
        lpips: mean over the images.
        pixel: L1 or L2 in [0,1], mean over the images.
        arctan_weight: `w` above; the organisers mention a weight but publish none.
    """
    return (2.0 / math.pi * math.atan(arctan_weight * fid) + lpips + pixel) / 3.0


def overall(scores: Mapping[str, float]) -> float:
    """The overall score from the scores of the attempted tasks; the others of the four cost 1 each.

    Raises:
        UsageError: an unknown task.
    """
    for task in scores:
        if task not in TASKS:
            raise UsageError("unknown task", where=task, next_step=did_you_mean(task, list(TASKS)))
    return sum(scores.values()) / len(TASKS) + (len(TASKS) - len(scores))


@dataclass(frozen=True)
class BoardRow:
    """One published row: the team or user, the combined score and the four tasks' scores."""

    team: str
    combined: float
    scores: Mapping[str, float]


def _row(team: str, combined: float, *scores: float) -> BoardRow:
    return BoardRow(team, combined, dict(zip(TASKS, scores, strict=True)))


# The winning solution of 2024, Table 1: the test leaderboard. P = L2.
PUBLISHED_2024 = (
    _row("NJUST-KMG", 0.32, 0.08, 0.55, 0.16, 0.51),
    _row("USTC-IAT-United", 0.33, 0.10, 0.54, 0.17, 0.52),
    _row("up6", 0.35, 0.12, 0.56, 0.19, 0.54),
    _row("wangzhiyu918", 0.36, 0.11, 0.54, 0.22, 0.55),
    _row("hsansui", 0.40, 0.10, 0.57, 0.36, 0.58),
    _row("lemonGJacky", 0.40, 0.33, 0.57, 0.19, 0.53),
)

# The rows of the 2026 board that were public. P = L1: not comparable with 2024's.
PUBLISHED_2026 = (
    _row("wangzhiyu918", 0.32, 0.11, 0.50, 0.20, 0.49),
    _row("bilisakura (EarthBridge)", 0.41, 0.27, 0.58, 0.20, 0.60),
    _row("shadowchaser2", 0.42, 0.33, 0.60, 0.21, 0.53),
    _row("pshradha", 0.51, 0.51, 0.56, 0.42, 0.55),
    _row("StagAI", 0.56, 0.52, 0.68, 0.42, 0.64),
)

PUBLISHED = {"2024": PUBLISHED_2024, "2026": PUBLISHED_2026}
