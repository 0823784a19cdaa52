"""Training captures as upstream nodes of a task's graph make them: what a node behind another is trained on.

Each source capture is translated whole, once, and kept as a prepared capture is, in whole numbers: a trained
node reads whole numbers in translation too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pbvs.core.files import fingerprint
from pbvs.core.pixels import resize
from pbvs.dataset.pair_dataset import Derive
from pbvs.dataset.pairs import PairTable
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.translator import Translator
from pbvs.prepare.rasters import read_valid, read_values, write_capture
from pbvs.training.loop import Report

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class DerivedCaptures:
    """The captures that upstream nodes of one trained node give.

    Args:
        tasks, task: the task, and those it depends on.
        nodes: the upstream nodes.
        runs: where their weights lie.
        run_folder: of the node that is trained; the captures go beside it.
    """

    def __init__(
        self,
        tasks: TaskSet,
        task: str,
        nodes: Sequence[str],
        runs: Runs,
        run_folder: Path,
    ):
        self.tasks, self.task, self.nodes, self.runs = tasks, task, tuple(nodes), runs
        self.folder = run_folder.with_name(f"{run_folder.name}.derived")

    def provenance(self) -> dict[str, str]:
        """What decides these captures, by fingerprint per node.

        Raises:
            CheckpointError: an upstream node is not trained yet.
        """
        cpu = torch.device("cpu")
        return {f"upstream {n}": fingerprint(self._translator(n, cpu).provenance()) for n in self.nodes}

    def make(self, pairs: PairTable, report: Report, fabric: Fabric) -> dict[str, Derive]:
        """Translates every source capture that is missing; the processes share the work.

        Returns:
            For each upstream node, the capture that it made of a source capture.
        """
        found: dict[str, Derive] = {}
        for node in self.nodes:
            translator = self._translator(node, fabric.device)
            folder = self.folder / f"{node}-{fingerprint(translator.provenance())[:16]}"
            captures = pairs.sources()
            for n, capture in enumerate(captures):
                path = folder / capture.file
                if n % fabric.world_size == fabric.global_rank and not path.is_file():
                    [image] = translator.unresized([read_values(capture.path)])
                    valid = read_valid(capture.path).astype(np.uint8)[:, :, None]
                    write_capture(path, image, resize(valid, image.shape[:2])[:, :, 0] > 0, None)
                    report(n + 1, len(captures), {})
            fabric.barrier()
            # A node gives all its images one size.
            height, width = read_valid(folder / captures[0].file).shape
            found[node] = partial(replace, root=folder, height_px=height, width_px=width)
        return found

    def _translator(self, node: str, device: torch.device) -> Translator:
        part = self.tasks.graph(self.task).part(end=node)
        return Translator(self.tasks, self.task, self.runs, device, part)
