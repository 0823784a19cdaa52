"""A PNG page of one location: its captures side by side, and SAR over the reference."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pbvs.archives.layouts import MODALITIES
from pbvs.core.errors import DataError, UsageError, did_you_mean
from pbvs.core.pixels import write_png
from pbvs.core.types import Image8, Mask
from pbvs.dataset.index import Capture, PreparedData
from pbvs.dataset.pairs import Location
from pbvs.prepare.rasters import Box, read_valid, read_values
from pbvs.report import location_draw as draw

LOCATION_COLUMNS = ("family", "city", "location", *MODALITIES)

_MARGIN_PX = 24
_MAX_PER_MODALITY = 16
_MAX_OVERLAYS = 12
# (most captures on the page, thumbnail side in pixels, thumbnails per row)
_THUMBNAILS = ((3, 520, 3), (8, 384, 4), (24, 256, 6), (10_000, 190, 8))
_ZOOM = 2  # of the detail
_N_SUGGESTIONS = 5
# The base of the overlays: the first of these modalities.
_REFERENCE_ORDER = ("rgb", "eo", "ir", "sar")
_PANELS = (
    "checkerboard of the whole; a detail, 2 x; the detail under the outlines of the reference. "
    "Contrast stretched."
)


def locations_table(prepared: PreparedData, city: str | None = None) -> pd.DataFrame:
    """One row per location, with `LOCATION_COLUMNS`: its captures per modality; sorted.

    Raises:
        UsageError: the city is unknown.
    """
    table = prepared.table
    if city is not None:
        table = table[table.city == city]
        if table.empty:
            cities = sorted(set(prepared.table.city) - {""})
            raise UsageError(
                f"no city is called {city!r}", where=prepared.root, next_step=did_you_mean(city, cities)
            )
    counts = table.groupby(["family", "city", "location", "modality"]).size().unstack(fill_value=0)
    return counts.reindex(columns=list(MODALITIES), fill_value=0).reset_index().rename_axis(columns=None)


def find_location(prepared: PreparedData, name: str, city: str | None = None) -> Location:
    """The location of this name, `location` or `city/location`.

    Raises:
        UsageError: none matches, or several cities have one; lists the candidates.
    """
    rows = locations_table(prepared, city)[["family", "city", "location"]]
    known: list[Location] = list(rows.itertuples(index=False, name=None))
    found = [one for one in known if name in (one[2], "/".join(one[1:]))]
    if len(found) == 1:
        return found[0]
    if found:
        candidates = ", ".join("/".join(one[1:]) for one in found)
        raise UsageError(
            f"{len(found)} locations are called {name!r}",
            where=prepared.root,
            next_step=f"give one of {candidates}",
        )
    names = sorted({one[2] for one in known} if "/" not in name else {"/".join(one[1:]) for one in known})
    close = difflib.get_close_matches(name, names, n=_N_SUGGESTIONS, cutoff=0.0)
    raise UsageError(
        f"no location is called {name!r}" + (f" in {city}" if city else ""),
        where=prepared.root,
        next_step=did_you_mean(name, close) + (" ..." if len(close) < len(names) else ""),
    )


def captures_of(prepared: PreparedData, location: Location) -> list[Capture]:
    """The captures of a location: by modality, mosaics first, then by time and name."""
    family, *key = location
    captures = [one for modality in MODALITIES for one in prepared.listed(family, modality)]
    return sorted(
        (one for one in captures if [one.city, one.location] == key),
        key=lambda c: (MODALITIES.index(c.modality), not c.mosaic, c.acquired_at, c.capture),
    )


def write_page(prepared: PreparedData, location: Location, out: Path | None, *, overwrite: bool) -> int:
    """Writes the page of one location as a PNG, atomically; returns the number of its captures.

    Raises:
        UsageError: `out` is missing or no `.png`, or exists and `overwrite` is not given.
        ImageError: a capture is missing, truncated or corrupt.
        DataError: the page cannot be written there.
    """
    if out is None or out.suffix.lower() != ".png":
        raise UsageError("a page is written to a .png file", where=out, next_step="give --out PAGE.png")
    if out.exists() and not overwrite:
        raise UsageError(
            "the file already exists", where=out, next_step="choose another name, or give --overwrite"
        )
    captures = captures_of(prepared, location)
    picture = page(location, captures)
    try:
        write_png(out, picture)
    except OSError as error:
        raise DataError(
            f"the page cannot be written: {error.strerror or error}",
            where=out,
            next_step="choose another folder",
        ) from error
    return len(captures)


def page(location: Location, captures: Sequence[Capture]) -> Image8:
    """The page of one location, `H,W,3` uint8: its captures, then the SAR over the reference.

    The reference is RGB, else EO, else IR; a mosaic if there is one. Without SAR, all other captures are
    drawn over it.

    Raises:
        ImageError: a capture is missing, truncated or corrupt.
    """
    title = draw.paper(62, 1600)
    draw.write_line(title, " / ".join(filter(None, location[1:])), (0, 26), 0.8)
    counts = [(m, sum(c.modality == m for c in captures)) for m in MODALITIES]
    legend = ", ".join(f"{n} {m.upper()}" for m, n in counts if n) + ", as stored. No image:"
    draw.write_line(title, legend, (0, 52), 0.45, draw.FAINT)
    left = 12 + cv2.getTextSize(legend, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]
    title[38:58, left : left + 40] = draw.hatched(draw.paper(20, 40), np.zeros((20, 40), bool))
    parts = [title, _thumbnails(captures)]
    reference = min(
        captures, key=lambda c: (_REFERENCE_ORDER.index(c.modality), not c.mosaic, c.acquired_at, c.capture)
    )
    others = [one for one in captures if one is not reference]
    if over := [one for one in others if one.modality == "sar"] or others:
        drawn = over[:_MAX_OVERLAYS]
        kinds = "/".join(dict.fromkeys(one.modality.upper() for one in over))
        more = f"; {len(drawn)} of {len(over)} are shown" if len(drawn) < len(over) else ""
        text = f"{kinds} over {reference.modality.upper()} {reference.capture}{more}"
        heading = draw.paper(64, 1600)
        draw.write_line(heading, draw.fitted(text, 1560, 0.65), (0, 30), 0.65)
        draw.write_line(heading, _PANELS, (0, 54), 0.45, draw.FAINT)
        side_px, n_columns = (520, 1) if len(drawn) <= 3 else (256, 2)
        overlays = [_overlay(reference, one, side_px) for one in drawn]
        parts += [heading, draw.in_rows(overlays, n_columns, 24)]
    sheet = draw.paper(
        sum(part.shape[0] + _MARGIN_PX for part in parts) + _MARGIN_PX,
        max(part.shape[1] for part in parts) + 2 * _MARGIN_PX,
    )
    top = _MARGIN_PX
    for part in parts:
        height, width = part.shape[:2]
        sheet[top : top + height, _MARGIN_PX : _MARGIN_PX + width] = part
        top += height + _MARGIN_PX
    return sheet


def _thumbnails(captures: Sequence[Capture]) -> Image8:
    """All captures with their captions, the first 16 per modality; one more cell counts the rest."""
    by_modality = [[c for c in captures if c.modality == m] for m in MODALITIES]
    n_cells = sum(min(len(group), _MAX_PER_MODALITY + 1) for group in by_modality)
    side_px, n_columns = next((side, n) for most, side, n in _THUMBNAILS if n_cells <= most)
    cells = []
    for group in by_modality:
        n_drawn = len(group) if len(group) <= _MAX_PER_MODALITY + 1 else _MAX_PER_MODALITY
        for capture in group[:n_drawn]:
            cells.append(draw.framed(draw.hatched(*_view(capture, side_px)), side_px, _captions(capture)))
        if n_drawn < len(group):
            rest = draw.framed(draw.paper(side_px, side_px), side_px, ("", "", ""))
            text = f"and {len(group) - n_drawn} more {group[0].modality.upper()}"
            draw.write_line(rest, text, (16, side_px // 2), 0.5)
            cells.append(rest)
    return draw.in_rows(cells, n_columns)


def _captions(capture: Capture) -> tuple[str, str, str]:
    # Rounded down, so that 100 % means every pixel.
    percent = np.floor(capture.valid_fraction * 1000) / 10
    valid = "100 %" if capture.valid_fraction == 1.0 else f"{percent:.1f} %"
    return (
        f"{capture.modality.upper()}  {capture.capture}",
        capture.acquired_at.replace("T", " ") or "no date in its name",
        f"{capture.height_px} x {capture.width_px} px, {valid} valid",
    )


def _view(capture: Capture, side_px: int) -> tuple[Image8, Mask]:
    """A capture no larger than `side_px`, as `H,W,3`, and its mask."""
    scale = side_px / max(capture.height_px, capture.width_px)
    size_px = (max(1, round(capture.height_px * scale)), max(1, round(capture.width_px * scale)))
    coarse_px = size_px if scale < 1.0 else None
    picture, valid = draw.as_rgb(read_values(capture.path, None, coarse_px)), _mask(capture, None, coarse_px)
    if picture.shape[:2] != size_px:
        picture = cv2.resize(picture, size_px[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        valid = cv2.resize(valid.astype(np.uint8), size_px[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return picture, valid


def _mask(capture: Capture, box: Box | None, size_px: tuple[int, int] | None) -> Mask:
    if capture.valid_fraction < 1.0:
        return read_valid(capture.path, box, size_px)
    return np.ones(size_px or (box[2:] if box else (capture.height_px, capture.width_px)), bool)


def _overlay(reference: Capture, one: Capture, side_px: int) -> Image8:
    """Three panels: a checkerboard of both; a detail of it; the detail under the reference's outlines."""
    (below, below_valid), (above, above_valid) = (_view(capture, side_px) for capture in (reference, one))
    valid = below_valid & above_valid
    tint = draw.tinted if reference.modality != "rgb" else np.asarray  # two gray images look the same
    board = draw.checkerboard(tint(draw.stretched(above, above_valid)), draw.stretched(below, below_valid))
    box = _detail_box(below, above, valid, reference, side_px // _ZOOM)
    details, masks = [], []
    for capture in (reference, one):
        masks.append(_mask(capture, box, None))
        detail = draw.stretched(draw.as_rgb(read_values(capture.path, box)), masks[-1])
        details.append(draw.smoothed(detail) if capture.modality == "sar" else detail)
    fine_valid = masks[0] & masks[1]
    fine = draw.checkerboard(tint(details[1]), details[0], 4)
    outlined = draw.with_lines(details[1], draw.outlines(details[0], fine_valid))
    pictures = [
        draw.hatched(board, valid),
        *(
            draw.hatched(draw.enlarged(part, _ZOOM), draw.enlarged(fine_valid, _ZOOM))
            for part in (fine, outlined)
        ),
    ]
    captions = (
        "  ".join(_captions(one)[:2]),
        f"rows {box[0]} to {box[0] + box[2] - 1}, columns {box[1]} to {box[1] + box[3] - 1}",
        f"outlines of {reference.modality.upper()} {reference.capture}",
    )
    cells = [draw.framed(p, side_px, (c,)) for p, c in zip(pictures, captions, strict=True)]
    return draw.in_rows(cells, 3, 8)


def _detail_box(below: Image8, above: Image8, valid: Mask, reference: Capture, side_px: int) -> Box:
    """The part of the grid, `side_px` a side or the whole, where both coarse pictures have most edges."""
    strengths = [np.hypot(*draw.gradient(picture, valid)) for picture in (below, above)]
    # One strong edge, as of a tank or a border, counts no more than common ones.
    capped = [np.minimum(strength, 3 * strength.mean()) for strength in strengths]
    rows, columns = valid.shape
    height, width = min(side_px, reference.height_px), min(side_px, reference.width_px)
    high = max(1, height * rows // reference.height_px)
    wide = max(1, width * columns // reference.width_px)
    joint = capped[0] * capped[1]
    sums = cv2.boxFilter(joint, -1, (wide, high), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    sums = sums[: rows - high + 1, : columns - wide + 1]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    top = min(round(int(row) * reference.height_px / rows), reference.height_px - height)
    left = min(round(int(column) * reference.width_px / columns), reference.width_px - width)
    return top, left, height, width
