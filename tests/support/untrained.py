"""Weights files as a training leaves them, of networks that were never trained."""

from __future__ import annotations

from typing import Any

import torch

from pbvs.graph.task_set import TaskSet
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


def untrained_sar2rgb(challenge: Any, **fields: Any) -> Runs:
    """Runs with random weights of a challenge's sar2rgb; `fields` of its record are set."""
    config = TaskSet(challenge.tasks).spec("sar2rgb").nodes["pix2pixhd"].config
    torch.manual_seed(3)
    runs = Runs(challenge.root / "runs")
    node = {"task": "sar2rgb", "node": "pix2pixhd", "bands": {"source": 1, "target": 3}}
    record = record_of(**node, config=config.of_training(), **fields)
    save_weights(runs.weights_file("sar2rgb", "pix2pixhd"), {"G": Generator(config.generator, 1, 3)}, record)
    return runs
