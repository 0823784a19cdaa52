"""How the locations of a prepared folder split into training and held out, per city."""

from __future__ import annotations

import pandas as pd

from pbvs.archives.layouts import FAMILIES
from pbvs.core.errors import UsageError
from pbvs.dataset.index import PreparedData, held_out

SPLIT_COLUMNS = (
    *("family", "city", "locations", "train", "held_out"),
    *("train_captures", "held_out_captures"),
)


def split_report(prepared: PreparedData, fraction: float, seed: int = 0) -> pd.DataFrame:
    """One row per family and city, plus one per family of several cities, whose `city` is "all".

    A location is on one side with all its captures. Where the archive has validation locations those are held
    out, else the hash decides (`pbvs.dataset.index.held_out`, over all locations of the family; a task only
    uses locations with its pairs).

    Args:
        prepared: the data.
        fraction: of the locations to hold out, in [0,1].
        seed: of the hash; tasks use 0.

    Returns:
        `SPLIT_COLUMNS`, all but the first two integers; families and cities in order.

    Raises:
        UsageError: the fraction is out of range.
    """
    if not 0.0 <= fraction <= 1.0:
        raise UsageError(f"the held-out fraction must be in [0,1], not {fraction}")
    rows: list[tuple[str | int, ...]] = []
    for family in FAMILIES:
        grouped = prepared.table[prepared.table.family == family].groupby(["city", "location"], sort=True)
        table = grouped.size().rename("captures").reset_index()
        keys = list(table[["city", "location"]].itertuples(index=False, name=None))
        if prepared.archive_holds_out(family):
            is_validation = grouped["split"].agg(lambda splits: (splits == "validation").any())
            held_keys = set(is_validation.index[is_validation])
        else:
            held_keys = held_out(keys, fraction, seed)
        table["held"] = [key in held_keys for key in keys]
        parts = [(str(city), part) for city, part in table.groupby("city", sort=True)]
        for city, part in [*parts, ("all", table)] if len(parts) > 1 else parts:
            n_held, n_captures = int(part.held.sum()), int(part.captures.sum())
            held_captures = int(part.captures[part.held].sum())
            counts = (len(part), len(part) - n_held, n_held, n_captures - held_captures, held_captures)
            rows.append((family, city, *counts))
    return pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))
