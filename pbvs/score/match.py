"""Which scoring rule reproduces the real board: tries all combinations of the unpublished choices.

Unpublished are the Inception layer and the resizing of its input, a weight inside the arctan, the range of
the images that LPIPS gets, and the pixel term. From submissions with known board scores, each combination
yields its own scores; the result is the closest combination, and how clearly it is the best. A board rounds
to two decimals, so several combinations may reproduce it equally well; more scores are then needed to decide.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from pbvs.core import pixels
from pbvs.core.challenge import FID_LAYERS, TASKS
from pbvs.core.errors import ScoreError, UsageError, did_you_mean
from pbvs.core.types import Image8, Progress
from pbvs.perceptual.inception import RESIZE_RULES, ResizeRule
from pbvs.perceptual.pixel_errors import l1, l2
from pbvs.perceptual.precision import full_precision
from pbvs.score.frechet import frechet_distance
from pbvs.score.pairing import fit_to_target, pair_by_stem, read_pairs
from pbvs.score.rules import task_score
from pbvs.score.scorer import Scorer

LpipsRange = Literal["[-1,1]", "[0,1]"]
PixelTerm = Literal["l1", "l2"]
# 1 is the published formula; the others are candidates because the organisers mention a weight.
ARCTAN_WEIGHTS = (1.0, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
BOARD_ROUNDING = 0.005  # half of the last decimal that boards show


@dataclass(frozen=True)
class Submission:
    """Folders of task folders that were submitted, and their board scores by task."""

    name: str
    predictions: Path
    targets: Path
    board: Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """One way to score; `score` takes the means of a task's metrics."""

    fid_layer: int
    resize: ResizeRule
    arctan_weight: float
    lpips_range: LpipsRange
    pixel_term: PixelTerm

    def score(self, measured: Measured) -> float:
        """One task's score by this rule."""
        pixel = measured.l1 if self.pixel_term == "l1" else measured.l2
        fid = measured.fid[self.resize, self.fid_layer]
        return task_score(fid, measured.lpips[self.lpips_range], pixel, self.arctan_weight)


# The simplest choices first (weight 1, [-1,1], pytorch-fid): the order of rules with equal errors.
RULES = tuple(
    Rule(layer, resize, weight, lpips_range, term)
    for weight, lpips_range, resize, layer, term in product(
        ARCTAN_WEIGHTS, get_args(LpipsRange), RESIZE_RULES, FID_LAYERS, get_args(PixelTerm)
    )
)


@dataclass(frozen=True)
class Measured:
    """One task of one submission: FID by resize rule and layer, mean LPIPS by range, mean L1 and L2."""

    fid: Mapping[tuple[ResizeRule, int], float]
    lpips: Mapping[LpipsRange, float]
    l1: float
    l2: float


@dataclass(frozen=True)
class Match:
    """A rule compared to the board.

    Attributes:
        rule: the rule.
        error: root mean square of the differences between its scores and the board's.
        largest: the largest absolute difference.
        scores: its scores, by submission and task.
    """

    rule: Rule
    error: float
    largest: float
    scores: Mapping[str, Mapping[str, float]]

    @property
    def reproduces_board(self) -> bool:
        """Whether rounding alone can account for all differences."""
        return self.largest <= BOARD_ROUNDING

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            **asdict(self.rule),
            "error": self.error,
            "largest": self.largest,
            "scores": dict(self.scores),
        }


def read_submissions(path: Path) -> list[Submission]:
    """Reads the submissions and their board scores.

    The file is TOML: one table `[[submission]]` per submission with `predictions`, `targets` (folders of task
    folders, relative to the file), optionally `name`, and `board = { sar2eo = 0.12, ... }`.

    Raises:
        UsageError: the file is missing, is no TOML, or has other contents.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the submissions cannot be read: {error}", where=path) from error
    tables = document.get("submission")
    if set(document) != {"submission"} or not isinstance(tables, list) or not tables:
        raise UsageError(
            "the file holds no [[submission]]", where=path, next_step="`pbvs match --help` has an example"
        )
    return [_parse_submission(table, n, path) for n, table in enumerate(tables, start=1)]


def _parse_submission(table: Any, number: int, path: Path) -> Submission:
    where = f"{path}, submission {number}"
    required = {"predictions", "targets", "board"}
    if not isinstance(table, dict) or not required <= set(table) <= required | {"name"}:
        raise UsageError(f"a submission has {', '.join(sorted(required))} and may have a name", where=where)
    board = table["board"]
    if not isinstance(board, dict) or not board:
        raise UsageError("board has no scores by task", where=where, next_step="board = { sar2eo = 0.12 }")
    for task, score in board.items():
        if task not in TASKS:
            raise UsageError(f"unknown task {task!r}", where=where, next_step=did_you_mean(task, list(TASKS)))
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 3:
            raise UsageError(f"{task}'s score on the board is not a number from 0 to 3", where=where)
    predictions, targets = (path.parent / str(table[key]) for key in ("predictions", "targets"))
    name = str(table.get("name", f"submission {number}"))
    return Submission(name, predictions, targets, {task: float(score) for task, score in board.items()})


def match_board(
    scorer: Scorer, submissions: Sequence[Submission], progress: Progress | None = None
) -> list[Match]:
    """Every rule, the best first; of equal ones the simplest (weight 1, [-1,1], pytorch-fid) first.

    Args:
        scorer: the networks; its cache is not used.
        submissions: predictions and targets with their board scores.
        progress: called with (pairs done, total).

    Raises:
        UsageError, ScoreError, ImageError: folders do not exist, do not pair, or hold unusable images.
    """
    pairs = {
        (n, task): pair_by_stem(one.predictions / task, one.targets / task)
        for n, one in enumerate(submissions)
        for task in one.board
    }
    if few := [f"{submissions[n].name} {task}" for (n, task), found in pairs.items() if len(found) < 2]:
        raise ScoreError(f"FID needs at least 2 images; fewer are in {', '.join(few)}")
    n_pairs, n_done = sum(map(len, pairs.values())), 0
    measured: dict[tuple[int, str], Measured] = {}
    for key, found in pairs.items():
        rows = []
        for name, pred, target in read_pairs(found):
            rows.append(_measure(scorer, fit_to_target(name, pred, target), target))
            n_done += 1
            if progress:
                progress(n_done, n_pairs)
        measured[key] = _means(rows)
    return sorted((_match(rule, submissions, measured) for rule in RULES), key=lambda match: match.error)


@dataclass(frozen=True)
class _Row:
    """One pair: features of both by resize rule and layer, LPIPS by range, L1 and L2."""

    pred: Mapping[ResizeRule, Mapping[int, torch.Tensor]]
    target: Mapping[ResizeRule, Mapping[int, torch.Tensor]]
    lpips: Mapping[LpipsRange, float]
    l1: float
    l2: float


@torch.inference_mode()
def _measure(scorer: Scorer, pred: Image8, target: Image8) -> _Row:
    float255 = [pixels.float255_from_stored(image) for image in (pred, target)]
    unit = [pixels.unit_from_float255(x) for x in float255]
    features = [{rule: scorer.inception(x, rule) for rule in RESIZE_RULES} for x in unit]
    inputs: dict[LpipsRange, list[torch.Tensor]] = {
        "[-1,1]": [pixels.normalize(x) for x in float255],
        "[0,1]": unit,
    }
    with full_precision(scorer.device):
        lpips = {
            name: float(scorer.lpips(*(x.to(scorer.device) for x in pair))) for name, pair in inputs.items()
        }
    exact = [x / pixels.WHITE for x in float255]  # float64
    return _Row(features[0], features[1], lpips, float(l1(*exact)), float(l2(*exact)))


def _means(rows: Sequence[_Row]) -> Measured:
    fid = {
        (rule, layer): frechet_distance(
            np.stack([row.pred[rule][layer][0].float().numpy() for row in rows]),
            np.stack([row.target[rule][layer][0].float().numpy() for row in rows]),
        )
        for rule in RESIZE_RULES
        for layer in FID_LAYERS
    }
    lpips = {name: float(np.mean([row.lpips[name] for row in rows])) for name in rows[0].lpips}
    return Measured(
        fid, lpips, float(np.mean([row.l1 for row in rows])), float(np.mean([row.l2 for row in rows]))
    )


def _match(
    rule: Rule, submissions: Sequence[Submission], measured: Mapping[tuple[int, str], Measured]
) -> Match:
    differences: list[float] = []
    scores: dict[str, dict[str, float]] = {}
    for n, submission in enumerate(submissions):
        for task, board_score in submission.board.items():
            score = rule.score(measured[n, task])
            scores.setdefault(submission.name, {})[task] = score
            differences.append(score - board_score)
    error = math.sqrt(float(np.mean(np.square(differences))))
    return Match(rule, error, max(map(abs, differences)), scores)


def summarize_matches(matches: Sequence[Match]) -> str:
    """A summary in a line or two: which rules reproduce the board, and how clearly."""
    reproducing = [match for match in matches if match.reproduces_board]
    best = matches[0]
    if not reproducing:
        return (
            f"no rule reproduces the board: the best one is off by {best.largest:.4f}, more than the board's "
            f"rounding of {BOARD_ROUNDING}. Are these the images that were submitted?"
        )
    if len(reproducing) > 1:
        shared = [
            f"{key} {values.pop()}"
            for key in asdict(best.rule)
            if len(values := {asdict(match.rule)[key] for match in reproducing}) == 1
        ]
        common = f"; all of them have {', '.join(shared)}" if shared else ""
        return (
            f"{len(reproducing)} of {len(matches)} rules reproduce the board within its rounding{common}. "
            "Scores of more and different submissions are needed to decide between them"
        )
    ratio = matches[1].error / best.error if best.error else math.inf
    return f"one rule reproduces the board; the error of the next one is {ratio:.1f} times as large"
