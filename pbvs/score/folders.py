"""Scores of folders of images, and of folders of task folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pbvs.core.challenge import TASKS
from pbvs.core.errors import ScoreError, UsageError, did_you_mean
from pbvs.core.process_group import SINGLE_PROCESS, ProcessGroup
from pbvs.core.types import Progress
from pbvs.score.pairing import ImagePair, check_headers, check_number, pair_by_stem
from pbvs.score.results import ScoreReport
from pbvs.score.rules import ScoreConfig
from pbvs.score.scorer import DEFAULT_CONFIG, Scorer


def score_folder(
    scorer: Scorer,
    task: str,
    pred_dir: Path,
    target_dir: Path,
    config: ScoreConfig = DEFAULT_CONFIG,
    *,
    progress: Progress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> ScoreReport:
    """Scores one task's folder of predictions against its folder of targets, paired by stem.

    Args:
        scorer: the networks.
        task: one of the four; the other three count as missing in the report.
        pred_dir, target_dir: folders of PNGs and TIFFs.
        config: rules, FID layer and arctan weight.
        progress: called with (pairs done, total) of this process.
        group: this process among those that make the same call.

    Raises:
        UsageError: unknown task, or a folder that does not exist.
        ScoreError: the folders do not pair, fewer than 2 images, or images that cannot be compared.
        ImageError: an image cannot be read.
    """
    _check_tasks([task])
    return _score_all(scorer, {task: _pairs_of(task, pred_dir, target_dir)}, config, progress, group)


def score_folders(
    scorer: Scorer,
    pred_root: Path,
    target_root: Path,
    tasks: Sequence[str] | None = None,
    config: ScoreConfig = DEFAULT_CONFIG,
    *,
    progress: Progress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> ScoreReport:
    """Scores folders of task folders (`sar2eo`, `sar2rgb`, `rgb2ir`, `sar2ir`).

    Every folder is paired before any network runs. A task of the four without targets, or without a folder
    of predictions, counts as missing.

    Args:
        scorer: the networks.
        pred_root, target_root: the folders of the task folders.
        tasks: the tasks to score; None for all four.
        config: rules, FID layer and arctan weight.
        progress: called with (pairs done, total) of this process, over all tasks.
        group: this process among those that make the same call.

    Raises:
        UsageError: unknown task, or a root that does not exist.
        ScoreError: predictions of a task without targets, no task to score, or as `score_folder`.
        ImageError: an image cannot be read.
    """
    wanted = list(TASKS if tasks is None else tasks)
    _check_tasks(wanted)
    for root in (pred_root, target_root):
        if not root.is_dir():
            raise UsageError("the folder does not exist", where=root)
    predicted = [task for task in wanted if (pred_root / task).is_dir()]
    if without_targets := [task for task in predicted if not (target_root / task).is_dir()]:
        raise ScoreError(
            f"predictions without targets: {', '.join(without_targets)}",
            where=target_root,
            next_step="add the targets, or name the tasks to score",
        )
    if not predicted:
        raise ScoreError(
            f"no folder of predictions is named as a task ({', '.join(wanted)})",
            where=pred_root,
            next_step="name the folder of the task folders, or one task's folder with --task",
        )
    pairs = {task: _pairs_of(task, pred_root / task, target_root / task) for task in predicted}
    return _score_all(scorer, pairs, config, progress, group)


def _score_all(
    scorer: Scorer,
    tasks: Mapping[str, Sequence[ImagePair]],
    config: ScoreConfig,
    progress: Progress | None,
    group: ProcessGroup,
) -> ScoreReport:
    n_pairs = sum(len(group.of(pairs)) for pairs in tasks.values())
    n_done, scores = 0, {}
    for task, pairs in tasks.items():
        task_progress = _offset_progress(progress, n_done, n_pairs)
        scores[task] = scorer.score_together(pairs, group, config, progress=task_progress)
        n_done += len(group.of(pairs))
    return scorer.report(scores, config)


def _offset_progress(progress: Progress | None, n_before: int, total: int) -> Progress | None:
    """Progress of one task as progress over all tasks."""
    if progress is None:
        return None
    return lambda done, _: progress(n_before + done, total)


def _pairs_of(task: str, pred_dir: Path, target_dir: Path) -> list[ImagePair]:
    pairs = pair_by_stem(pred_dir, target_dir)
    check_number(len(pairs), task)
    check_headers(pairs)
    return pairs


def _check_tasks(tasks: Sequence[str]) -> None:
    for task in tasks:
        if task not in TASKS:
            raise UsageError("unknown task", where=task, next_step=did_you_mean(task, list(TASKS)))
