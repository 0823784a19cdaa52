"""Which two captures are shown together: draws that depend on the seed and a global position alone.

As the winning solution of 2024 samples: a location is drawn first, then one capture of each modality in
it, so that locations with many captures do not dominate and combinations vary from epoch to epoch.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pbvs.data.index import Capture, LocationKey, PreparedData, held_out
from pbvs.data.layouts import FAMILIES, MODALITIES
from pbvs.data.rasters import read_valid
from pbvs.data.warp import Valid
from pbvs.errors import DataError, UsageError, nearest

Pairing = Literal["random", "same_capture", "nearest_time"]
DrawSplit = Literal["train", "heldout"]

_ORDER, _CAPTURES = 0, 1  # keep the two kinds of chance apart under one seed
LEFT_OUT_COLUMNS = ("family", "city", "location", "source", "target", "joint_fraction")


@dataclass(frozen=True)
class Pair:
    """A source and a target of one location, (family, city, location)."""

    location: tuple[str, str, str]
    source: Capture
    target: Capture

    @property
    def name(self) -> str:
        """`city/location/capture>capture`; tiles have no city."""
        place = "/".join(part for part in self.location[1:] if part)
        return f"{place}/{self.source.capture}>{self.target.capture}"


@dataclass(frozen=True)
class _Place:
    """A location's captures and the pairs of them that may be drawn, as source x n_targets + target."""

    location: tuple[str, str, str]
    sources: tuple[Capture, ...]
    targets: tuple[Capture, ...]
    allowed: tuple[int, ...]

    def pair(self, which: int) -> Pair:
        source, target = divmod(self.allowed[which], len(self.targets))
        return Pair(self.location, self.sources[source], self.targets[target])


class PairDraws:
    """Pairs by global position: `draw(n)` is the same whatever was drawn before and in whatever process.

    Args:
        prepared: the data.
        source, target: modalities.
        family: `eo_sar` or `stack`; None takes every family that holds both modalities.
        pairing: `random`: every capture of one modality with every one of the other; `same_capture`: only
            those of one flight (a mosaic with the mosaic); `nearest_time`: for each source the targets
            closest in time (a capture without a date goes with all, and only where there is none with one).
        draws_per_location: how often an epoch comes to each location.
        split: `train`: random draws from the locations not held out, each epoch a new permutation;
            `heldout`: one fixed pair a location (mosaics first, then by name), in order.
        heldout_fraction: part of the locations to hold out, by the hash of `pbvs.data.index.held_out`; where
            the archive itself has a validation split, that is held out instead.
        seed: of the draws.
        heldout_seed: of the hash; to be the same wherever results are compared.
        min_overlap: pairs that are both valid on a smaller part of the grid are left out.

    Attributes:
        left_out: one row a pair left out for its overlap, with `LEFT_OUT_COLUMNS`.

    Raises:
        UsageError: an unknown word or a number out of range.
        DataError: no pair is left; says which modality is missing where.
    """

    def __init__(
        self,
        prepared: PreparedData,
        *,
        source: str,
        target: str,
        family: str | None = None,
        pairing: Pairing = "random",
        draws_per_location: int = 1,
        split: DrawSplit = "train",
        heldout_fraction: float = 0.1,
        seed: int = 0,
        heldout_seed: int = 0,
        min_overlap: float = 0.5,
    ) -> None:
        _check_word("modality", source, MODALITIES)
        _check_word("modality", target, MODALITIES)
        _check_word("pairing", pairing, get_args(Pairing))
        _check_word("split", split, get_args(DrawSplit))
        if draws_per_location < 1 or seed < 0 or not 0.0 <= heldout_fraction <= 1.0:
            raise UsageError("draws_per_location is 1 or more, seed 0 or more, heldout_fraction in [0,1]")
        self.split, self.seed, self._pairing, self._min_overlap = split, seed, pairing, min_overlap
        self._left_out: list[tuple[str | float, ...]] = []
        families: list[str] = [family] if family else list(FAMILIES)
        places = [place for name in families for place in self._places_of(prepared, name, source, target)]
        if not places:
            raise _no_pairs(prepared, families, source, target, len(self._left_out))
        apart = _held_out_places(prepared, places, heldout_fraction, heldout_seed)
        kept = [place for place in places if (place.location in apart) == (split == "heldout")]
        if not kept:
            raise _empty_split(prepared, split, len(places))
        self._places = kept
        self._repeats = draws_per_location if split == "train" else 1
        self._order_of: tuple[int, NDArray[np.int64]] | None = None
        self.left_out = pd.DataFrame(self._left_out, columns=list(LEFT_OUT_COLUMNS))

    def __len__(self) -> int:
        """Draws an epoch."""
        return len(self._places) * self._repeats

    @property
    def locations(self) -> list[tuple[str, str, str]]:
        """The (family, city, location) that are drawn from, sorted."""
        return [place.location for place in self._places]

    def draw(self, n: int) -> Pair:
        """The pair at global position `n` (0 or more): epoch n // len, position n % len in it."""
        epoch, position = divmod(n, len(self))
        if self.split == "heldout":
            return self._places[position].pair(0)
        place = self._places[int(self._order(epoch)[position]) % len(self._places)]
        chance = np.random.default_rng([_CAPTURES, self.seed, epoch, position])
        return place.pair(int(chance.integers(len(place.allowed))))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._order_of is None or self._order_of[0] != epoch:
            self._order_of = epoch, np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self))
        return self._order_of[1]

    def _places_of(self, prepared: PreparedData, family: str, source: str, target: str) -> list[_Place]:
        sources = _by_location(prepared.listed(family, source))
        targets = _by_location(prepared.listed(family, target))
        places = []
        for key in sorted(sources.keys() & targets.keys()):
            place = self._place((family, *key), sources[key], targets[key])
            if place.allowed:
                places.append(place)
        return places

    def _place(
        self, location: tuple[str, str, str], sources: list[Capture], targets: list[Capture]
    ) -> _Place:
        sources.sort(key=_fixed_order)
        targets.sort(key=_fixed_order)
        valid: dict[Capture, Valid] = {}
        allowed: list[int] = []
        for which in _PAIRINGS[self._pairing](sources, targets):
            a, b = sources[which // len(targets)], targets[which % len(targets)]
            joint = _joint_fraction(a, b, self._min_overlap, valid)
            if joint < self._min_overlap:
                self._left_out.append((*location, a.capture, b.capture, round(joint, 6)))
            else:
                allowed.append(which)
        return _Place(location, tuple(sources), tuple(targets), tuple(allowed))


def _check_word(kind: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise UsageError(f"no {kind} is called {word!r}", next_step=nearest(word, list(known)))


def _by_location(captures: list[Capture]) -> dict[LocationKey, list[Capture]]:
    places: dict[LocationKey, list[Capture]] = {}
    for capture in captures:
        places.setdefault((capture.city, capture.location), []).append(capture)
    return places


def _fixed_order(capture: Capture) -> tuple[bool, str]:
    return not capture.mosaic, capture.capture


# ---- pairings: which of a location's captures may go together, as source x n_targets + target


def _random(sources: list[Capture], targets: list[Capture]) -> list[int]:
    return list(range(len(sources) * len(targets)))


def _same_capture(sources: list[Capture], targets: list[Capture]) -> list[int]:
    n = len(targets)
    return [s * n + t for s, a in enumerate(sources) for t, b in enumerate(targets) if a.capture == b.capture]


def _nearest_time(sources: list[Capture], targets: list[Capture]) -> list[int]:
    n = len(targets)
    pairs: list[int] = []
    for s, a in enumerate(sources):
        days = [_days_apart(a, b) for b in targets]
        nearest_days = min(days)
        pairs.extend(s * n + t for t in range(n) if days[t] == nearest_days)
    return pairs


def _days_apart(a: Capture, b: Capture) -> float:
    """Days between two captures; infinite when either has no date."""
    if not (a.taken and b.taken):
        return float("inf")
    return abs((datetime.date.fromisoformat(a.taken) - datetime.date.fromisoformat(b.taken)).days)


_PAIRINGS = {"random": _random, "same_capture": _same_capture, "nearest_time": _nearest_time}


def _joint_fraction(a: Capture, b: Capture, least: float, valid: dict[Capture, Valid]) -> float:
    """Part of the grid where both are valid; masks are read only where the parts of each do not decide."""
    smaller, surely = min(a.valid_fraction, b.valid_fraction), a.valid_fraction + b.valid_fraction - 1.0
    if smaller < least or max(a.valid_fraction, b.valid_fraction) == 1.0:
        return smaller
    if surely >= least:
        return surely
    for capture in (a, b):
        if capture not in valid:
            valid[capture] = read_valid(capture.path)
    return float((valid[a] & valid[b]).mean())


# ---- splits


def _held_out_places(
    prepared: PreparedData, places: list[_Place], fraction: float, seed: int
) -> set[tuple[str, str, str]]:
    """Places held out: the archive's own choice in a family that has one, else the hash's."""
    chosen: set[tuple[str, str, str]] = set()
    for family in {place.location[0] for place in places}:
        mine = [place for place in places if place.location[0] == family]
        if prepared.archive_holds_out(family):
            chosen |= {place.location for place in mine if place.targets[0].split == "validation"}
        else:
            keys = held_out([place.location[1:] for place in mine], fraction, seed)
            chosen |= {(family, *key) for key in keys}
    return chosen


def _no_pairs(
    prepared: PreparedData, families: list[str], source: str, target: str, n_left_out: int
) -> DataError:
    told = []
    for family in families:
        found = Counter(m for m in (source, target) for _ in _by_location(prepared.listed(family, m)))
        told.append(f"{family}: {source} at {found[source]} locations, {target} at {found[target]}")
    why = f"; {n_left_out} pairs overlap too little" if n_left_out else ""
    return DataError(
        f"no location gives a pair of {source} and {target} ({'; '.join(told)}){why}",
        where=prepared.root,
        next_step=f"prepare data that holds both {source} and {target}; `pbvs data scan` tells what is there",
    )


def _empty_split(prepared: PreparedData, split: str, n_places: int) -> DataError:
    return DataError(
        f"no location is left for the split {split!r} ({n_places} give pairs in all)",
        where=prepared.root,
        next_step="prepare more locations, or change the part that is held out",
    )
