"""Whether a zip may be uploaded: all that is wrong with it, told at once, without unpacking it to disk."""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rasterio.errors import NotGeoreferencedWarning

from pbvs.core.errors import UsageError
from pbvs.submission import rules
from pbvs.submission.entries import open_zip, read_entry
from pbvs.submission.image_facts import judge
from pbvs.submission.inputs import compare
from pbvs.submission.names import Layout, Placed, apply_memory_format
from pbvs.submission.readme import LABELS, faults
from pbvs.submission.rules import CheckReport, Expected, Problem
from pbvs.submission.tiff_guard import MOST_IMAGE_BYTES

N_AT_ONCE = 2
"""Images that are decoded, and so are in memory, at a time."""
MOST_README_BYTES = 64_000
MOST_TOTAL_BYTES = 8_000_000_000
"""More than any full submission unpacks to (under 1 GB); a zip that announces more is not read."""

Progress = Callable[[int, int], None]


def check(
    zip_path: Path,
    expected: Mapping[str, Expected],
    inputs: Path | None = None,
    *,
    allow: Collection[str] = (),
    progress: Progress | None = None,
) -> CheckReport:
    """Checks a zip against the platform's rules.

    Two entries are in memory at a time, and none larger than 64 MB. RGB images of a one-band task pass with
    a note, as the platform has accepted them; so does a task that is not attempted.

    Args:
        zip_path: the zip.
        expected: size and bands of each task's images.
        inputs: the test inputs to compare the names with; None leaves out that comparison. A folder that
            holds `<task>/`, `<task>/input/`, `test/<task>/` or `val/<task>/input/`.
        allow: kinds of problem (`constant`, `large`) that become notes.
        progress: told (images done, images in all).

    Raises:
        UsageError: `zip_path` or `inputs` does not exist or is of the other sort (file, folder), or `allow`
            names a kind that cannot be allowed. Everything else is told in the report.
    """
    _check_arguments(zip_path, inputs, allow)
    report = CheckReport(n_bytes=zip_path.stat().st_size)
    archive = open_zip(zip_path)
    if isinstance(archive, Problem):
        report.problems.append(archive)
        return report
    with archive:
        layout = apply_memory_format(archive.infolist())
        report.images = {task: 0 for task in rules.TASKS if task in layout.folders}
        report.images.update(Counter(image.task for image in layout.images))
        report.problems += layout.problems
        report.problems += _readme_problems(archive, layout)
        _judge_images(archive, layout.images, expected, report, progress)
    _compare_names(layout, inputs, report)
    _tell_size(report)
    _apply_waivers(report, allow)
    return report


def _check_arguments(zip_path: Path, inputs: Path | None, allow: Collection[str]) -> None:
    if not zip_path.is_file():
        what = "a folder, not a zip" if zip_path.is_dir() else "there is no such zip"
        raise UsageError(what, where=zip_path, next_step="name the zip to check; pbvs submit build makes one")
    if inputs is not None and not inputs.is_dir():
        raise UsageError(
            "there is no such folder of test inputs",
            where=inputs,
            next_step="name the folder that holds a folder of test inputs for each task",
        )
    unknown = set(allow) - rules.ALLOWABLE_KINDS
    if unknown:
        raise UsageError(
            f"problems of the kind {sorted(unknown)[0]!r} cannot be allowed",
            next_step=f"kinds that can be: {', '.join(sorted(rules.ALLOWABLE_KINDS))}",
        )


def _readme_problems(archive: zipfile.ZipFile, layout: Layout) -> list[Problem]:
    """Faults of the readme's contents, or that there is none."""
    cure = "write the four lines: " + " | ".join(f"{label} : ..." for label in LABELS)
    if not layout.readmes:
        return [
            Problem(rules.README_NAME, f"{rules.README_NAME} is missing at the zip's root", cure, "readme")
        ]
    problems = []
    for info in layout.readmes:
        data = read_entry(archive, info, info.filename, MOST_README_BYTES)
        if isinstance(data, Problem):
            problems.append(data)
            continue
        try:
            found = faults(data.decode("utf-8"))
        except UnicodeDecodeError:
            found = ["the readme is no UTF-8 text"]
        problems += [Problem(info.filename, fault, cure, "readme") for fault in found]
    return problems


def _judge_images(
    archive: zipfile.ZipFile,
    images: list[Placed],
    expected: Mapping[str, Expected],
    report: CheckReport,
    progress: Progress | None,
) -> None:
    """Reads the images one after another, and decodes a few of them at a time."""
    total = sum(image.info.file_size for image in images if image.info.file_size <= MOST_IMAGE_BYTES)
    if total > MOST_TOTAL_BYTES:
        what = f"the images would unpack to {rules.told_size(total)}; none was read"
        report.problems.append(
            Problem(rules.WHOLE_ZIP, what, "put only the predictions into the zip, as 8-bit PNGs", "bomb")
        )
        return
    rgb: Counter[str] = Counter()
    for done, (image, problems, bands) in enumerate(_judged(archive, images, expected), 1):
        report.problems += problems
        if bands == 3 and image.task in expected and expected[image.task].bands == 1:
            rgb[image.task] += 1
        if progress:
            progress(done, len(images))
    for task, count in rgb.items():
        report.notes.append(
            f"{task}: {count} of {report.images[task]} images are RGB where one band is asked for;"
            " the platform has accepted such files"
        )


def _judged(
    archive: zipfile.ZipFile, images: list[Placed], expected: Mapping[str, Expected]
) -> Iterator[tuple[Placed, list[Problem], int]]:
    """Each image in order, with its problems and its number of bands, 0 when it cannot be decoded."""
    waiting: deque[tuple[Placed, Future[tuple[list[Problem], int]]]] = deque()
    # Filters of warnings belong to the process, not to the thread: set once around all readers of TIFFs.
    with warnings.catch_warnings(), ThreadPoolExecutor(N_AT_ONCE) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for image in images:
            data = read_entry(archive, image.info, image.path, MOST_IMAGE_BYTES)
            waiting.append((image, pool.submit(_judge_one, image, data, expected.get(image.task))))
            if len(waiting) >= N_AT_ONCE:
                yield _first_done(waiting)
        while waiting:
            yield _first_done(waiting)


def _first_done(
    waiting: deque[tuple[Placed, Future[tuple[list[Problem], int]]]],
) -> tuple[Placed, list[Problem], int]:
    image, job = waiting.popleft()
    problems, bands = job.result()
    return image, problems, bands


def _judge_one(image: Placed, data: bytes | Problem, wanted: Expected | None) -> tuple[list[Problem], int]:
    if isinstance(data, Problem):
        return [data], 0
    if wanted is None:
        what = f"size and bands of {image.task} are not known, so its images were not checked"
        cure = "check the zip with the tasks that it was made for"
        return [Problem(f"{image.task}/", what, cure, "folder")], 0
    return judge(image.path, data, wanted)


def _compare_names(layout: Layout, inputs: Path | None, report: CheckReport) -> None:
    stems: dict[str, set[str]] = {task: set() for task in layout.folders}
    for image in layout.images:
        stems[image.task].add(image.stem)
    if inputs is None:
        report.notes += rules.not_attempted_notes(report.images)
        return
    problems, notes = compare(stems, inputs)
    report.problems += problems
    report.notes += notes


def _tell_size(report: CheckReport) -> None:
    problem = rules.size_problem(report.n_bytes)
    note = rules.size_note(report.n_bytes)
    if problem:
        report.problems.append(problem)
    elif note:
        report.notes.append(note)


def _apply_waivers(report: CheckReport, allow: Collection[str]) -> None:
    """Sorts the problems, each once, and turns those that are allowed into notes."""
    problems = sorted(set(report.problems))
    report.problems = [problem for problem in problems if problem.kind not in allow]
    report.notes += [f"{problem.path}: {problem.what}" for problem in problems if problem.kind in allow]
