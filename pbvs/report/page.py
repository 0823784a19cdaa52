"""Builds the HTML page: scores next to the leaderboard, charts, graphs, and the images with their errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

import pbvs
from pbvs.core import pixels
from pbvs.core.challenge import TASKS
from pbvs.core.charts import histogram
from pbvs.core.errors import DataError
from pbvs.core.files import atomic_write
from pbvs.core.pixels import read_image, write_png
from pbvs.core.types import Progress
from pbvs.report.curve_svg import graph_svg, read_figure, run_charts
from pbvs.report.gallery import (
    PageImage,
    image_paths,
    natural_key,
    pick_images,
    read_errors,
    thumb_side_px,
    thumbnail,
)
from pbvs.score.rules import PUBLISHED

SCORE_JSON, SCORE_CSV, PREDICTIONS = "score.json", "score.csv", "predictions"
_MAX_BYTES = 20_000_000
Errors = Mapping[str, Mapping[str, Mapping[str, float]]]  # by task, image and term


@dataclass(frozen=True)
class Submission:
    """A scored set of predictions: a folder with `predictions/`, `score.json` and `score.csv`."""

    folder: Path

    @property
    def predictions(self) -> Path:
        """The predictions, one folder per task."""
        return self.folder / PREDICTIONS

    def score(self) -> dict[str, Any]:
        """The contents of `score.json`.

        Raises:
            DataError: the file is missing, truncated or corrupt.
        """
        path = self.folder / SCORE_JSON
        try:
            score: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"no score to show: {error}",
                where=path,
                next_step="`pbvs run` scores where it finds targets, or `pbvs score` with --json and --csv",
            ) from error
        return score

    def errors(self) -> dict[str, dict[str, dict[str, float]]]:
        """Errors by task, image and term; see `read_errors`."""
        return read_errors(self.folder / SCORE_CSV)


@dataclass(frozen=True)
class Request:
    """The contents of a page.

    Attributes:
        ours: the submission.
        inputs, targets: roots of the test inputs and targets, one folder per task.
        other: another submission to compare with.
        runs: training runs, for their curves; None omits them.
        graphs: the output of `pbvs tasks show --json` per task.
        figures: SVG files to show, from `pbvs calibrate --plot`.
        max_images: per task: the best, the worst and some between.
        full: also write the images in full size next to the page.
    """

    ours: Submission
    inputs: Path
    targets: Path
    other: Submission | None = None
    runs: Path | None = None
    graphs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    max_images: int = 60
    full: bool = False


def write_page(request: Request, out: Path, progress: Progress | None = None) -> int:
    """Writes the page atomically and returns its size in bytes.

    Raises:
        DataError: a score, an image or a figure is missing, or the page would be too large.
        ImageError: an image cannot be read.
    """
    score, errors = request.ours.score(), request.ours.errors()
    scores = [(request.ours.folder.name, score)]
    other_name, other_errors = "", {}
    if request.other:
        other_name, other_errors = request.other.folder.name, request.other.errors()
        scores.append((other_name, request.other.score()))
    tasks = [task for task in TASKS if task in score["tasks"]]
    if missing := [task for task in tasks if task not in errors]:
        raise DataError(f"no per-image scores of {', '.join(missing)}", where=request.ours.folder / SCORE_CSV)
    names = {task: pick_images(errors[task], request.max_images) for task in tasks}
    images = _page_images(request, names, errors, other_errors, out, progress)
    runs = [run for task in tasks for run in sorted((request.runs / task).glob("*"))] if request.runs else []
    data = {"tasks": tasks, "other": other_name, "images": [asdict(image) for image in images]}
    files = resources.files("pbvs.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = environment.from_string((files / "page.html.j2").read_text(encoding="utf-8")).render(
        score=score,
        scores=scores,
        published=PUBLISHED[score["rules"]],
        all_tasks=TASKS,
        tasks=[_task_section(task, errors[task], names[task], request.graphs.get(task)) for task in tasks],
        n_images=len(images),
        other_name=other_name,
        curves=[chart for run in runs if ".previous-" not in run.name for chart in run_charts(run)],
        figures=[read_figure(path) for path in request.figures],
        version=pbvs.__version__,
        css=(files / "page.css").read_text(encoding="utf-8"),
        js=(files / "page.js").read_text(encoding="utf-8"),
        data=json.dumps(data).replace("<", "\\u003c"),  # a `</script>` in a name would end the block
    )
    content = html.encode("utf-8")
    if len(content) > _MAX_BYTES:
        size = f"{len(content) / 1e6:.1f} MB"
        raise DataError(f"the page would have {size}", where=out, next_step="show fewer: --images")
    with atomic_write(out) as tmp_path:
        tmp_path.write_bytes(content)
    return len(content)


def _page_images(
    request: Request,
    names: Mapping[str, Sequence[str]],
    errors: Errors,
    other_errors: Errors,
    out: Path,
    progress: Progress | None,
) -> list[PageImage]:
    """The images by name and task; writes full-size PNGs next to the page, as browsers show no TIFF."""
    total = sum(map(len, names.values()))
    side_px = thumb_side_px(total * (4 if request.other else 3) // 3)
    other = request.other.predictions if request.other else None
    images: list[PageImage] = []
    for task, stems in names.items():
        by_kind = image_paths(task, request.inputs, request.ours.predictions, request.targets, other)
        for stem in stems:
            paths = {kind: found[stem] for kind, found in by_kind.items() if stem in found}
            if missing := {"pred", "target"} - paths.keys():
                raise DataError(f"{task} {stem} was scored, but is missing: {', '.join(sorted(missing))}")
            thumbs = {kind: thumbnail(path, side_px) for kind, path in paths.items()}
            full = {}
            for kind, path in paths.items() if request.full else ():
                suffix = "made" if kind == "pred" else kind  # file names of version 0.1.0
                relative = Path(f"{out.stem}_files") / task / f"{stem}_{suffix}.png"
                write_png(out.parent / relative, pixels.to_uint8(read_image(path))[:, :, :3])
                full[kind] = relative.as_posix()
            other_terms = other_errors.get(task, {}).get(stem, {})
            images.append(PageImage(task, stem, errors[task][stem], other_terms, thumbs, full))
            if progress:
                progress(len(images), total)
    return images


def _task_section(
    task: str,
    errors: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    described: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the template shows of a task besides its scores; samples are by L2, among the page's images."""
    ranked = sorted(names, key=lambda image: (errors[image]["l2"], natural_key(image)))
    samples = {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}
    charts = [
        histogram(f"{task}: {label} of each image", label, [terms[term] for terms in errors.values()])
        for term, label in (("l2", "L2"), ("lpips", "LPIPS"))
    ]
    return {
        "name": task,
        "charts": charts,
        "graph": graph_svg(described) if described else "",
        "samples": [(label, image, errors[image]["l2"]) for label, image in samples.items()],
    }
