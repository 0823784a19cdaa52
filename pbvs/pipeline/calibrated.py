"""The result of a calibration, a picture of its curve, and the calibrated task."""

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
_DRAWN = 1.25  # the curve is drawn where the error is at most so many times the lowest


@dataclass(frozen=True)
class Fit:
    """Pixel errors of one conversion from colour to gray, means over images, in [0,1].

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
class ScoredFactor:
    """A factor's whole task score on some of the pairs."""

    factor: float
    score: float
    interval95: tuple[float, float] | None


@dataclass(frozen=True)
class Calibration:
    """The result; errors are means over images of errors over valid pixels, in [0,1].

    Attributes:
        factor: the best by `by`.
        current_factor, current: the task's own factor, and its errors.
        best, lut, mix: errors of the best factor, of the best free table, of the best mix of bands.
        plateau: lowest and highest factor whose error is within 1 % of the lowest.
        fold_factors: the best factors when each fifth of the locations is left out.
        cities: the best factor of each city alone.
        lut_values: the free table, `766` in 0..255.
        weights, offset: the mix.
        curve_l1, curve_l2: errors at `FACTORS`.
        scored: whole scores, where `by` is `score`.
        images, locations, pixels: counts.
    """

    task: str
    by: By
    factor: float
    current_factor: float
    current: Fit
    best: Fit
    lut: Fit
    mix: Fit
    plateau: tuple[float, float]
    fold_factors: tuple[float, ...]
    cities: dict[str, float]
    lut_values: tuple[float, ...]
    weights: tuple[float, float, float]
    offset: float
    curve_l1: NDArray[np.float64]
    curve_l2: NDArray[np.float64]
    scored: tuple[ScoredFactor, ...]
    images: int
    locations: int
    pixels: int

    @property
    def candidates(self) -> dict[str, Fit]:
        """The errors of every conversion to gray, by a name for people."""
        return {
            f"factor {self.current_factor:g} (the task's)": self.current,
            f"factor {self.factor:g} (best)": self.best,
            "free table": self.lut,
            "mix of bands": self.mix,
        }

    @property
    def conclusion(self) -> str | None:
        """Which candidate is the best on locations it was not fitted to; None where there is one location."""
        term = "l1" if self.by == "l1" else "l2"
        heldout = {name: getattr(fit, f"{term}_heldout") for name, fit in self.candidates.items()}
        if None in heldout.values():
            return None
        best = min(heldout, key=lambda name: heldout[name])
        message = f"on locations left out, {best} has the least {term.upper()}: {heldout[best]:.4f}"
        current, factor = list(heldout)[:2]
        is_no_better = heldout[current] <= heldout[factor] and self.factor != self.current_factor
        if self.by != "score" and is_no_better:
            message += (
                f"; the best factor does no better there than the task's ({heldout[factor]:.4f} and "
                f"{heldout[current]:.4f}): there is no reason to change it"
            )
        return message

    def to_json(self) -> dict[str, Any]:
        """As `pbvs calibrate --json` prints it."""
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
            "flat": list(self.plateau),
            "heldout": {
                "factors": list(self.fold_factors),
                "l1": self.best.l1_heldout,
                "l2": self.best.l2_heldout,
            },
            "present": {"factor": self.current_factor, "l1": self.current.l1, "l2": self.current.l2},
            "cities": self.cities,
            "table": vars(self.lut),
            "mix": {"weights": list(self.weights), "offset": self.offset, **vars(self.mix)},
            "verdict": self.conclusion,
            "candidates": [vars(one) for one in self.scored],
        }


def chart(found: Calibration) -> str:
    """The errors of all factors near the best as an SVG."""
    curve = found.curve_l1 if found.by == "l1" else found.curve_l2
    near = (curve <= curve.min() * _DRAWN) | (abs(FACTORS - found.current_factor) < 0.1)
    x = FACTORS[near]
    lines = [
        Line("L2 (root mean square)", x, found.curve_l2[near]),
        Line("L1 (mean absolute)", x, found.curve_l1[near]),
    ]
    low, high = found.plateau
    marks = [
        Mark(low, f"within 1 % of the least: {low:g} to {high:g}", high),
        Mark(found.factor, f"best by {found.by}: {found.factor:g}"),
        Mark(found.current_factor, f"the task's: {found.current_factor:g}"),
    ]
    title = f"{found.task}: pixel error by intensity factor, {found.images} pairs"
    return line_chart(title, "intensity factor", "error of pixels in [0,1]", lines, marks)


def task_with(spec: TaskSpec, found: Calibration, write_as: WriteAs) -> str:
    """The whole task as TOML, with the factor, the free table or the mix of bands that was found.

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
        kind = "lut" if write_as == "table" else "channel_mix"
        params: dict[str, Any] = (
            {"values": [round(v, 2) for v in found.lut_values]}
            if write_as == "table"
            else {"weights": list(found.weights), "offset": found.offset}
        )
        nodes[kind] = {"use": kind, "inputs": grayscale["inputs"], **params}
        settings["output"] = kind
    origin = f"{found.images} pairs of {found.locations} locations"
    return f"# {found.task}, calibrated by {found.by} on {origin}.\n{tomli_w.dumps(settings)}"
