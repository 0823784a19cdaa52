"""Puts the page together: scores beside the board, charts, graphs, and the images with their numbers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import pbvs
from pbvs.core import pixels
from pbvs.core.challenge import TASKS
from pbvs.core.charts import Line, histogram, line_chart
from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write
from pbvs.core.pixels import read_image, write_png
from pbvs.report.curve_svg import graph_svg
from pbvs.report.gallery import (
    Folders,
    Shown,
    chosen,
    natural,
    read_errors,
    thumb_side_px,
    thumbnail,
)
from pbvs.score.rules import PUBLISHED

SCORE_JSON, SCORE_CSV, PREDICTIONS = "score.json", "score.csv", "predictions"
_MOST_BYTES = 20_000_000
_TERM_NAMES = {"l2": "L2", "l1": "L1", "lpips": "LPIPS"}
# Signs of trouble have a scale of their own; they are in the CSV and in TensorBoard.
_SIGNS = ("saturated", "saturated_in_targets", "checkerboard", "checkerboard_in_targets")
_WITHOUT_CURVE = ("images", "learning_rate", *_SIGNS)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Submission:
    """A scored set of predictions: a folder with `predictions/`, `score.json` and `score.csv`."""

    folder: Path

    @property
    def predictions(self) -> Path:
        """The folder of task folders."""
        return self.folder / PREDICTIONS

    def score(self) -> dict[str, Any]:
        """The score's JSON.

        Raises:
            DataError: it is not there, or torn.
        """
        path = self.folder / SCORE_JSON
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"no score to show: {error}",
                where=path,
                next_step="`pbvs run` scores where it finds targets, or `pbvs score` with --json and --csv",
            ) from error
        return told

    def errors(self) -> dict[str, dict[str, dict[str, float]]]:
        """Errors by task, image and term."""
        return read_errors(self.folder / SCORE_CSV)


@dataclass(frozen=True)
class Request:
    """What a page is made of.

    Attributes:
        ours: the submission.
        inputs, targets: roots of the test inputs and targets, a folder a task.
        other: another submission to show beside it.
        runs: training runs, for their curves; None without.
        graphs: each task as `pbvs tasks show --json` gives it.
        figures: SVG files to show, as `pbvs calibrate --plot` makes them.
        most_images: of each task, the best, the worst and some between.
        full: also write the images in full size beside the page.
    """

    ours: Submission
    inputs: Path
    targets: Path
    other: Submission | None = None
    runs: Path | None = None
    graphs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    most_images: int = 60
    full: bool = False


def write_page(asked: Request, out: Path, progress: Progress | None = None) -> int:
    """Writes the page, whole or not at all, and gives back its size in bytes.

    Raises:
        DataError: a score, an image or a figure is missing.
        ImageError: an image cannot be read.
    """
    told, errors = asked.ours.score(), asked.ours.errors()
    other_told = asked.other.score() if asked.other else None
    other_errors = asked.other.errors() if asked.other else {}
    tasks = [task for task in TASKS if task in told["tasks"]]
    if missing := [task for task in tasks if task not in errors]:
        raise DataError(f"no single scores of {', '.join(missing)}", where=asked.ours.folder / SCORE_CSV)
    names = {task: chosen(errors[task], asked.most_images) for task in tasks}
    shown = _shown(asked, names, errors, other_errors, out, progress)
    words = {
        "title": f"pbvs: {asked.ours.folder.name}",
        "subtitle": f"rules {told['rules']}, {told['weights']['kind']} weights, "
        + ", ".join(f"{task} {told['tasks'][task]['images']} images" for task in tasks),
        "marked": told["marked"],
        "rule_words": _rule_words(told),
        "all_tasks": TASKS,
        "score_rows": _score_rows(asked, told, other_told),
        "tasks": [_task(asked, task, told, errors[task], names[task]) for task in tasks],
        "image_words": f"{len(shown)} images, in thumbnails; errors are of the images themselves.",
        "pairs": _pairs(asked),
        "curves": _curves(asked.runs, tasks),
        "figures": [_figure(path) for path in asked.figures],
        "footer": f"made by pbvs {pbvs.__version__}",
    }
    data = {
        "tasks": tasks,
        "other": asked.other.folder.name if asked.other else "",
        "images": [one.to_json() for one in shown],
    }
    html = _rendered(words, data)
    if len(html) > _MOST_BYTES:
        raise DataError(
            f"the page would have {len(html) / 1e6:.1f} MB", where=out, next_step="show fewer: --images"
        )
    with atomic_write(out) as beside:
        beside.write_bytes(html)
    return len(html)


def _rendered(words: Mapping[str, Any], data: Mapping[str, Any]) -> bytes:
    files = resources.files("pbvs.report")
    text = {
        name: (files / name).read_text(encoding="utf-8") for name in ("page.html.j2", "page.css", "page.js")
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    drawn = {
        **words,
        "css": Markup(text["page.css"]),
        "js": Markup(text["page.js"]),
        # A `</script>` in a name would end the block.
        "data": Markup(json.dumps(data).replace("<", "\\u003c")),
        "curves": [Markup(svg) for svg in words["curves"]],
        "figures": [Markup(svg) for svg in words["figures"]],
        "tasks": [
            {**task, "graph": Markup(task["graph"]), "charts": [Markup(svg) for svg in task["charts"]]}
            for task in words["tasks"]
        ],
    }
    return environment.from_string(text["page.html.j2"]).render(drawn).encode("utf-8")


def _shown(
    asked: Request,
    names: Mapping[str, Sequence[str]],
    errors: Mapping[str, Mapping[str, Mapping[str, float]]],
    other_errors: Mapping[str, Mapping[str, Mapping[str, float]]],
    out: Path,
    progress: Progress | None,
) -> list[Shown]:
    total = sum(map(len, names.values()))
    side_px = thumb_side_px(total * (4 if asked.other else 3) // 3)
    found: list[Shown] = []
    for task, images in names.items():
        other = asked.other.predictions if asked.other else None
        folders = Folders(task, asked.inputs, asked.ours.predictions, asked.targets, other)
        for image in images:
            paths = folders.of(image)
            if absent := {"made", "target"} - paths.keys():
                raise DataError(
                    f"{task} {image} was scored, but its image is gone: {', '.join(sorted(absent))}"
                )
            thumbs = {name: thumbnail(path, side_px) for name, path in paths.items()}
            full = _full_size(out, task, image, paths) if asked.full else {}
            terms, other_terms = errors[task][image], other_errors.get(task, {}).get(image, {})
            found.append(Shown(task, image, terms, other_terms, thumbs, full))
            if progress:
                progress(len(found), total)
    return found


def _full_size(out: Path, task: str, image: str, paths: Mapping[str, Path]) -> dict[str, str]:
    """Writes an image's files as PNGs beside the page, as browsers show no TIFF; their relative paths."""
    found = {}
    for name, path in paths.items():
        stored = read_image(path)
        place = Path(f"{out.stem}_files") / task / f"{image}_{name}.png"
        write_png(out.parent / place, pixels.eight_bits(stored)[:, :, :3])
        found[name] = place.as_posix()
    return found


def _rule_words(told: Mapping[str, Any]) -> str:
    weight = "" if told["arctan_weight"] == 1.0 else f", {told['arctan_weight']:g} inside the arctan"
    judged = f"FID of {told['fid_layer']} dimensions{weight}, LPIPS {told['lpips']['net']}"
    kind = told["weights"]["kind"]
    return f"Rules {told['rules']}: P is {told['pixel_term'].upper()}, {judged}, {kind} weights"


def _score_rows(
    asked: Request, told: Mapping[str, Any], other: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """This submission, the one beside it, and the published board of the same rules."""
    own = [(asked.ours.folder.name, told)]
    if asked.other is not None and other is not None:
        own.append((asked.other.folder.name, other))
    rows = [{"name": name, "own": True, "cells": _cells(one)} for name, one in own]
    for row in PUBLISHED[told["rules"]]:
        values = [row.combined, *(row.scores[task] for task in TASKS)]
        rows.append(
            {
                "name": f"{row.team} ({told['rules']})",
                "own": False,
                "cells": [{"value": f"{v:.2f}", "interval": ""} for v in values],
            }
        )
    return rows


def _cells(told: Mapping[str, Any]) -> list[dict[str, str]]:
    cells = [_cell(told["overall"], told.get("overall_interval95"))]
    for task in TASKS:
        found = told["tasks"].get(task)
        cells.append(_cell(found["score"], found["interval95"]) if found else {"value": "-", "interval": ""})
    return cells


def _cell(value: float, interval: Sequence[float] | None) -> dict[str, str]:
    return {
        "value": f"{value:.4f}",
        "interval": f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
    }


def _task(
    asked: Request,
    task: str,
    told: Mapping[str, Any],
    errors: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
) -> dict[str, Any]:
    found = told["tasks"][task]
    by_layer = sorted(found["fid"].items(), key=lambda item: int(item[0]))
    fid = ", ".join(f"{layer}: {float(value):.4g}" for layer, value in by_layer)
    words = (
        f"{found['images']} images; LPIPS {found['lpips']:.4f}, L1 {found['l1']:.4f}, L2 {found['l2']:.4f}; "
        f"FID by dimensions {fid}."
    )
    charts = [
        histogram(
            f"{task}: {_TERM_NAMES[term]} of each image",
            _TERM_NAMES[term],
            [e[term] for e in errors.values()],
        )
        for term in ("l2", "lpips")
    ]
    described = asked.graphs.get(task)
    return {
        "name": task,
        "words": words,
        "charts": charts,
        "graph": graph_svg(described) if described else "",
        "samples": _samples(task, errors, names),
    }


def _samples(
    task: str, errors: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> list[dict[str, str]]:
    """The best, median and worst of the images shown, by L2."""
    ranked = sorted(names, key=lambda image: (errors[image]["l2"], natural(image)))
    picked = {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}
    return [
        {"key": f"{task}/{image}", "words": f"{word} by L2: {image}, {errors[image]['l2']:.4f}"}
        for word, image in picked.items()
    ]


def _pairs(asked: Request) -> list[dict[str, str]]:
    pairs = [("made-target", "prediction and target"), ("source-made", "source and prediction")]
    if asked.other:
        name = asked.other.folder.name
        pairs += [("other-target", f"{name} and target"), ("made-other", f"prediction and {name}")]
    return [{"value": value, "words": words} for value, words in pairs]


def _curves(runs: Path | None, tasks: Sequence[str]) -> list[str]:
    """Charts of the training runs of the tasks that have some."""
    charts = []
    for task in tasks:
        for folder in sorted((runs / task).iterdir()) if runs and (runs / task).is_dir() else ():
            if ".previous-" in folder.name:
                continue
            for group, name in (("training", "curves.csv"), ("validation", "validation.csv")):
                if lines := _lines(folder / name):
                    title = f"{task} {folder.name}: {group}"
                    charts.append(line_chart(title, "images seen", "value", lines))
    return charts


def _lines(path: Path) -> list[Line]:
    """One line a column of a curve's CSV."""
    if not path.is_file():
        return []
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    columns = [name for name in (rows[0] if rows else ()) if name not in _WITHOUT_CURVE]
    lines = []
    for name in columns:
        points = [(float(row["images"]), float(row[name])) for row in rows if row[name]]
        if any(math.isfinite(y) for _, y in points):
            lines.append(Line(name, [x for x, _ in points], [y for _, y in points]))
    return lines


def _figure(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the figure cannot be read: {error}", where=path) from error
    if not text.lstrip().startswith("<svg") or "<script" in text:
        raise DataError("not a figure of pbvs", where=path, next_step="`pbvs calibrate --plot` makes one")
    return text
