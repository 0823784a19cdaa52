"""The pairs of a task, by its data rules: the same for training, validation and calibration."""

from __future__ import annotations

from collections.abc import Collection

from pbvs.dataset.index import PreparedData
from pbvs.dataset.pairs import Location, PairTable, ValidationPairs
from pbvs.graph.spec import TaskSpec


def pair_table(spec: TaskSpec, prepared: PreparedData, *, heldout_fraction: float | None = None) -> PairTable:
    """All pairs of the task's source and target, split as the task says, or by another fraction.

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
        heldout_fraction=spec.data.heldout_fraction if heldout_fraction is None else heldout_fraction,
    )


def heldout_pairs(spec: TaskSpec, prepared: PreparedData, locations: Collection[Location]) -> ValidationPairs:
    """One fixed pair of each of these locations, in another preparation of the same data.

    Raises:
        DataError: none of them is in it.
    """
    return pair_table(spec, prepared, heldout_fraction=1.0).heldout(only=locations)
