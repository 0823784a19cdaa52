"""Which two captures are shown together: draws that depend on the seed and a global position alone.

As the winning solution of 2024 samples: a location is drawn first, then one capture of each modality in
it, so that locations with many captures do not dominate and combinations vary from epoch to epoch.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import DataError, UsageError, did_you_mean
from pbvs.dataset.index import Capture, LocationKey, PreparedData, held_out, held_out_rank

Pairing = Literal["random", "same_capture", "nearest_time"]
DrawSplit = Literal["train", "heldout"]
Location = tuple[str, str, str]  # family, city ("" for tiles), location

_ORDER, _CAPTURES = 0, 1  # keep the two kinds of chance apart under one seed
LEFT_OUT_COLUMNS = ("family", "city", "location", "source", "target", "joint_fraction")


@dataclass(frozen=True)
class Pair:
    """A source and a target of one location."""

    location: Location
    source: Capture
    target: Capture

    @property
    def name(self) -> str:
        """`city/location/capture>capture`; tiles have no city."""
        place = "/".join(part for part in self.location[1:] if part)
        return f"{place}/{self.source.capture}>{self.target.capture}"


@dataclass(frozen=True, slots=True)
class Place:
    """A location and its pairs: each source that has a partner, with the targets it may be shown with."""

    location: Location
    choices: tuple[tuple[Capture, tuple[Capture, ...]], ...]


class PairSampler(Protocol):
    """Pairs by global position: `draw(n)` is the same whatever was drawn before and in whatever process."""

    def __len__(self) -> int:
        """Draws an epoch."""

    def draw(self, n: int) -> Pair:
        """The pair at global position `n` (0 or more): epoch n // len, position n % len in it."""


class RandomPairs:
    """Random draws: an epoch comes to every place alike, in an order of its own.

    Each draw takes one of the place's sources, then one of that source's partners, both uniformly: where
    every source goes with every target, the two are independent.

    Args:
        places: where to draw, one or more.
        draws_per_location: how often an epoch comes to each, 1 or more.
        seed: of the draws, 0 or more.
    """

    def __init__(self, places: Sequence[Place], draws_per_location: int = 1, seed: int = 0) -> None:
        if draws_per_location < 1 or seed < 0:
            raise UsageError("draws_per_location is 1 or more, seed is 0 or more")
        self.places, self.draws_per_location, self.seed = places, draws_per_location, seed
        self._order_of: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Draws an epoch."""
        return len(self.places) * self.draws_per_location

    def draw(self, n: int) -> Pair:
        """The pair at global position `n`; see `PairSampler`."""
        epoch, position = divmod(n, len(self))
        place = self.places[int(self._order(epoch)[position]) % len(self.places)]
        rng = np.random.default_rng([_CAPTURES, self.seed, epoch, position])
        source, partners = place.choices[int(rng.integers(len(place.choices)))]
        return Pair(place.location, source, partners[int(rng.integers(len(partners)))])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._order_of is None or self._order_of[0] != epoch:
            self._order_of = epoch, np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self))
        return self._order_of[1]


class FixedPairs:
    """One pair a place, the same each epoch and in the order given: mosaics first, then by name."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places

    def __len__(self) -> int:
        """Draws an epoch: the places."""
        return len(self.places)

    def draw(self, n: int) -> Pair:
        """The pair at global position `n`; see `PairSampler`."""
        place = self.places[n % len(self.places)]
        source, partners = place.choices[0]
        return Pair(place.location, source, partners[0])


class EverySource:
    """Every source once, in the order of the places: the n-th of a place with the n-th of its partners."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._pairs = [
            Pair(place.location, source, partners[n % len(partners)])
            for place in places
            for n, (source, partners) in enumerate(place.choices)
        ]

    def __len__(self) -> int:
        """Draws an epoch: the sources."""
        return len(self._pairs)

    def draw(self, n: int) -> Pair:
        """The pair at global position `n`; see `PairSampler`."""
        return self._pairs[n % len(self._pairs)]


class PairTable:
    """All pairs of a source and a target modality, split by location; built once, drawn from twice.

    Args:
        prepared: the data.
        source, target: modalities.
        family: `eo_sar` or `stack`; None takes every family that holds both modalities.
        pairing: `random`: every capture of one modality with every one of the other; `same_capture`: only
            those of one flight (a mosaic with the mosaic); `nearest_time`: for each source the targets
            closest in time (see `days_apart`; a capture without a date goes with all, and only where there
            is none with one).
        min_overlap: pairs that are both valid on a smaller part of the grid are left out, before
            `nearest_time` looks for the nearest.
        heldout_fraction: part of the locations to hold out, by the hash of `pbvs.dataset.index.held_out`;
            where the archive itself has a validation split of such pairs, that is held out instead.
        heldout_seed: of the hash; to be the same wherever results are compared.

    Attributes:
        left_out: one row a pair left out for its overlap, with `LEFT_OUT_COLUMNS`.

    Raises:
        UsageError: an unknown word or a number out of range.
        DataError: there is no pair, and which modality is missing where; or prepared data is torn.
    """

    def __init__(
        self,
        prepared: PreparedData,
        *,
        source: str,
        target: str,
        family: str | None = None,
        pairing: Pairing = "random",
        min_overlap: float = 0.5,
        heldout_fraction: float = 0.1,
        heldout_seed: int = 0,
    ) -> None:
        _check_word("modality", source, MODALITIES)
        _check_word("modality", target, MODALITIES)
        _check_word("pairing", pairing, get_args(Pairing))
        if not (0.0 <= min_overlap <= 1.0 and 0.0 <= heldout_fraction <= 1.0):
            raise UsageError("min_overlap and heldout_fraction are parts of 1, in [0,1]")
        self._root, self._pairing, self._min_overlap = prepared.root, pairing, min_overlap
        self._left_out: list[tuple[str | float, ...]] = []
        families: list[str] = [family] if family else list(FAMILIES)
        places = [place for name in families for place in self._places_of(prepared, name, source, target)]
        if not places:
            raise _no_pairs(prepared, families, source, target, len(self._left_out))
        apart = _held_out_places(places, heldout_fraction, heldout_seed)
        held = [place for place in places if place.location in apart]
        # By their hash: the first few of them are then a fair sample of all cities.
        held.sort(key=lambda place: (held_out_rank(place.location[1:], heldout_seed), place.location))
        kept = [place for place in places if place.location not in apart]
        self._of_split: dict[DrawSplit, list[Place]] = {"train": kept, "heldout": held}
        self.left_out = pd.DataFrame(self._left_out, columns=list(LEFT_OUT_COLUMNS))

    def train(self, *, draws_per_location: int = 1, seed: int = 0) -> RandomPairs:
        """Random draws from the locations that are not held out.

        Raises:
            UsageError: a number out of range.
            DataError: all locations are held out.
        """
        return RandomPairs(self._some("train"), draws_per_location, seed)

    def heldout(self) -> FixedPairs:
        """One fixed pair of each location held out, those of lowest hash first.

        Raises:
            DataError: no location is held out.
        """
        return FixedPairs(self._some("heldout"))

    def every_source(self) -> EverySource:
        """Each source of the locations that are not held out, once.

        Raises:
            DataError: all locations are held out.
        """
        return EverySource(self._some("train"))

    def locations(self, split: DrawSplit) -> list[Location]:
        """The locations of one side, in its order; may be empty."""
        return [place.location for place in self._of_split[split]]

    def _some(self, split: DrawSplit) -> list[Place]:
        places = self._of_split[split]
        if not places:
            raise _empty_split(self._root, split, sum(map(len, self._of_split.values())))
        return places

    def _places_of(self, prepared: PreparedData, family: str, source: str, target: str) -> Iterator[Place]:
        sources = _by_location(prepared.listed(family, source))
        targets = _by_location(prepared.listed(family, target))
        for key in sorted(sources.keys() & targets.keys()):
            location = (family, *key)
            choices = self._choices(prepared, location, sources[key], targets[key])
            if choices:
                yield Place(location, choices)

    def _choices(
        self, prepared: PreparedData, location: Location, sources: list[Capture], targets: list[Capture]
    ) -> tuple[tuple[Capture, tuple[Capture, ...]], ...]:
        sources.sort(key=_fixed_order)
        everyone = tuple(sorted(targets, key=_fixed_order))
        choices = []
        for source in sources:
            partners = self._overlapping(prepared, location, source, everyone)
            if self._pairing == "nearest_time":
                partners = _nearest_in_time(source, partners)
            if partners:
                # One tuple for all sources where nothing is left out: sixty captures make 3,600 pairs.
                choices.append((source, everyone if len(partners) == len(everyone) else tuple(partners)))
        return tuple(choices)

    def _overlapping(
        self, prepared: PreparedData, location: Location, source: Capture, targets: Iterable[Capture]
    ) -> list[Capture]:
        kept = []
        for target in targets:
            if self._pairing == "same_capture" and source.capture != target.capture:
                continue
            joint = prepared.joint_fraction(source, target)
            if joint >= self._min_overlap:
                kept.append(target)
            else:
                self._left_out.append((*location, source.capture, target.capture, round(joint, 6)))
        return kept


def _check_word(kind: str, word: str, known: Iterable[str]) -> None:
    if word not in known:
        raise UsageError(f"no {kind} is called {word!r}", next_step=did_you_mean(word, list(known)))


def _by_location(captures: list[Capture]) -> dict[LocationKey, list[Capture]]:
    places: dict[LocationKey, list[Capture]] = {}
    for capture in captures:
        places.setdefault((capture.city, capture.location), []).append(capture)
    return places


def _fixed_order(capture: Capture) -> tuple[bool, str]:
    return not capture.mosaic, capture.capture


# ---- time


def days_apart(a: Capture, b: Capture) -> float:
    """Days between two captures, to the second; infinite when either has no date.

    A date without a time of day counts as its noon: so two plain dates are whole days apart, and the same
    day is nearer than the day before or after, whatever the hour.
    """
    if not (a.taken and b.taken):
        return math.inf
    return abs((_moment(a.taken) - _moment(b.taken)).total_seconds()) / 86_400.0


def _moment(taken: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(taken)
    return moment if "T" in taken else moment.replace(hour=12)


def _nearest_in_time(source: Capture, targets: list[Capture]) -> list[Capture]:
    days = [days_apart(source, target) for target in targets]
    least = min(days, default=math.inf)
    return [target for target, apart in zip(targets, days, strict=True) if apart == least]


# ---- splits


def _held_out_places(places: list[Place], fraction: float, seed: int) -> set[Location]:
    """Places held out: the archive's own choice in a family that has one, else the hash's."""
    chosen: set[Location] = set()
    for family in sorted({place.location[0] for place in places}):
        mine = [place for place in places if place.location[0] == family]
        archives_own = {place.location for place in mine if place.choices[0][0].split == "validation"}
        hashed = () if archives_own else held_out([place.location[1:] for place in mine], fraction, seed)
        chosen |= archives_own or {(family, *key) for key in hashed}
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


def _empty_split(root: object, split: str, n_places: int) -> DataError:
    return DataError(
        f"no location is left for the split {split!r} ({n_places} give pairs in all)",
        where=str(root),
        next_step="prepare more locations, or change the part that is held out",
    )
