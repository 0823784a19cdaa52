"""The residual shift of SAR against its location's optical image: estimated, told of, and taken out.

Only SAR captures of stack locations are moved. EO/SAR tiles stay as they are: each is a pair of one size
without a place on Earth, and the tiles of the test are not moved either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pbvs.prepare.capture import Made
from pbvs.prepare.plan import Item, Place, reference_rank
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.records import Record, Registered, wrap_write_errors
from pbvs.prepare.register import Shift, estimate_shift

REGISTRATION_NAME = "registration.csv"
REGISTRATION_COLUMNS = (
    *("city", "location", "capture", "reference"),
    *("dx_px", "dy_px", "peak", "trusted", "applied"),
)
LOOKED_AT_PX = 2048  # larger images are compared at this side
LEAST_SHIFT_PX = 0.1  # less lies within the error of the estimate, and is not worth a resampling

# Makes a capture at a path, moved by (dx, dy) pixels of its grid.
Make = Callable[[Path, tuple[float, float]], Made]


def make_registered(
    make: Make, target: Path, reference: Path, size_px: tuple[int, int]
) -> tuple[Made, Registered | None]:
    """Makes a capture at `target`, moved onto `reference` where the estimated shift is trusted.

    A capture that is moved is made again from its source: one warp, not two resamplings.

    Args:
        make: makes the capture.
        target: where; what lies there stays until the result is whole.
        reference: a prepared image on the same grid.
        size_px: of the grid.

    Returns:
        What was made, and what the estimate says (`reference` is left to the caller: ""); None for a capture
        that covers too little.

    Raises:
        ImageError: the source or the reference cannot be read.
        DataError: the disk is full.
    """
    beside = target.with_name(f".{target.stem}.unmoved.part{target.suffix}")
    try:
        made = make(beside, (0.0, 0.0))
        if not made.n_bytes:
            return made, None
        shift = shift_onto(beside, reference, size_px)
        dx, dy = round(shift.dx_px, 3), round(shift.dy_px, 3)
        applied = shift.trusted and max(abs(dx), abs(dy)) >= LEAST_SHIFT_PX
        told = Registered("", dx, dy, round(shift.peak, 6), shift.trusted, applied)
        if not applied:
            with wrap_write_errors(target):
                beside.replace(target)
            return made, told
        return make(target, (dx, dy)), told
    finally:
        beside.unlink(missing_ok=True)


def shift_onto(moving: Path, fixed: Path, size_px: tuple[int, int]) -> Shift:
    """How far a prepared image must move to lie on another of its grid, in pixels of the grid.

    Both are looked at with at most `LOOKED_AT_PX` a side, on the part where both are valid.
    """
    scale = max(1.0, max(size_px) / LOOKED_AT_PX)
    seen_px = None if scale == 1.0 else (round(size_px[0] / scale), round(size_px[1] / scale))
    valid = read_valid(moving, size_px=seen_px) & read_valid(fixed, size_px=seen_px)
    shift = estimate_shift(read_values(moving, size_px=seen_px), read_values(fixed, size_px=seen_px), valid)
    down, across = (1.0, 1.0) if seen_px is None else (size_px[0] / seen_px[0], size_px[1] / seen_px[1])
    return Shift(shift.dx_px * across, shift.dy_px * down, shift.peak, shift.trusted)


def is_sar_of_stack(item: Item) -> bool:
    """Whether an item is of the kind that is registered."""
    return item.seen.entry.modality == "sar" and item.seen.entry.family == "stack"


def with_references(items: Sequence[Item], record_of: Callable[[Item], Record | None]) -> list[Item]:
    """The items, each SAR of a stack location with the prepared optical image to register it to.

    That is the location's RGB mosaic, else its first RGB, else its IR; without any the item stays as it is.
    """
    references: dict[Place, tuple[Item, Record]] = {}
    optical = (item for item in items if item.place[0] == "stack" and not is_sar_of_stack(item))
    for item in sorted(optical, key=lambda item: reference_rank(item.seen)):
        record = record_of(item)
        if record and record.out_bytes:
            references.setdefault(item.place, (item, record))
    return [
        item.registered_to(*references[item.place])
        if is_sar_of_stack(item) and item.place in references
        else item
        for item in items
    ]


def registration_row(item: Item, record: Record) -> tuple[Any, ...] | None:
    """A capture's row of `registration.csv`; None for one that was not compared."""
    told = record.registered
    if told is None:
        return None
    e = item.seen.entry
    numbers = (f"{told.dx_px:.3f}", f"{told.dy_px:.3f}", f"{told.peak:.6f}")
    return (e.city, e.location, e.capture, told.reference, *numbers, told.trusted, told.applied)
