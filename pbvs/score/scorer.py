"""The scorer: the networks of FID and LPIPS, and the scores of pairs.

Pairs go through LPIPS one at a time, and through Inception in small groups at its own size, so the score does
not depend on a batch size, and memory grows with the number of pairs only by their features (25 kB each).
A pair of 1024 px takes 1 GB at its peak besides the networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pbvs.core import pixels
from pbvs.core.challenge import FID_LAYERS, TASKS
from pbvs.core.errors import PbvsError, ScoreError
from pbvs.core.process_group import ProcessGroup
from pbvs.core.types import Image8, Progress
from pbvs.perceptual.inception import InceptionFeatures
from pbvs.perceptual.lpips import BACKBONE_OF_NET, Net, PerceptualDistance
from pbvs.perceptual.metric_weights import WeightsKind
from pbvs.perceptual.pixel_errors import l1, l2
from pbvs.perceptual.precision import full_precision
from pbvs.score.extra_metrics import extra_metrics_of, mean_extra_metrics
from pbvs.score.feature_cache import DiskCache, FeatureCache, Rows, TargetFeatures, contents
from pbvs.score.interval import score_interval
from pbvs.score.pairing import ImagePair, check_number, fit_to_target, read_pairs
from pbvs.score.results import ImageRow, ScoreReport, TaskScore
from pbvs.score.rules import ScoreConfig
from pbvs.score.scored_set import ScoredSet

DEFAULT_CONFIG = ScoreConfig()
_GROUP_SIZE = 8  # images per pass of Inception, whose deep layers are small: half the time of one by one


class Scorer:
    """Holds the networks of FID and LPIPS.

    Args:
        kind: of the weights.
        net: of LPIPS; `vgg` is the challenge's.
        device: of the networks; pixel errors and distances are computed on the CPU in float64.
        memory: the cache of features and distances; None: the targets' features, for the scorer's lifetime.

    Attributes:
        with_extra_metrics: whether to compute `pbvs.score.extra_metrics` too; this doubles the cost.

    Raises:
        UsageError: unknown net.
        WeightsError: weights of this kind are unavailable.
    """

    def __init__(
        self,
        kind: WeightsKind,
        net: Net = "vgg",
        device: str | torch.device = "cpu",
        memory: FeatureCache | None = None,
    ):
        self.kind = kind
        self.memory: FeatureCache = memory or TargetFeatures()
        self.with_extra_metrics = False
        self._waiting: list[_Features] = []
        self.net = net
        self.device = torch.device(device)
        self.lpips = PerceptualDistance(kind, net).to(self.device)
        self.inception = InceptionFeatures(kind, self.device)

    @classmethod
    def with_disk_cache(
        cls, kind: WeightsKind, net: Net = "vgg", device: str | torch.device = "cpu"
    ) -> Scorer:
        """A scorer that caches its results in the user's cache folder, see `DiskCache`."""
        scorer = cls(kind, net, device)
        scorer.memory = DiskCache(scorer.identity)
        return scorer

    @property
    def identity(self) -> str:
        """Everything besides the images that features and distances depend on, in a line."""
        hashes = " ".join(f"{name} {sha256}" for name, sha256 in sorted(self.sha256.items()))
        return f"{hashes} {self.device.type} pytorch-fid"

    @property
    def sha256(self) -> dict[str, str]:
        """SHA-256 of each weight file in use, by name, and of LPIPS's heads."""
        return {
            "inception": self.inception.sha256,
            BACKBONE_OF_NET[self.net]: self.lpips.sha256,
            "lpips_heads": self.lpips.heads_sha256,
        }

    def score_pairs(
        self,
        pairs: Iterable[tuple[str, Image8, Image8]],
        config: ScoreConfig = DEFAULT_CONFIG,
        *,
        n_pairs: int | None = None,
        progress: Progress | None = None,
    ) -> TaskScore:
        """Scores pairs from an iterator; each is released before the next one is read.

        Args:
            pairs: name, prediction and target, `H,W,1|3 uint8` in RGB order. A prediction of another
                size is resampled to its target's. One band against three is repeated; three equal
                bands against one count as one.
            config: rules, FID layer and arctan weight.
            n_pairs: the total for `progress`; None if unknown.
            progress: called with (pairs done, total, or done if unknown).

        Raises:
            ScoreError: fewer than 2 pairs, or an image of other type or bands; names it.
        """
        return self._accumulate(pairs, n_pairs, progress).task_score(config)

    def score_together(
        self,
        pairs: Sequence[ImagePair],
        group: ProcessGroup,
        config: ScoreConfig = DEFAULT_CONFIG,
        *,
        progress: Progress | None = None,
    ) -> TaskScore:
        """Scores files together with other processes that make the same call; each gets the whole score.

        `progress` counts this process's part. Errors as `score_pairs`, and:

        Raises:
            ImageError: an image cannot be read.
            ScoreError: an image has 16 bits, or another process failed.
        """
        mine = group.of(pairs)
        error, own = None, _Accumulator()
        try:
            own = self._accumulate(read_pairs(mine), len(mine), progress)
        except PbvsError as caught:
            error = caught
        gathered = group.gather((own, error and (error.what, error.where)))
        if error is not None:
            raise error
        for rank, (_, failure) in enumerate(gathered):
            if failure is not None:
                raise ScoreError(f"process {rank}: {failure[0]}", where=failure[1])
        return _Accumulator.merged([accumulator for accumulator, _ in gathered]).task_score(config)

    def report(self, tasks: Mapping[str, TaskScore], config: ScoreConfig = DEFAULT_CONFIG) -> ScoreReport:
        """The report on scores of this scorer with `config`, tasks in the challenge's order."""
        ordered = {task: tasks[task] for task in TASKS if task in tasks}
        return ScoreReport(config, self.kind, self.sha256, self.net, ordered)

    def _accumulate(
        self,
        pairs: Iterable[tuple[str, Image8, Image8]],
        n_pairs: int | None,
        progress: Progress | None,
    ) -> _Accumulator:
        accumulator = _Accumulator()
        self._waiting = []  # left over from a failed scoring
        for name, prediction, target in pairs:
            self._add_pair(accumulator, name, prediction, target)
            if progress:
                n_done = len(accumulator.rows)
                progress(n_done, n_done if n_pairs is None else n_pairs)
        self._compute_features()
        return accumulator

    @torch.inference_mode()
    def _add_pair(self, accumulator: _Accumulator, name: str, prediction: Image8, target: Image8) -> None:
        fitted = fit_to_target(name, prediction, target)
        pred255, target255 = (pixels.float255_from_stored(image) for image in (fitted, target))
        keys = contents(fitted), contents(target)
        accumulator.pred.append(self._features(keys[0], pred255, is_target=False))
        accumulator.target.append(self._features(keys[1], target255, is_target=True))
        lpips = self.memory.distance(*keys)
        if lpips is None:
            with full_precision(self.device):
                inputs = (pixels.normalize(x).to(self.device) for x in (pred255, target255))
                lpips = float(self.lpips(*inputs))
            self.memory.keep_distance(*keys, lpips)
        unit = pred255 / pixels.WHITE, target255 / pixels.WHITE  # float64
        extra = extra_metrics_of(fitted, target) if self.with_extra_metrics else {}
        accumulator.rows.append(ImageRow(name, lpips, float(l1(*unit)), float(l2(*unit)), extra))
        accumulator.sizes_px[target.shape[:2]] += 1
        accumulator.n_resampled += prediction.shape[:2] != target.shape[:2]

    def _features(self, key: bytes, float255: torch.Tensor, *, is_target: bool) -> _Features:
        """The features of an image, cached or to be computed together with those of others."""
        features = _Features(key, is_target, self.memory.features(key))
        if features.rows is None:
            features.resized = self.inception.resized(pixels.unit_from_float255(float255))
            self._waiting.append(features)
        if len(self._waiting) >= _GROUP_SIZE:
            self._compute_features()
        return features

    def _compute_features(self) -> None:
        waiting, self._waiting = self._waiting, []
        inputs = [one.resized for one in waiting if one.resized is not None]
        if not inputs:
            return
        features = self.inception.of_resized(torch.cat(inputs))
        for i, one in enumerate(waiting):
            # The network's own type: lossless, and half the memory of float64.
            one.rows = {layer: features[layer][i].float().numpy() for layer in FID_LAYERS}
            one.resized = None
            self.memory.keep_features(one.key, one.rows, is_target=one.is_target)


@dataclass
class _Features:
    """One image's features; `resized` is the network's input until they are computed."""

    key: bytes
    is_target: bool
    rows: Rows | None = None
    resized: torch.Tensor | None = None


class _Accumulator:
    """The results of the pairs so far."""

    def __init__(self) -> None:
        self.rows: list[ImageRow] = []
        self.sizes_px: Counter[tuple[int, ...]] = Counter()
        self.n_resampled = 0
        self.pred: list[_Features] = []
        self.target: list[_Features] = []

    @classmethod
    def merged(cls, parts: Sequence[_Accumulator]) -> _Accumulator:
        """All parts as one."""
        whole = cls()
        for part in parts:
            whole.rows += part.rows
            whole.sizes_px += part.sizes_px
            whole.n_resampled += part.n_resampled
            whole.pred += part.pred
            whole.target += part.target
        return whole

    def task_score(self, config: ScoreConfig) -> TaskScore:
        """The score of all pairs; ScoreError for fewer than 2."""
        check_number(len(self.rows), None)
        pred, target = (_stack_by_layer(side) for side in (self.pred, self.target))
        terms = np.array([(row.lpips, row.l1, row.l2) for row in self.rows])
        scored = ScoredSet(tuple(row.name for row in self.rows), pred, target, terms).by_name()
        lpips, l1_mean, l2_mean = scored.means()
        fid = {layer: scored.fid(layer) for layer in FID_LAYERS}
        scores = {layer: config.score(fid[layer], lpips, l1_mean, l2_mean) for layer in FID_LAYERS}
        height, width = self.sizes_px.most_common(1)[0][0]
        return TaskScore(
            images=len(scored),
            size_px=(height, width),
            n_sizes=len(self.sizes_px),
            n_resampled=self.n_resampled,
            fid=fid,
            lpips=lpips,
            l1=l1_mean,
            l2=l2_mean,
            score=scores[config.fid_layer],
            score_by_layer=scores,
            interval95=score_interval(scored, config),
            extra_metrics=mean_extra_metrics([row.extra_metrics for row in self.rows]),
            per_image=tuple(sorted(self.rows, key=lambda row: row.name)),
            scored_set=scored,
        )


def _stack_by_layer(side: Sequence[_Features]) -> dict[int, NDArray[np.float32]]:
    rows = [one.rows for one in side if one.rows is not None]
    assert len(rows) == len(side)
    return {layer: np.stack([row[layer] for row in rows]) for layer in FID_LAYERS}
