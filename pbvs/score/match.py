"""Which scoring rule reproduces the real board: all combinations of what was left unsaid are tried.

Unsaid are the Inception layer and how images come to its size, a weight inside the arctan, the range of the
images that LPIPS is given, and the pixel term. From submissions whose board scores are known, each
combination gives scores of its own; what comes nearest is told, and how clearly it stands out. A board rounds
to two decimals, so several combinations may explain it equally well: then that is the answer, until more
scores are known.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from pbvs.core import pixels
from pbvs.core.challenge import FID_LAYERS, TASKS
from pbvs.core.errors import ScoreError, UsageError, did_you_mean
from pbvs.perceptual.inception import RESIZE_RULES, ResizeRule
from pbvs.perceptual.pixel_errors import l1, l2
from pbvs.perceptual.precision import full_precision
from pbvs.score.feature_cache import Stored8
from pbvs.score.frechet import frechet_distance
from pbvs.score.pairing import matched, pair_by_stem, read_pairs
from pbvs.score.rules import task_score
from pbvs.score.scorer import Scorer

LpipsRange = Literal["[-1,1]", "[0,1]"]
PixelTerm = Literal["l1", "l2"]
# 1 is what the published formula says; the others are there because the organisers speak of a weight.
ARCTAN_WEIGHTS = (
    1.0,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
)
BOARD_ROUNDING = 0.005  # half of the last decimal that boards show

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Submission:
    """Folders of task folders that were submitted, with what the board said: scores by task."""

    name: str
    predictions: Path
    targets: Path
    board: Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """One way to score; `score` of the means of a task's measures."""

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


@dataclass(frozen=True)
class Measured:
    """One task of one submission: FID by resize rule and layer, mean LPIPS by range, mean L1 and L2."""

    fid: Mapping[tuple[ResizeRule, int], float]
    lpips: Mapping[LpipsRange, float]
    l1: float
    l2: float


@dataclass(frozen=True)
class Match:
    """A rule beside the board.

    Attributes:
        rule: the rule.
        error: root mean square of its scores less the board's.
        largest: the largest of these differences, without sign.
        scores: its scores, by submission and task.
    """

    rule: Rule
    error: float
    largest: float
    scores: Mapping[str, Mapping[str, float]]

    @property
    def explains(self) -> bool:
        """Whether rounding alone may make all the difference."""
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

    The file is TOML: for each submission a table `[[submission]]` with `predictions`, `targets` (folders,
    relative to the file; task folders in them), if wanted `name`, and `board = { sar2eo = 0.12, ... }`.

    Raises:
        UsageError: the file is missing or no TOML, or says something else.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the submissions cannot be read: {error}", where=path) from error
    tables = told.get("submission")
    if set(told) != {"submission"} or not isinstance(tables, list) or not tables:
        raise UsageError(
            "the file holds no [[submission]]", where=path, next_step="`pbvs match --help` shows one"
        )
    return [_submission(table, n, path) for n, table in enumerate(tables, start=1)]


def _submission(table: Any, number: int, path: Path) -> Submission:
    where = f"{path}, submission {number}"
    wanted = {"predictions", "targets", "board"}
    if not isinstance(table, dict) or not wanted <= set(table) <= wanted | {"name"}:
        raise UsageError(f"a submission has {', '.join(sorted(wanted))} and may have a name", where=where)
    board = table["board"]
    if not isinstance(board, dict) or not board:
        raise UsageError("board gives scores by task", where=where, next_step="board = { sar2eo = 0.12 }")
    for task, score in board.items():
        if task not in TASKS:
            raise UsageError(f"unknown task {task!r}", where=where, next_step=did_you_mean(task, list(TASKS)))
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 3:
            raise UsageError(f"{task}'s score on the board is no number of 0 to 3", where=where)
    made, real = (path.parent / str(table[key]) for key in ("predictions", "targets"))
    name = str(table.get("name", f"submission {number}"))
    return Submission(name, made, real, {task: float(score) for task, score in board.items()})


def match_board(
    judge: Scorer, submissions: Sequence[Submission], progress: Progress | None = None
) -> list[Match]:
    """Every rule, the best first; of equal ones those that say least (weight 1, [-1,1], pytorch-fid) first.

    Args:
        judge: the networks; its memory is not used.
        submissions: what was submitted.
        progress: told (pairs done, pairs in all).

    Raises:
        UsageError, ScoreError, ImageError: folders do not exist, do not pair, or hold what cannot be scored.
    """
    pairs = {
        (one.name, n, task): pair_by_stem(one.predictions / task, one.targets / task)
        for n, one in enumerate(submissions)
        for task in one.board
    }
    few = [f"{name} {task}" for (name, _, task), found in pairs.items() if len(found) < 2]
    if few:
        raise ScoreError(f"FID needs at least 2 images; fewer are in {', '.join(few)}")
    n_all, n_done = sum(map(len, pairs.values())), 0
    measured: dict[tuple[int, str], Measured] = {}
    for (_, n, task), found in pairs.items():
        rows = []
        for name, made, real in read_pairs(found):
            rows.append(_measure(judge, matched(name, made, real), real))
            n_done += 1
            if progress:
                progress(n_done, n_all)
        measured[n, task] = _means(rows)
    return sorted((_match(rule, submissions, measured) for rule in _rules()), key=lambda match: match.error)


def _rules() -> Iterator[Rule]:
    ranges, terms = get_args(LpipsRange), get_args(PixelTerm)
    for weight, lpips_range, resize, layer, term in product(
        ARCTAN_WEIGHTS, ranges, RESIZE_RULES, FID_LAYERS, terms
    ):
        yield Rule(layer, resize, weight, lpips_range, term)


@dataclass(frozen=True)
class _Row:
    made: Mapping[ResizeRule, Mapping[int, torch.Tensor]]
    real: Mapping[ResizeRule, Mapping[int, torch.Tensor]]
    lpips: Mapping[LpipsRange, float]
    l1: float
    l2: float


@torch.inference_mode()
def _measure(judge: Scorer, made: Stored8, real: Stored8) -> _Row:
    levels = [pixels.float255_from_stored(image) for image in (made, real)]
    units = [pixels.unit_from_float255(x) for x in levels]
    features = [{rule: judge.inception(unit, rule) for rule in RESIZE_RULES} for unit in units]
    ranges: dict[LpipsRange, list[torch.Tensor]] = {
        "[-1,1]": [pixels.normalize(x) for x in levels],
        "[0,1]": units,
    }
    with full_precision(judge.device):
        lpips = {
            name: float(judge.lpips(*(x.to(judge.device) for x in images))) for name, images in ranges.items()
        }
    exact = [x / pixels.WHITE for x in levels]
    return _Row(features[0], features[1], lpips, float(l1(*exact)), float(l2(*exact)))


def _means(rows: Sequence[_Row]) -> Measured:
    fid = {
        (rule, layer): frechet_distance(
            *(
                np.stack([side[rule][layer][0].float().numpy() for side in sides])
                for sides in ([row.made for row in rows], [row.real for row in rows])
            )
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
        for task, told in submission.board.items():
            found = rule.score(measured[n, task])
            scores.setdefault(submission.name, {})[task] = found
            differences.append(found - told)
    error = math.sqrt(float(np.mean(np.square(differences))))
    return Match(rule, error, max(map(abs, differences)), scores)


def verdict(matches: Sequence[Match]) -> str:
    """What the matches tell, in a line or two: what explains the board, and how clearly."""
    explaining = [match for match in matches if match.explains]
    best = matches[0]
    if not explaining:
        return (
            f"no rule explains the board: the best one is off by {best.largest:.4f}, "
            f"and a board's rounding makes {BOARD_ROUNDING}. Are these the images that were submitted?"
        )
    if len(explaining) > 1:
        shared = [
            f"{key} {values.pop()}"
            for key in asdict(best.rule)
            if len(values := {asdict(match.rule)[key] for match in explaining}) == 1
        ]
        common = f"; all of them have {', '.join(shared)}" if shared else ""
        return (
            f"{len(explaining)} of {len(matches)} rules explain the board within its rounding{common}. "
            "Scores of more submissions, and of unlike ones, tell them apart"
        )
    behind = matches[1].error / best.error if best.error else math.inf
    return f"one rule explains the board; the next is off by {behind:.1f} times as much"
