"""The residual shift of SAR against its location's optical image: estimated, recorded, and corrected.

Only SAR captures of stack locations are shifted. EO/SAR tiles stay as they are: each is a pair of one size
without georeference, and the test tiles are not shifted either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pbvs.prepare.capture import Made
from pbvs.prepare.plan import FamilyLocation, Item, reference_rank
from pbvs.prepare.rasters import read_valid, read_values
from pbvs.prepare.records import Record, Registration, wrap_write_errors
from pbvs.prepare.register import Shift, estimate_shift

REGISTRATION_NAME = "registration.csv"
REGISTRATION_COLUMNS = (
    *("city", "location", "capture", "reference"),
    *("dx_px", "dy_px", "peak", "trusted", "applied"),
)
COMPARED_PX = 2048  # larger images are compared at this side
MIN_SHIFT_PX = 0.1  # less is within the error of the estimate, and not worth a resampling


def make_registered(make: Callable[..., Made], out: Path, item: Item) -> tuple[Made, Registration | None]:
    """Writes a capture, shifted onto its reference where the estimated shift is trusted.

    A shifted capture is written anew from its source: one warp, not two resamplings.

    Args:
        make: writes the capture to a path: `make(path)`, `make(path, shift_px=(dx, dy))`.
        out: the prepared folder; what `item.out` holds stays until the result is complete.
        item: the capture, with a reference and its grid.

    Returns:
        The capture's size and coverage, and the registration; None for a capture that covers too little.

    Raises:
        ImageError: the source or the reference cannot be read.
        DataError: the disk is full.
    """
    assert item.grid is not None
    target = out / item.out
    unshifted = target.with_name(f".{target.stem}.unmoved.part{target.suffix}")
    try:
        capture = make(unshifted)
        if not capture.n_bytes:
            return capture, None
        shift = shift_onto(unshifted, out / item.reference, item.grid.size_px)
        dx, dy = round(shift.dx_px, 3), round(shift.dy_px, 3)
        applied = shift.trusted and max(abs(dx), abs(dy)) >= MIN_SHIFT_PX
        if applied:
            capture = make(target, shift_px=(dx, dy))
        else:
            with wrap_write_errors(target):
                unshifted.replace(target)
        return capture, Registration(item.reference, dx, dy, round(shift.peak, 6), shift.trusted, applied)
    finally:
        unshifted.unlink(missing_ok=True)


def shift_onto(moving: Path, fixed: Path, size_px: tuple[int, int]) -> Shift:
    """The shift of a prepared image onto another of the same grid, in pixels of the grid.

    Both are read with at most `COMPARED_PX` per side, and compared where both are valid.
    """
    scale = max(1.0, max(size_px) / COMPARED_PX)
    read_px = None if scale == 1.0 else (round(size_px[0] / scale), round(size_px[1] / scale))
    valid = read_valid(moving, size_px=read_px) & read_valid(fixed, size_px=read_px)
    shift = estimate_shift(read_values(moving, size_px=read_px), read_values(fixed, size_px=read_px), valid)
    down, across = (1.0, 1.0) if read_px is None else (size_px[0] / read_px[0], size_px[1] / read_px[1])
    return Shift(shift.dx_px * across, shift.dy_px * down, shift.peak, shift.trusted)


def is_stack_sar(item: Item) -> bool:
    """Whether an item is of the kind that is registered."""
    return item.modality == "sar" and item.location[0] == "stack"


def with_references(items: Sequence[Item], record_of: Callable[[Item], Record | None]) -> list[Item]:
    """The items, each SAR of a stack location with the prepared optical image to register it to.

    That is the location's RGB mosaic, else its first RGB, else its IR; without any the item stays as it is.
    """
    references: dict[FamilyLocation, tuple[Item, Record]] = {}
    optical = (item for item in items if item.location[0] == "stack" and not is_stack_sar(item))
    for item in sorted(optical, key=lambda item: reference_rank(item.image)):
        record = record_of(item)
        if record and record.out_bytes:
            references.setdefault(item.location, (item, record))
    return [
        item.registered_to(*references[item.location])
        if is_stack_sar(item) and item.location in references
        else item
        for item in items
    ]


def registration_row(item: Item, record: Record) -> tuple[Any, ...] | None:
    """A capture's row of `registration.csv`; None for one that was not compared."""
    registration = record.registration
    if registration is None:
        return None
    e = item.image.entry
    numbers = (f"{registration.dx_px:.3f}", f"{registration.dy_px:.3f}", f"{registration.peak:.6f}")
    names = (e.city, e.location, e.capture, registration.reference)
    return (*names, *numbers, registration.trusted, registration.applied)
