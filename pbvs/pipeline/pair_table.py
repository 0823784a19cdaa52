"""The pairs of a task, by its data rules: the same for training, validation and calibration."""

from __future__ import annotations

from pbvs.dataset.index import PreparedData
from pbvs.dataset.pairs import PairTable
from pbvs.graph.spec import TaskSpec


def pair_table(spec: TaskSpec, prepared: PreparedData) -> PairTable:
    """All pairs of the task's source and target, split as the task says.

    Raises:
        DataError: there is no pair.
    """
    return PairTable(
        prepared,
        source=spec.source,
        target=spec.target,
        family=spec.family,
        pairing=spec.data.pairing,
        min_overlap=spec.data.min_overlap,
        heldout_fraction=spec.data.heldout_fraction,
    )
