"""A page to look at: the captures of a location side by side, and how they lie on each other."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import DataError, UsageError, did_you_mean
from pbvs.core.pixels import write_png
from pbvs.dataset.index import Capture, PreparedData
from pbvs.prepare.grid import Valid
from pbvs.prepare.rasters import Box, read_valid, read_values
from pbvs.report import location_draw as draw
from pbvs.report.location_draw import Picture

Location = tuple[str, str, str]  # family, city ("" for tiles), location

LOCATION_COLUMNS = ("family", "city", "location", *MODALITIES)

_MARGIN_PX = 24
_MOST_OF_A_MODALITY = 16
_MOST_OVERLAYS = 12
# Captures on the page, up to which they are shown this large, so many in a row.
_THUMBNAILS = ((3, 520, 3), (8, 384, 4), (24, 256, 6), (10_000, 190, 8))
_ZOOM = 2  # of the detail
_N_NEAREST = 5


# ---- which location


def locations_table(prepared: PreparedData, city: str | None = None) -> pd.DataFrame:
    """One row a location, with `LOCATION_COLUMNS`: how many captures of each modality it has; sorted.

    Raises:
        UsageError: no such city.
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
        UsageError: there is none, or one in several cities; says what there is.
    """
    rows = locations_table(prepared, city)[["family", "city", "location"]]
    known: list[Location] = list(rows.itertuples(index=False, name=None))
    found = [one for one in known if name in (one[2], "/".join(one[1:]))]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join("/".join(one[1:]) for one in found)
        raise UsageError(
            f"{len(found)} locations are called {name!r}",
            where=prepared.root,
            next_step=f"give one of {places}",
        )
    names = sorted({one[2] for one in known} if "/" not in name else {"/".join(one[1:]) for one in known})
    close = difflib.get_close_matches(name, names, n=_N_NEAREST, cutoff=0.0)
    raise UsageError(
        f"no location is called {name!r}" + (f" in {city}" if city else ""),
        where=prepared.root,
        next_step=did_you_mean(name, close) + (" ..." if len(close) < len(names) else ""),
    )


def captures_of(prepared: PreparedData, location: Location) -> list[Capture]:
    """The captures of a location: by modality, mosaics first, then by time and name."""
    family, *key = location
    assert family in FAMILIES
    found = [
        capture
        for modality in MODALITIES
        for capture in prepared.listed(family, modality)
        if [capture.city, capture.location] == key
    ]
    return sorted(found, key=lambda c: (MODALITIES.index(c.modality), not c.mosaic, c.taken, c.capture))


# ---- the page


def write_page(prepared: PreparedData, location: Location, out: Path | None, *, overwrite: bool) -> int:
    """Writes the page of one location as a PNG, whole or not at all; gives the number of its captures.

    Raises:
        UsageError: `out` is missing, no `.png`, or there already and `overwrite` is not given.
        ImageError: a capture is missing or torn.
        DataError: the page cannot be written there.
    """
    if out is None or out.suffix.lower() != ".png":
        raise UsageError("a page is written to a .png file", where=out, next_step="give --out PAGE.png")
    if out.exists() and not overwrite:
        raise UsageError(
            "there is a file already", where=out, next_step="choose another name, or give --overwrite"
        )
    captures = captures_of(prepared, location)
    picture = page(location, captures)
    try:
        write_png(out, picture)
    except OSError as error:
        raise DataError(
            f"the page cannot be written: {error.strerror or error}",
            where=out,
            next_step="choose another place",
        ) from error
    return len(captures)


def page(location: Location, captures: Sequence[Capture]) -> Picture:
    """The page of one location, `H,W,3` uint8: its captures, then the SAR over its reference.

    The reference is RGB, else EO, else IR; a location without SAR shows all others over it.

    Raises:
        ImageError: a capture is missing or torn.
    """
    parts = [_title(location, captures), _thumbnails(captures)]
    reference = _reference(captures)
    others = [one for one in captures if one is not reference]
    over = [one for one in others if one.modality == "sar"] or others
    return _stacked(parts + (_overlays(reference, over) if over else []))


def _reference(captures: Sequence[Capture]) -> Capture:
    """What the others are laid over: RGB, else EO, else IR; a mosaic if there is one."""
    order = ("rgb", "eo", "ir", "sar")
    return min(captures, key=lambda c: (order.index(c.modality), not c.mosaic, c.taken, c.capture))


def _title(location: Location, captures: Sequence[Capture]) -> Picture:
    sheet = draw.paper(62, 1600)
    draw.write_line(sheet, " / ".join(filter(None, location[1:])), (0, 26), 0.8)
    counts = [(m, sum(c.modality == m for c in captures)) for m in MODALITIES]
    told = ", ".join(f"{n} {m.upper()}" for m, n in counts if n)
    draw.write_line(sheet, f"{told}, as stored. No image:", (0, 52), 0.45, draw.FAINT)
    left = 12 + cv2.getTextSize(f"{told}, as stored. No image:", cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]
    sheet[38:58, left : left + 40] = draw.hatched(draw.paper(20, 40), np.zeros((20, 40), bool))
    return sheet


def _thumbnails(captures: Sequence[Capture]) -> Picture:
    by_modality = [[c for c in captures if c.modality == m] for m in MODALITIES]
    n_cells = sum(min(len(some), _MOST_OF_A_MODALITY + 1) for some in by_modality)
    side_px, n_columns = next((side, n) for most, side, n in _THUMBNAILS if n_cells <= most)
    cells = []
    for some in by_modality:
        shown = some if len(some) <= _MOST_OF_A_MODALITY + 1 else some[:_MOST_OF_A_MODALITY]
        cells += [_thumbnail(capture, side_px) for capture in shown]
        if len(shown) < len(some):
            cells.append(_more(len(some) - len(shown), some[0].modality, side_px))
    return draw.in_rows(cells, n_columns)


def _thumbnail(capture: Capture, side_px: int) -> Picture:
    picture, valid = _seen(capture, side_px)
    return draw.framed(draw.hatched(picture, valid), side_px, _captions(capture))


def _captions(capture: Capture) -> tuple[str, str, str]:
    return (
        f"{capture.modality.upper()}  {capture.capture}",
        capture.taken.replace("T", " ") or "no date in its name",
        f"{capture.height_px} x {capture.width_px} px, {_percent(capture.valid_fraction)} valid",
    )


def _percent(part: float) -> str:
    """Rounded down, so that 100 % means every pixel."""
    return "100 %" if part == 1.0 else f"{np.floor(part * 1000) / 10:.1f} %"


def _more(n: int, modality: str, side_px: int) -> Picture:
    cell = draw.framed(draw.paper(side_px, side_px), side_px, ("", "", ""))
    draw.write_line(cell, f"and {n} more {modality.upper()}", (16, side_px // 2), 0.5)
    return cell


def _seen(capture: Capture, side_px: int) -> tuple[Picture, Valid]:
    """A capture no larger than `side_px`, as `H,W,3`, and its validity."""
    scale = side_px / max(capture.height_px, capture.width_px)
    size_px = (max(1, round(capture.height_px * scale)), max(1, round(capture.width_px * scale)))
    coarse_px = size_px if scale < 1.0 else None
    picture, valid = draw.as_rgb(read_values(capture.path, None, coarse_px)), _valid(capture, None, coarse_px)
    if picture.shape[:2] != size_px:
        picture = cv2.resize(picture, size_px[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        valid = cv2.resize(valid.astype(np.uint8), size_px[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return picture, valid


def _valid(capture: Capture, box: Box | None, size_px: tuple[int, int] | None) -> Valid:
    if capture.valid_fraction < 1.0:
        return read_valid(capture.path, box, size_px)
    return np.ones(size_px or (box[2:] if box else (capture.height_px, capture.width_px)), bool)


# ---- one over the other


def _overlays(reference: Capture, over: Sequence[Capture]) -> list[Picture]:
    shown = over if len(over) <= _MOST_OVERLAYS else over[:_MOST_OVERLAYS]
    side_px, n_columns = (520, 1) if len(shown) <= 3 else (256, 2)
    heading = draw.paper(64, 1600)
    kinds = "/".join(dict.fromkeys(one.modality.upper() for one in over))
    more = f"; {len(shown)} of {len(over)} are shown" if len(shown) < len(over) else ""
    title = f"{kinds} over {reference.modality.upper()} {reference.capture}{more}"
    draw.write_line(heading, draw.fitted(title, 1560, 0.65), (0, 30), 0.65)
    told = "checkerboard of the whole; a detail, 2 x; the detail under the outlines of the reference"
    draw.write_line(heading, f"{told}. Contrast stretched.", (0, 54), 0.45, draw.FAINT)
    return [heading, draw.in_rows([_overlay(reference, one, side_px) for one in shown], n_columns, 24)]


def _overlay(reference: Capture, one: Capture, side_px: int) -> Picture:
    """Three panels: squares of both in turn; a detail of that; the detail under the reference's outlines."""
    (below, below_valid), (above, above_valid) = (_seen(capture, side_px) for capture in (reference, one))
    both = below_valid & above_valid
    tint = draw.tinted if reference.modality != "rgb" else np.asarray  # two gray ones look the same
    board = draw.checkerboard(tint(draw.stretched(above, above_valid)), draw.stretched(below, below_valid))
    box = _telling_box(below, above, both, reference, side_px // _ZOOM)
    (fine_below, fine_both), (fine_above, also) = (_detail(capture, box) for capture in (reference, one))
    fine_both &= also
    lines = draw.outlines(fine_below, fine_both)
    details = (draw.checkerboard(tint(fine_above), fine_below, 4), draw.with_lines(fine_above, lines))
    pictures = [
        draw.hatched(board, both),
        *(draw.hatched(draw.enlarged(d, _ZOOM), draw.enlarged(fine_both, _ZOOM)) for d in details),
    ]
    captions = (
        "  ".join(_captions(one)[:2]),
        f"rows {box[0]} to {box[0] + box[2] - 1}, columns {box[1]} to {box[1] + box[3] - 1}",
        f"outlines of {reference.modality.upper()} {reference.capture}",
    )
    cells = [draw.framed(p, side_px, (c,)) for p, c in zip(pictures, captions, strict=True)]
    return draw.in_rows(cells, 3, 8)


def _telling_box(below: Picture, above: Picture, both: Valid, reference: Capture, side_px: int) -> Box:
    """The part of the grid, `side_px` a side or all there is, where both coarse pictures have most edges."""
    strengths = [np.hypot(*draw.gradient(picture, both)) for picture in (below, above)]
    # One strong edge, as of a tank or a border, counts no more than common ones.
    common = [np.minimum(strength, 3 * strength.mean()) for strength in strengths]
    rows, columns = both.shape
    height, width = min(side_px, reference.height_px), min(side_px, reference.width_px)
    high = max(1, height * rows // reference.height_px)
    wide = max(1, width * columns // reference.width_px)
    together = common[0] * common[1]
    sums = cv2.boxFilter(together, -1, (wide, high), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    sums = sums[: rows - high + 1, : columns - wide + 1]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    top = min(round(int(row) * reference.height_px / rows), reference.height_px - height)
    left = min(round(int(column) * reference.width_px / columns), reference.width_px - width)
    return top, left, height, width


def _detail(capture: Capture, box: Box) -> tuple[Picture, Valid]:
    valid = _valid(capture, box, None)
    picture = draw.stretched(draw.as_rgb(read_values(capture.path, box)), valid)
    return (draw.smoothed(picture) if capture.modality == "sar" else picture), valid


def _stacked(parts: Sequence[Picture]) -> Picture:
    width = max(part.shape[1] for part in parts) + 2 * _MARGIN_PX
    sheet = draw.paper(sum(part.shape[0] + _MARGIN_PX for part in parts) + _MARGIN_PX, width)
    top = _MARGIN_PX
    for part in parts:
        height, wide = part.shape[:2]
        sheet[top : top + height, _MARGIN_PX : _MARGIN_PX + wide] = part
        top += height + _MARGIN_PX
    return sheet
