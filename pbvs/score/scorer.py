"""The judge: both feature networks, and the scores of pairs.

Pairs go through LPIPS one at a time, and through Inception in small groups at its own size, so the score does
not depend on a batch size, and memory depends on the number of images only by their features (25 kB a pair).
A pair of 1024 px takes 1 GB at its peak beside the networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pbvs.core import pixels
from pbvs.core.challenge import FID_LAYERS, TASKS
from pbvs.core.errors import PbvsError, ScoreError
from pbvs.core.process_group import ProcessGroup
from pbvs.perceptual.inception import InceptionFeatures
from pbvs.perceptual.lpips import BACKBONE_OF_NET, Net, PerceptualDistance
from pbvs.perceptual.metric_weights import WeightsKind
from pbvs.perceptual.pixel_errors import l1, l2
from pbvs.perceptual.precision import full_precision
from pbvs.score.extra_metrics import extra_metrics_of, mean_extra_metrics
from pbvs.score.feature_cache import FileMemory, Memory, Rows, Stored8, TargetFeatures, contents
from pbvs.score.interval import score_interval
from pbvs.score.pairing import ImagePair, check_number, matched, read_pairs
from pbvs.score.results import ImageRow, ScoreReport, TaskScore
from pbvs.score.rules import ScoreConfig
from pbvs.score.scored_set import ScoredSet

Progress = Callable[[int, int], None]
BY_DEFAULT = ScoreConfig()
_AT_ONCE = 8  # images in one pass of Inception, whose deep layers are small: half the time of one by one


class Scorer:
    """Holds the networks of FID and LPIPS.

    Args:
        kind: of the weights.
        net: of LPIPS; `vgg` is the challenge's.
        device: where the networks run; pixel errors and distances are computed on the CPU in float64.
        memory: what is remembered of images; None: the targets' features, as long as the judge lives.

    Attributes:
        takes_columns: whether the metrics of `pbvs.score.extra_metrics` are taken too; this doubles the cost.

    Raises:
        UsageError: unknown net.
        WeightsError: weights of this kind are not to be had.
    """

    def __init__(
        self,
        kind: WeightsKind,
        net: Net = "vgg",
        device: str | torch.device = "cpu",
        memory: Memory | None = None,
    ):
        self.kind = kind
        self.memory: Memory = memory or TargetFeatures()
        self.takes_columns = False
        self._waiting: list[_Features] = []
        self.net = net
        self.device = torch.device(device)
        self.lpips = PerceptualDistance(kind, net).to(self.device)
        self.inception = InceptionFeatures(kind, self.device)

    @classmethod
    def remembering(cls, kind: WeightsKind, net: Net = "vgg", device: str | torch.device = "cpu") -> Scorer:
        """A judge that keeps what it computes in the user's cache folder, see `FileMemory`."""
        judge = cls(kind, net, device)
        judge.memory = FileMemory(judge.identity)
        return judge

    @property
    def identity(self) -> str:
        """All that decides features and distances beside the images, in a line."""
        hashes = " ".join(f"{name} {sha256}" for name, sha256 in sorted(self.sha256.items()))
        return f"{hashes} {self.device.type} pytorch-fid"

    @property
    def sha256(self) -> dict[str, str]:
        """SHA-256 of each weight file in use, by judge, and of LPIPS's heads."""
        return {
            "inception": self.inception.sha256,
            BACKBONE_OF_NET[self.net]: self.lpips.sha256,
            "lpips_heads": self.lpips.heads_sha256,
        }

    def score_pairs(
        self,
        pairs: Iterable[tuple[str, Stored8, Stored8]],
        ranking: ScoreConfig = BY_DEFAULT,
        *,
        n_pairs: int | None = None,
        progress: Progress | None = None,
    ) -> TaskScore:
        """Scores pairs as they come; each is let go before the next is taken.

        Args:
            pairs: name, prediction and target, `H,W,1|3 uint8` in RGB order. A prediction of another
                size is resampled to its target's. One band against three is repeated; three equal
                bands against one are taken as one.
            ranking: what makes the score.
            n_pairs: how many will come, for `progress`; None where that is not known.
            progress: told (pairs done, pairs in all, or done where not known).

        Raises:
            ScoreError: fewer than 2 pairs, or an image of other type or bands; names it.
        """
        return self._tally(pairs, n_pairs, progress).task_score(ranking)

    def score_together(
        self,
        pairs: Sequence[ImagePair],
        share: ProcessGroup,
        ranking: ScoreConfig = BY_DEFAULT,
        *,
        progress: Progress | None = None,
    ) -> TaskScore:
        """Scores files together with other processes, which call this alike; each gets the whole score.

        `progress` is told of this process's part. Errors as `score_pairs`, and:

        Raises:
            ImageError: an image cannot be read.
            ScoreError: an image has 16 bits, or another process failed.
        """
        mine = share.of(pairs)
        failed, tally = None, _Accumulator()
        try:
            tally = self._tally(read_pairs(mine), len(mine), progress)
        except PbvsError as error:
            failed = error
        told = share.gather((tally, failed and (failed.what, failed.where)))
        if failed is not None:
            raise failed
        for rank, (_, words) in enumerate(told):
            if words is not None:
                raise ScoreError(f"process {rank}: {words[0]}", where=words[1])
        return _Accumulator.joined([one for one, _ in told]).task_score(ranking)

    def _tally(
        self,
        pairs: Iterable[tuple[str, Stored8, Stored8]],
        n_pairs: int | None,
        progress: Progress | None,
    ) -> _Accumulator:
        tally = _Accumulator()
        self._waiting = []  # of a scoring that failed
        for name, prediction, target in pairs:
            tally.add(self._terms(name, prediction, target, tally), target.shape[:2])
            if progress:
                progress(len(tally.rows), len(tally.rows) if n_pairs is None else n_pairs)
        self._compute_features()
        return tally

    def report(self, tasks: Mapping[str, TaskScore], ranking: ScoreConfig = BY_DEFAULT) -> ScoreReport:
        """The report on scores that this judge gave under `ranking`, tasks in the challenge's order."""
        ordered = {task: tasks[task] for task in TASKS if task in tasks}
        return ScoreReport(ranking, self.kind, self.sha256, self.net, ordered)

    @torch.inference_mode()
    def _terms(self, name: str, prediction: Stored8, target: Stored8, tally: _Accumulator) -> ImageRow:
        fitting = matched(name, prediction, target)
        made, real = (pixels.float255_from_stored(image) for image in (fitting, target))
        keys = contents(fitting), contents(target)
        tally.n_resampled += prediction.shape[:2] != target.shape[:2]
        tally.made.append(self._features(keys[0], made, is_target=False))
        tally.real.append(self._features(keys[1], real, is_target=True))
        lpips = self.memory.distance(*keys)
        if lpips is None:
            lpips = self._lpips(made, real)
            self.memory.keep_distance(*keys, lpips)
        unit = made / pixels.WHITE, real / pixels.WHITE  # float64
        columns = extra_metrics_of(fitting, target) if self.takes_columns else {}
        return ImageRow(name, lpips, float(l1(*unit)), float(l2(*unit)), columns)

    def _lpips(self, made: torch.Tensor, real: torch.Tensor) -> float:
        with full_precision(self.device):
            return float(self.lpips(*(pixels.normalize(x).to(self.device) for x in (made, real))))

    def _features(self, key: bytes, levels: torch.Tensor, *, is_target: bool) -> _Features:
        """The features of an image, known or to be computed with those of others."""
        found = _Features(key, is_target, self.memory.features(key))
        if found.rows is None:
            found.resized = self.inception.resized(pixels.unit_from_float255(levels))
            self._waiting.append(found)
        if len(self._waiting) >= _AT_ONCE:
            self._compute_features()
        return found

    def _compute_features(self) -> None:
        waiting, self._waiting = self._waiting, []
        given = [one.resized for one in waiting if one.resized is not None]
        if not given:
            return
        features = self.inception.of_resized(torch.cat(given))
        for i, one in enumerate(waiting):
            # The network's own type: nothing is lost, and it is half the memory.
            one.rows = {layer: features[layer][i].float().numpy() for layer in FID_LAYERS}
            one.resized = None
            self.memory.keep_features(one.key, one.rows, is_target=one.is_target)


@dataclass
class _Features:
    """One image's features; `resized` is what the network is given, until they are computed."""

    key: bytes
    is_target: bool
    rows: Rows | None = None
    resized: torch.Tensor | None = None


class _Accumulator:
    """What is kept of the pairs seen so far."""

    def __init__(self) -> None:
        self.rows: list[ImageRow] = []
        self.sizes_px: Counter[tuple[int, ...]] = Counter()
        self.n_resampled = 0
        self.made: list[_Features] = []
        self.real: list[_Features] = []

    def add(self, row: ImageRow, size_px: tuple[int, ...]) -> None:
        self.rows.append(row)
        self.sizes_px[size_px] += 1

    @classmethod
    def joined(cls, tallies: Sequence[_Accumulator]) -> _Accumulator:
        """All of them as one."""
        whole = cls()
        for one in tallies:
            whole.rows += one.rows
            whole.sizes_px += one.sizes_px
            whole.n_resampled += one.n_resampled
            whole.made += one.made
            whole.real += one.real
        return whole

    def task_score(self, ranking: ScoreConfig) -> TaskScore:
        check_number(len(self.rows), None)
        sample = self._sample().by_name()
        lpips, l1_mean, l2_mean = sample.means()
        fid = {layer: sample.fid(layer) for layer in FID_LAYERS}
        scores = {layer: ranking.score(fid[layer], lpips, l1_mean, l2_mean) for layer in FID_LAYERS}
        height, width = self.sizes_px.most_common(1)[0][0]
        return TaskScore(
            images=len(sample),
            size_px=(height, width),
            n_sizes=len(self.sizes_px),
            n_resampled=self.n_resampled,
            fid=fid,
            lpips=lpips,
            l1=l1_mean,
            l2=l2_mean,
            score=scores[ranking.fid_layer],
            score_by_layer=scores,
            interval95=score_interval(sample, ranking),
            columns=mean_extra_metrics([row.columns for row in self.rows]),
            per_image=tuple(sorted(self.rows, key=lambda row: row.name)),
            sample=sample,
        )

    def _sample(self) -> ScoredSet:
        made, real = (_by_layer(side) for side in (self.made, self.real))
        terms = np.array([(row.lpips, row.l1, row.l2) for row in self.rows])
        return ScoredSet(tuple(row.name for row in self.rows), made, real, terms)


def _by_layer(side: Sequence[_Features]) -> dict[int, NDArray[np.float32]]:
    rows = [one.rows for one in side if one.rows is not None]
    assert len(rows) == len(side)
    return {layer: np.stack([row[layer] for row in rows]) for layer in FID_LAYERS}
