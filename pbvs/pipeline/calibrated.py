"""What a calibration found, a picture of its curve, and the task with what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray

from pbvs.core.charts import Line, Mark, line_chart
from pbvs.graph.spec import TaskSpec, without_none

By = Literal["l2", "l1", "score"]
WriteAs = Literal["factor", "table", "mix"]
FACTORS = np.arange(200, 3001) / 1000  # every thousandth
_DRAWN = 1.25  # the curve is drawn where the error is at most so many times the least


@dataclass(frozen=True)
class Fit:
    """A way to make gray of colour and its pixel errors, means over images, in [0,1].

    Attributes:
        l1, l2: on the pairs that it was fitted to.
        l1_heldout, l2_heldout: on each fifth of the locations when fitted to the others; None where there
            is one location.
    """

    l1: float
    l2: float
    l1_heldout: float | None
    l2_heldout: float | None


@dataclass(frozen=True)
class Candidate:
    """A factor's whole task score on some of the pairs."""

    factor: float
    score: float
    interval95: tuple[float, float] | None


@dataclass(frozen=True)
class Calibration:
    """What was found; errors are means over images of errors over valid pixels, in [0,1].

    Attributes:
        factor: the best by `by`.
        present: the task's own factor, with its errors.
        best, table, mix: errors of the best factor, of the best table, of the best mix of bands.
        flat: the factors whose error is within 1 % of the least.
        fold_factors: the best factors of the five parts of the locations left out in turn.
        cities: the best factor of each city alone.
        tone: the table's values, `766` in 0..255.
        weights, offset: the mix.
        curve_l1, curve_l2: errors at `FACTORS`.
        candidates: whole scores, where `by` is `score`.
        images, locations, pixels: how many there were.
    """

    task: str
    by: By
    factor: float
    present_factor: float
    present: Fit
    best: Fit
    table: Fit
    mix: Fit
    flat: tuple[float, float]
    fold_factors: tuple[float, ...]
    cities: dict[str, float]
    tone: tuple[float, ...]
    weights: tuple[float, float, float]
    offset: float
    curve_l1: NDArray[np.float64]
    curve_l2: NDArray[np.float64]
    candidates: tuple[Candidate, ...]
    images: int
    locations: int
    pixels: int

    @property
    def ways(self) -> dict[str, Fit]:
        """The errors of every way to make gray, by a name for people."""
        return {
            f"factor {self.present_factor:g} (the task's)": self.present,
            f"factor {self.factor:g} (best)": self.best,
            "free table": self.table,
            "mix of bands": self.mix,
        }

    @property
    def verdict(self) -> str | None:
        """Which way is the best on locations it was not fitted to; None where there is one location."""
        term = "l1" if self.by == "l1" else "l2"
        heldout = {name: getattr(fit, f"{term}_heldout") for name, fit in self.ways.items()}
        if None in heldout.values():
            return None
        best = min(heldout, key=lambda name: heldout[name])
        told = f"on locations left out, {best} has the least {term.upper()}: {heldout[best]:.4f}"
        present, factor = list(heldout)[:2]
        by_pixels = self.by != "score"
        if by_pixels and heldout[present] <= heldout[factor] and self.factor != self.present_factor:
            told += (
                f"; the best factor does no better there than the task's ({heldout[factor]:.4f} and "
                f"{heldout[present]:.4f}): there is no reason to change it"
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """What `pbvs calibrate --json` gives."""
        return {
            "schema": 1,
            "task": self.task,
            "factor": self.factor,
            "by": self.by,
            "l1": self.best.l1,
            "l2": self.best.l2,
            "pixels": self.pixels,
            "images": self.images,
            "locations": self.locations,
            "flat": list(self.flat),
            "heldout": {
                "factors": list(self.fold_factors),
                "l1": self.best.l1_heldout,
                "l2": self.best.l2_heldout,
            },
            "present": {"factor": self.present_factor, "l1": self.present.l1, "l2": self.present.l2},
            "cities": self.cities,
            "table": vars(self.table),
            "mix": {"weights": list(self.weights), "offset": self.offset, **vars(self.mix)},
            "verdict": self.verdict,
            "candidates": [vars(candidate) for candidate in self.candidates],
        }


def chart(found: Calibration) -> str:
    """The errors of all factors near the best as an SVG."""
    curve = found.curve_l1 if found.by == "l1" else found.curve_l2
    near = (curve <= curve.min() * _DRAWN) | (abs(FACTORS - found.present_factor) < 0.1)
    x = FACTORS[near]
    lines = [
        Line("L2 (root mean square)", x, found.curve_l2[near]),
        Line("L1 (mean absolute)", x, found.curve_l1[near]),
    ]
    low, high = found.flat
    marks = [
        Mark(low, f"within 1 % of the least: {low:g} to {high:g}", high),
        Mark(found.factor, f"best by {found.by}: {found.factor:g}"),
        Mark(found.present_factor, f"the task's: {found.present_factor:g}"),
    ]
    title = f"{found.task}: pixel error by intensity factor, {found.images} pairs"
    return line_chart(title, "intensity factor", "error of pixels in [0,1]", lines, marks)


def task_with(spec: TaskSpec, found: Calibration, write_as: WriteAs) -> str:
    """The task as TOML, whole, with the factor, the free table or the mix of bands that was found.

    Args:
        spec: the task that was calibrated, ending in grayscale and intensity.
    """
    settings = without_none(spec.resolved())
    nodes = settings["nodes"]
    intensity = nodes[spec.output]
    if write_as == "factor":
        intensity["factor"] = found.factor
    else:
        grayscale = nodes.pop(intensity["inputs"][0])
        del nodes[spec.output]
        name = "tone_table" if write_as == "table" else "band_mix"
        values: dict[str, Any] = (
            {"values": [round(v, 2) for v in found.tone]}
            if write_as == "table"
            else {"weights": list(found.weights), "offset": found.offset}
        )
        nodes[name] = {"use": name, "inputs": grayscale["inputs"], **values}
        settings["output"] = name
    told = (
        f"# {found.task}, calibrated by {found.by} on {found.images} pairs of {found.locations} locations.\n"
    )
    return told + tomli_w.dumps(settings)
