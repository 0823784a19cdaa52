"""Pairs of captures: samplers whose pairs depend only on the seed and a global position.

Sampling follows the winning solution of 2024: first a location, then one capture of each modality there.
Locations with many captures do not dominate, and combinations vary from epoch to epoch.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import DataError, UsageError, did_you_mean
from pbvs.dataset.index import Capture, PreparedData, held_out, held_out_rank
from pbvs.prepare.plan import LocationKey

Pairing = Literal["random", "same_capture", "nearest_time"]
DrawSplit = Literal["train", "heldout"]
Location = tuple[str, str, str]  # family, city ("" for tiles), location

_ORDER, _CAPTURES = 0, 1  # separate the two random streams under one seed
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
        key = "/".join(part for part in self.location[1:] if part)
        return f"{key}/{self.source.capture}>{self.target.capture}"


@dataclass(frozen=True, slots=True)
class LocationPairs:
    """The pairs of one location: each source that has a partner, with its possible targets."""

    location: Location
    choices: tuple[tuple[Capture, tuple[Capture, ...]], ...]


class PairSampler(Protocol):
    """Pairs by global position: `pair_at(n)` is the same in every process, whatever was drawn before."""

    def __len__(self) -> int:
        """Pairs per epoch."""

    def pair_at(self, n: int) -> Pair:
        """The pair at global position `n` (0 or more): epoch n // len, position n % len within it."""


class RandomPairs:
    """Random pairs: each epoch visits every location equally often, in a new order.

    Each pair takes one of the location's sources, then one of that source's targets, both uniformly. Where
    every source goes with every target, the two are independent.

    Args:
        locations: where to draw, one or more.
        draws_per_location: pairs per location and epoch, 1 or more.
        seed: of the sampling, 0 or more.
    """

    def __init__(
        self, locations: Sequence[LocationPairs], draws_per_location: int = 1, seed: int = 0
    ) -> None:
        if draws_per_location < 1 or seed < 0:
            raise UsageError("draws_per_location must be 1 or more, seed 0 or more")
        self._locations, self._draws_per_location, self._seed = locations, draws_per_location, seed
        self._epoch_order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Pairs per epoch."""
        return len(self._locations) * self._draws_per_location

    def pair_at(self, n: int) -> Pair:
        """The pair at global position `n`; see `PairSampler`."""
        epoch, position = divmod(n, len(self))
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            rng = np.random.default_rng([_ORDER, self._seed, epoch])
            self._epoch_order = epoch, rng.permutation(len(self))
        at = self._locations[int(self._epoch_order[1][position]) % len(self._locations)]
        rng = np.random.default_rng([_CAPTURES, self._seed, epoch, position])
        source, targets = at.choices[int(rng.integers(len(at.choices)))]
        return Pair(at.location, source, targets[int(rng.integers(len(targets)))])


class ValidationPairs:
    """One pair per location, the same each epoch and in the given order: mosaics first, then by name."""

    def __init__(self, locations: Sequence[LocationPairs]) -> None:
        self._locations = locations

    def __len__(self) -> int:
        """Pairs per epoch: one per location."""
        return len(self._locations)

    def pair_at(self, n: int) -> Pair:
        """The pair at global position `n`; see `PairSampler`."""
        at = self._locations[n % len(self._locations)]
        source, targets = at.choices[0]
        return Pair(at.location, source, targets[0])


class EverySource:
    """Every source once, in the order of the locations: the n-th of a location with its n-th target."""

    def __init__(self, locations: Sequence[LocationPairs]) -> None:
        self._pairs = [
            Pair(at.location, source, targets[n % len(targets)])
            for at in locations
            for n, (source, targets) in enumerate(at.choices)
        ]

    def __len__(self) -> int:
        """Pairs per epoch: one per source."""
        return len(self._pairs)

    def pair_at(self, n: int) -> Pair:
        """The pair at global position `n`; see `PairSampler`."""
        return self._pairs[n % len(self._pairs)]


class PairTable:
    """All pairs of a source and a target modality, split by location; the samplers come from it.

    Args:
        prepared: the data.
        source, target: modalities.
        family: `eo_sar` or `stack`; None uses every family that has both modalities.
        pairing: `random`: every capture of one modality with every capture of the other; `same_capture`: only
            those of one flight (a mosaic with the mosaic); `nearest_time`: for each source the targets
            closest in time (see `days_apart`; undated captures pair with all, only where no dated one
            exists).
        min_overlap: pairs that are both valid on a smaller fraction of the grid are left out, before
            `nearest_time` selects the nearest.
        heldout_fraction: of the locations, held out by the hash of `pbvs.dataset.index.held_out`; where the
            archive has a validation split of such pairs, that split is held out instead.
        heldout_seed: of the hash; keep it the same wherever results are compared.

    Attributes:
        left_out: one row per pair left out for its overlap, with `LEFT_OUT_COLUMNS`.

    Raises:
        UsageError: an unknown modality or pairing, or a number out of range.
        DataError: there is no pair (says which modality is missing where), or prepared data is corrupt.
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
        _check_known("modality", source, MODALITIES)
        _check_known("modality", target, MODALITIES)
        _check_known("pairing", pairing, get_args(Pairing))
        if not (0.0 <= min_overlap <= 1.0 and 0.0 <= heldout_fraction <= 1.0):
            raise UsageError("min_overlap and heldout_fraction must be in [0,1]")
        self._root, self._pairing, self._min_overlap = prepared.root, pairing, min_overlap
        self._left_out: list[tuple[str | float, ...]] = []
        families: list[str] = [family] if family else list(FAMILIES)
        found = [at for name in families for at in self._pairs_of(prepared, name, source, target)]
        if not found:
            raise _no_pairs(prepared, families, source, target, len(self._left_out))
        held_keys = _held_out_locations(found, heldout_fraction, heldout_seed)
        held = [at for at in found if at.location in held_keys]
        # Sorted by hash: the first few are then a fair sample of all cities.
        held.sort(key=lambda at: (held_out_rank(at.location[1:], heldout_seed), at.location))
        train = [at for at in found if at.location not in held_keys]
        self._splits: dict[DrawSplit, list[LocationPairs]] = {"train": train, "heldout": held}
        self.left_out = pd.DataFrame(self._left_out, columns=list(LEFT_OUT_COLUMNS))

    def train(self, *, draws_per_location: int = 1, seed: int = 0) -> RandomPairs:
        """Random pairs of the locations that are not held out.

        Raises:
            UsageError: a number out of range.
            DataError: all locations are held out.
        """
        return RandomPairs(self._nonempty("train"), draws_per_location, seed)

    def heldout(self, only: Collection[Location] | None = None) -> ValidationPairs:
        """One fixed pair per held-out location, lowest hash first; of `only` these locations, if given.

        Raises:
            DataError: no such location is held out.
        """
        locations = [at for at in self._nonempty("heldout") if only is None or at.location in only]
        if not locations:
            raise DataError(
                f"none of the {len(only or ())} locations to validate on is in this data",
                where=self._root,
                next_step="prepare it from the same archives as the training data",
            )
        return ValidationPairs(locations)

    def sources(self) -> list[Capture]:
        """Every source capture of every location, held out or not, once."""
        places = [at for split in self._splits.values() for at in split]
        return [source for at in places for source, _ in at.choices]

    def every_source(self) -> EverySource:
        """Each source of the locations that are not held out, once.

        Raises:
            DataError: all locations are held out.
        """
        return EverySource(self._nonempty("train"))

    def locations(self, split: DrawSplit) -> list[Location]:
        """The locations of one split, in its order; may be empty."""
        return [at.location for at in self._splits[split]]

    def _nonempty(self, split: DrawSplit) -> list[LocationPairs]:
        if not self._splits[split]:
            n_locations = sum(map(len, self._splits.values()))
            raise DataError(
                f"no location is left for the split {split!r} ({n_locations} have pairs in all)",
                where=self._root,
                next_step="prepare more locations, or change the held-out fraction",
            )
        return self._splits[split]

    def _pairs_of(
        self, prepared: PreparedData, family: str, source: str, target: str
    ) -> Iterator[LocationPairs]:
        sources, targets = (_by_location(prepared.listed(family, name)) for name in (source, target))
        for key in sorted(sources.keys() & targets.keys()):
            location, all_targets = (family, *key), tuple(targets[key])
            choices = []
            for one in sources[key]:
                partners = self._partners(prepared, location, one, all_targets)
                if partners:
                    # One tuple for all sources that go with every target: sixty captures make 3,600 pairs.
                    whole = len(partners) == len(all_targets)
                    choices.append((one, all_targets if whole else tuple(partners)))
            if choices:
                yield LocationPairs(location, tuple(choices))

    def _partners(
        self, prepared: PreparedData, location: Location, source: Capture, targets: Iterable[Capture]
    ) -> list[Capture]:
        """The targets that overlap the source enough and match the pairing."""
        partners = []
        for target in targets:
            if self._pairing == "same_capture" and source.capture != target.capture:
                continue
            joint = prepared.joint_fraction(source, target)
            if joint >= self._min_overlap:
                partners.append(target)
            else:
                self._left_out.append((*location, source.capture, target.capture, round(joint, 6)))
        if self._pairing != "nearest_time":
            return partners
        days = [days_apart(source, target) for target in partners]
        fewest = min(days, default=math.inf)
        return [target for target, apart in zip(partners, days, strict=True) if apart == fewest]


def _check_known(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(f"no {kind} is called {name!r}", next_step=did_you_mean(name, list(known)))


def _by_location(captures: list[Capture]) -> dict[LocationKey, list[Capture]]:
    """The captures of each location: mosaics first, then by name."""
    grouped: dict[LocationKey, list[Capture]] = {}
    for capture in sorted(captures, key=lambda one: (not one.mosaic, one.capture)):
        grouped.setdefault((capture.city, capture.location), []).append(capture)
    return grouped


def days_apart(a: Capture, b: Capture) -> float:
    """Days between two captures, to the second; infinite when either has no date.

    A date without a time of day counts as noon: two plain dates are whole days apart, and the same day is
    nearer than the day before or after, at any hour.
    """
    if not (a.acquired_at and b.acquired_at):
        return math.inf
    return abs((_time_of(a.acquired_at) - _time_of(b.acquired_at)).total_seconds()) / 86_400.0


def _time_of(acquired_at: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(acquired_at)
    return time if "T" in acquired_at else time.replace(hour=12)


def _held_out_locations(locations: list[LocationPairs], fraction: float, seed: int) -> set[Location]:
    """The archive's own validation locations in a family that has some, else those held out by hash."""
    held: set[Location] = set()
    for family in sorted({at.location[0] for at in locations}):
        members = [at for at in locations if at.location[0] == family]
        from_archive = {at.location for at in members if at.choices[0][0].split == "validation"}
        by_hash = () if from_archive else held_out([at.location[1:] for at in members], fraction, seed)
        held |= from_archive or {(family, *key) for key in by_hash}
    return held


def _no_pairs(
    prepared: PreparedData, families: list[str], source: str, target: str, n_left_out: int
) -> DataError:
    counts = []
    for family in families:
        n_source, n_target = (len(_by_location(prepared.listed(family, name))) for name in (source, target))
        counts.append(f"{family}: {source} at {n_source} locations, {target} at {n_target}")
    why = f"; {n_left_out} pairs overlap too little" if n_left_out else ""
    return DataError(
        f"no location has a pair of {source} and {target} ({'; '.join(counts)}){why}",
        where=prepared.root,
        next_step=f"prepare data that holds both {source} and {target}; `pbvs data scan` lists what is there",
    )
