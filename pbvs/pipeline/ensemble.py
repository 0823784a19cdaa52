"""The weights of an average of translations, found on held-out locations by least squares.

One pass over the pairs is enough, since only products of the members' images with each other and with the
target are needed: with G[i,j] = sum x_i x_j and b[i] = sum x_i t over all valid pixels, the squared error of
weights w is w'Gw - 2 b'w + sum t^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from pbvs.core.errors import DataError
from pbvs.core.pixels import WHITE
from pbvs.core.types import Progress
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pair_dataset import PairDataset
from pbvs.graph.graph import TaskGraph
from pbvs.graph.nodes.blend import BlendParams
from pbvs.graph.spec import without_none
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.pair_table import pair_table
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.translator import Translator
from pbvs.systems.config import TrainedConfig

_EVENNESS = 1e-7  # of the members' mean square
_SUM_ROW = 1e3  # weight of the constraint that the weights sum to 1, relative to all errors


@dataclass(frozen=True)
class EnsembleWeights:
    """Weights of the members, adding up to 1, and root mean square errors over all valid pixels, in [0,1].

    Attributes:
        names: of the members.
        weights: found.
        l2: with these weights.
        l2_equal: with equal ones.
        l2_alone: of each member alone.
        images, pixels: held-out pairs, and values compared in them.
    """

    task: str
    names: tuple[str, ...]
    weights: tuple[float, ...]
    l2: float
    l2_equal: float
    l2_alone: tuple[float, ...]
    images: int
    pixels: int

    def to_json(self) -> dict[str, Any]:
        """As `pbvs calibrate --json` prints it for an average."""
        return {
            "schema": 1,
            "by": "l2",
            **{k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()},
        }


def is_average(graph: TaskGraph) -> bool:
    """Whether a task's image is an average of several: of checkpoints, or of a blend's inputs."""
    params = graph.spec.nodes[graph.spec.output].params
    if isinstance(params, TrainedConfig):
        return len(params.inference.checkpoints) > 1
    return isinstance(params, BlendParams)


def members(task_set: TaskSet, graph: TaskGraph, runs: Runs, device: torch.device) -> dict[str, Translator]:
    """Each member of a task's average as a translator of its own, by its name."""
    spec = graph.spec
    node = spec.nodes[spec.output]
    if isinstance(node.params, BlendParams):
        return {
            name: Translator(task_set, spec.task, runs, device, graph.part(end=name)) for name in node.inputs
        }
    assert isinstance(node.params, TrainedConfig)
    found = {}
    for which in node.params.inference.checkpoints:
        alone = {f"nodes.{node.name}.inference": {"checkpoints": [which], "tta": node.params.inference.tta}}
        found[which] = Translator(task_set.with_overrides(spec.task, alone), spec.task, runs, device)
    return found


def ensemble_weights(
    graph: TaskGraph,
    prepared: PreparedData,
    translators: dict[str, Translator],
    progress: Progress | None = None,
) -> EnsembleWeights:
    """Finds the weights on the task's held-out locations.

    Raises:
        DataError: nothing is held out, or no pixel of it is valid.
    """
    spec = graph.spec
    table = pair_table(spec, prepared)
    dataset = PairDataset(table.heldout(), size_px=spec.size_px, flips=False)
    n = len(translators)
    gram, with_target, squares, n_values = np.zeros((n, n)), np.zeros(n), 0.0, 0
    for i in range(len(dataset)):
        item = dataset[i]
        source = np.ascontiguousarray(item["source"].permute(1, 2, 0).numpy())
        valid = item["mask"][0].numpy()
        target = item["target"].permute(1, 2, 0).numpy()[valid].astype(np.float64).ravel() / WHITE
        images = np.stack([one.stored(source)[valid].ravel() / WHITE for one in translators.values()])
        gram += images @ images.T
        with_target += images @ target
        squares += float(target @ target)
        n_values += target.size
        if progress:
            progress(i + 1, len(dataset))
    if not n_values:
        raise DataError("no held-out pair has a valid pixel", where=prepared.root)

    def error(weights: NDArray[np.float64]) -> float:
        square = float(weights @ gram @ weights - 2 * with_target @ weights) + squares
        return math.sqrt(max(square, 0.0) / n_values)

    weights = least_squares_weights(gram, with_target)
    return EnsembleWeights(
        task=spec.task,
        names=tuple(translators),
        weights=tuple(float(w) for w in weights),
        l2=error(weights),
        l2_equal=error(np.full(n, 1.0 / n)),
        l2_alone=tuple(error(alone) for alone in np.eye(n)),
        images=len(dataset),
        pixels=n_values,
    )


def least_squares_weights(gram: NDArray[np.float64], with_target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The non-negative weights of least squared error that add up to 1.

    Args:
        gram: `n,n`, the members' products with each other.
        with_target: `n`, those with the target.
    """
    n, scale = len(gram), float(np.trace(gram)) / len(gram)
    # Members that are alike leave their shares open: a small term in favour of equal ones decides.
    lower = np.linalg.cholesky(gram / scale + _EVENNESS * np.eye(n))
    rows = np.concatenate([lower.T, _SUM_ROW * np.ones((1, n))])
    wanted = np.append(np.linalg.solve(lower, with_target / scale), _SUM_ROW)
    found: NDArray[np.float64] = nnls(rows, wanted)[0]
    total: float = found.sum()
    return found / total


def task_with_weights(graph: TaskGraph, found: EnsembleWeights) -> str:
    """The whole task as TOML, with the weights that were found."""
    settings = without_none(graph.spec.resolved())
    node = settings["nodes"][graph.spec.output]
    node.get("inference", node)["weights"] = list(found.weights)
    return f"# {found.task}, weights found on {found.images} held-out pairs.\n" + tomli_w.dumps(settings)
