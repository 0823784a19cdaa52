"""How the locations of a prepared folder divide into training and held out, city by city."""

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
    """One row a family and city, and one a family with all its cities (`city` is "all") where it has several.

    A location stands on one side with all its captures. Where the archive itself marks locations for
    validation those are held out, else the hash decides (`pbvs.dataset.index.held_out`, over all locations of
    the family: a task draws from those only that give it a pair).

    Args:
        prepared: the data.
        fraction: of the locations to hold out, in [0,1].
        seed: of the hash; that of the tasks is 0.

    Returns:
        `SPLIT_COLUMNS`, all but the first two whole numbers; families and cities in order.

    Raises:
        UsageError: the fraction is out of range.
    """
    if not 0.0 <= fraction <= 1.0:
        raise UsageError(f"the part that is held out is a part of 1, not {fraction}")
    rows = [row for family in FAMILIES for row in _family_rows(prepared, family, fraction, seed)]
    return pd.DataFrame(rows, columns=list(SPLIT_COLUMNS))


def _family_rows(
    prepared: PreparedData, family: str, fraction: float, seed: int
) -> list[tuple[str | int, ...]]:
    table = prepared.table[prepared.table.family == family]
    places = table.groupby(["city", "location"], sort=True)
    captures = places.size()
    if prepared.archive_holds_out(family):
        disclaimer = places["split"].agg(lambda splits: (splits == "validation").any())
        apart = set(disclaimer.index[disclaimer])
    else:
        apart = held_out(list(captures.index), fraction, seed)
    told = pd.DataFrame(
        {"city": captures.index.get_level_values("city"), "captures": captures.to_numpy()},
    )
    told["apart"] = [place in apart for place in captures.index]
    rows = [_row(family, str(city), part) for city, part in told.groupby("city", sort=True)]
    return [*rows, _row(family, "all", told)] if len(rows) > 1 else rows


def _row(family: str, city: str, part: pd.DataFrame) -> tuple[str | int, ...]:
    n_apart = int(part.apart.sum())
    in_apart = int(part.captures[part.apart].sum())
    counts = (len(part), len(part) - n_apart, n_apart, int(part.captures.sum()) - in_apart, in_apart)
    return (family, city, *counts)
