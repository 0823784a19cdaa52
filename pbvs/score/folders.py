"""The scores of folders of images, and of folders of task folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pbvs.core.challenge import TASKS
from pbvs.core.errors import ScoreError, UsageError, did_you_mean
from pbvs.core.process_group import SINGLE_PROCESS, ProcessGroup
from pbvs.score.pairing import ImagePair, check_headers, check_number, pair_by_stem
from pbvs.score.results import ScoreReport
from pbvs.score.rules import ScoreConfig
from pbvs.score.scorer import BY_DEFAULT, Progress, Scorer


def score_folder(
    judge: Scorer,
    task: str,
    pred_dir: Path,
    target_dir: Path,
    ranking: ScoreConfig = BY_DEFAULT,
    *,
    progress: Progress | None = None,
    share: ProcessGroup = SINGLE_PROCESS,
) -> ScoreReport:
    """Scores one task's folder of predictions against its folder of targets, paired by stem.

    Args:
        judge: the networks.
        task: one of the four; the other three count as missing in the report.
        pred_dir, target_dir: folders of PNGs and TIFFs.
        ranking: what makes the score.
        progress: told (pairs done, pairs in all), of this process's share.
        share: this process among several that call this alike.

    Raises:
        UsageError: unknown task, or a folder that does not exist.
        ScoreError: the folders do not pair, fewer than 2 images, or images that cannot be compared.
        ImageError: an image cannot be read.
    """
    _check_tasks([task])
    return _score_all(judge, {task: _pairs_of(task, pred_dir, target_dir)}, ranking, progress, share)


def score_folders(
    judge: Scorer,
    pred_root: Path,
    target_root: Path,
    tasks: Sequence[str] | None = None,
    ranking: ScoreConfig = BY_DEFAULT,
    *,
    progress: Progress | None = None,
    share: ProcessGroup = SINGLE_PROCESS,
) -> ScoreReport:
    """Scores folders of task folders (`sar2eo`, `sar2rgb`, `rgb2ir`, `sar2ir`).

    Every folder is paired before any network runs. A task of the four that has no targets, or no folder
    of predictions, counts as missing.

    Args:
        judge: the networks.
        pred_root, target_root: the folders that hold the task folders.
        tasks: look at these only; None for all four.
        ranking: what makes the scores.
        progress: told (pairs done, pairs in all), over all tasks, of this process's share.
        share: this process among several that call this alike.

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
    made, real = ([t for t in wanted if (root / t).is_dir()] for root in (pred_root, target_root))
    if homeless := [task for task in made if task not in real]:
        raise ScoreError(
            f"predictions without targets: {', '.join(homeless)}",
            where=target_root,
            next_step="add the targets, or name the tasks to score",
        )
    if not made:
        raise ScoreError(
            f"no folder of predictions is named as a task ({', '.join(wanted)})",
            where=pred_root,
            next_step="name the folder that holds the task folders, or one task's folder with --task",
        )
    pairs = {task: _pairs_of(task, pred_root / task, target_root / task) for task in made}
    return _score_all(judge, pairs, ranking, progress, share)


def _score_all(
    judge: Scorer,
    tasks: Mapping[str, Sequence[ImagePair]],
    ranking: ScoreConfig,
    progress: Progress | None,
    share: ProcessGroup,
) -> ScoreReport:
    n_all = sum(len(share.of(pairs)) for pairs in tasks.values())
    n_before, scores = 0, {}
    for task, pairs in tasks.items():
        told = _shifted(progress, n_before, n_all)
        scores[task] = judge.score_together(pairs, share, ranking, progress=told)
        n_before += len(share.of(pairs))
    return judge.report(scores, ranking)


def _shifted(progress: Progress | None, n_before: int, n_all: int) -> Progress | None:
    """One count over several tasks."""
    if progress is None:
        return None
    return lambda done, _: progress(n_before + done, n_all)


def _pairs_of(task: str, pred_dir: Path, target_dir: Path) -> list[ImagePair]:
    pairs = pair_by_stem(pred_dir, target_dir)
    check_number(len(pairs), task)
    check_headers(pairs)
    return pairs


def _check_tasks(tasks: Sequence[str]) -> None:
    for task in tasks:
        if task not in TASKS:
            raise UsageError("unknown task", where=task, next_step=did_you_mean(task, list(TASKS)))
