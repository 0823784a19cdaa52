"""Weights files as a training leaves them, of networks that were never trained."""

from __future__ import annotations

from typing import Any

import torch

from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.node_training import working_size_px
from pbvs.pipeline.runs import Runs
from pbvs.systems.pix2pixhd.network import Generator
from pbvs.training.checkpoint import save_weights
from pbvs.training.run_record import RunRecord


def record_of(**fields: Any) -> RunRecord:
    """The record of a Pix2PixHD that saw no image and no 16-bit data, with some fields set."""
    empty: dict[str, Any] = {
        **{"system": "pix2pixhd", "version": 1, "task": "t", "node": "n", "size_px": (32, 32)},
        **{"bands": {"source": 1, "target": 1}, "config": {}, "settings": {}, "provenance": {}, "data": "p"},
        **{"uint16": None, "uint16_percent": None, "stretches": {}},
        **{"metric_weights": "standin", "disclaimer": None, "versions": {}},
    }
    return RunRecord(**(empty | fields))


def untrained_runs(challenge: Any, task: str = "sar2rgb", **fields: Any) -> Runs:
    """Runs with random weights of a challenge's task; `fields` of their records are set."""
    graph, runs = TaskSet(challenge.tasks).graph(task), Runs(challenge.root / "runs")
    torch.manual_seed(3)
    for node in graph.trained:
        bands, config = graph.view_bands(node), node.config
        record = record_of(
            **{"task": task, "node": node.name, "bands": bands, "config": config.of_training()},
            **{"size_px": working_size_px(graph.spec, node), **fields},
        )
        network = Generator(config.generator, bands["source"], bands["target"])
        save_weights(runs.weights_file(task, node.name), {"G": network}, record)
    return runs
