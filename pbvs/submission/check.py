"""Checks whether a zip may be uploaded, and reports every problem, without unpacking it to disk."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from pbvs.core.challenge import TASKS
from pbvs.core.errors import UsageError
from pbvs.core.pixels import PNG_SUFFIXES
from pbvs.core.types import Progress
from pbvs.submission import rules
from pbvs.submission.entries import open_zip, read_entry
from pbvs.submission.image_facts import check_image
from pbvs.submission.inputs import compare
from pbvs.submission.lookahead import map_ahead
from pbvs.submission.names import ZipImage, sort_entries
from pbvs.submission.readme import LABELS, faults
from pbvs.submission.rules import CheckReport, Expected, Problem
from pbvs.submission.tiff_guard import MOST_IMAGE_BYTES

N_IN_MEMORY = 2  # images
MOST_README_BYTES = 64_000
MOST_TOTAL_BYTES = 8_000_000_000
"""More than any full submission unpacks to (under 1 GB); no image of a zip that declares more is read."""

_README_HINT = "write the four lines: " + " | ".join(f"{label} : ..." for label in LABELS)


def check(
    zip_path: Path,
    expected: Mapping[str, Expected],
    inputs: Path | None = None,
    *,
    allow: Collection[str] = (),
    progress: Progress | None = None,
) -> CheckReport:
    """Checks a zip against the platform's rules.

    At most two entries are in memory at a time, neither larger than 64 MB. RGB images of a one-band task
    pass with a note, as the platform has accepted them; so does a task that is not attempted.

    Args:
        zip_path: the zip.
        expected: size and bands of each task's images.
        inputs: the test inputs to compare the names with; None skips that comparison. A folder that
            holds `<task>/`, `<task>/input/`, `test/<task>/` or `val/<task>/input/`.
        allow: kinds of problem (`constant`, `large`, `size`) that become notes.
        progress: called with (images done, total images).

    Raises:
        UsageError: `zip_path` is not a file, `inputs` is not a folder, or `allow` names a kind that cannot be
            allowed. Everything else is in the report.
    """
    if not zip_path.is_file():
        what = "a folder, not a zip" if zip_path.is_dir() else "there is no such zip"
        raise UsageError(
            what, where=zip_path, next_step="name the zip to check; pbvs submit build writes one"
        )
    if inputs is not None and not inputs.is_dir():
        next_step = "name the folder that holds a folder of test inputs per task"
        raise UsageError("there is no such folder of test inputs", where=inputs, next_step=next_step)
    if unknown := sorted(set(allow) - rules.ALLOWABLE_KINDS):
        next_step = f"kinds that can be allowed: {', '.join(sorted(rules.ALLOWABLE_KINDS))}"
        raise UsageError(f"problems of the kind {unknown[0]!r} cannot be allowed", next_step=next_step)
    report = CheckReport(n_bytes=zip_path.stat().st_size)
    archive = open_zip(zip_path)
    if isinstance(archive, Problem):
        report.problems.append(archive)
        return report
    with archive:
        layout = sort_entries(archive.infolist())
        report.images = {task: 0 for task in TASKS if task in layout.folders}
        report.images.update(Counter(image.task for image in layout.images))
        report.problems += layout.problems
        if not layout.readmes:
            what = f"{rules.README_NAME} is missing at the zip's root"
            report.problems.append(Problem(rules.README_NAME, what, _README_HINT, "readme"))
        for info in layout.readmes:
            data = read_entry(archive, info, info.filename, MOST_README_BYTES)
            if isinstance(data, Problem):
                report.problems.append(data)
                continue
            try:
                found = faults(data.decode("utf-8"))
            except UnicodeDecodeError:
                found = ["the readme is not UTF-8 text"]
            report.problems += [Problem(info.filename, fault, _README_HINT, "readme") for fault in found]
        _check_images(archive, layout.images, expected, report, progress)
    problems, notes = compare(layout.ids(), inputs)
    report.problems += problems
    report.notes += notes
    if too_large := rules.size_problem(report.n_bytes):
        report.problems.append(too_large)
    elif note := rules.size_note(report.n_bytes):
        report.notes.append(note)
    problems = sorted(set(report.problems))
    report.problems = [problem for problem in problems if problem.kind not in allow]
    report.notes += [f"{problem.path}: {problem.what}" for problem in problems if problem.kind in allow]
    return report


def _check_images(
    archive: zipfile.ZipFile,
    images: list[ZipImage],
    expected: Mapping[str, Expected],
    report: CheckReport,
    progress: Progress | None,
) -> None:
    """Reads the images one by one, decodes a few at a time, and adds what is wrong to the report."""
    total = sum(image.info.file_size for image in images if image.info.file_size <= MOST_IMAGE_BYTES)
    if total > MOST_TOTAL_BYTES:
        what = f"the images would unpack to {rules.format_size(total)}; none was read"
        hint = "put only the predictions into the zip, as 8-bit PNGs"
        report.problems.append(Problem(rules.WHOLE_ZIP, what, hint, "bomb"))
        return
    entries = (
        (image, read_entry(archive, image.info, image.path, MOST_IMAGE_BYTES), expected.get(image.task))
        for image in images
    )
    tiffs = not all(image.path.casefold().endswith(PNG_SUFFIXES) for image in images)
    jobs = map_ahead(check_image, entries, N_IN_MEMORY, tiffs=tiffs)
    rgb: Counter[str] = Counter()
    for done, (job, image) in enumerate(zip(jobs, images, strict=True), 1):
        problems, bands = job.result()
        report.problems += problems
        if bands == 3 and image.task in expected and expected[image.task].bands == 1:
            rgb[image.task] += 1
        if progress:
            progress(done, len(images))
    for task, count in rgb.items():
        report.notes.append(
            f"{task}: {count} of {report.images[task]} images are RGB where one band is expected;"
            " the platform has accepted such files"
        )
