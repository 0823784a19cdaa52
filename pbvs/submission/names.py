"""Sorts the entries of a zip by their names alone, and finds what is wrong with the names."""

from __future__ import annotations

import difflib
import stat
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pbvs.core.challenge import TASKS
from pbvs.core.pixels import IMAGE_SUFFIXES
from pbvs.submission.rules import README_NAME, WHOLE_ZIP, Problem, is_system_file, some_of

_README_NAMES = ("readme", README_NAME, "readme.md", "read_me.txt", "readme.txt.txt")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_RECORD_SUFFIXES = (".csv", ".json", ".txt", ".py", ".ipynb", ".md")
_REMOVE = f"remove it: the zip holds only {README_NAME} and the task folders {', '.join(TASKS)}"


@dataclass(frozen=True)
class ZipImage:
    """An entry that is an image of a task: `stem` is the input's id."""

    info: zipfile.ZipInfo
    path: str
    task: str
    stem: str


@dataclass
class ZipLayout:
    """The entries of a zip, sorted by their names.

    Attributes:
        images: the entries that are images of a task, in the zip's order, misplaced ones included.
        readmes: the entries that are readmes, misplaced and misnamed ones included.
        folders: tasks that have a folder, even an empty one.
        problems: what is wrong with the names; a folder's problem is repeated for each of its files.
    """

    images: list[ZipImage] = field(default_factory=list)
    readmes: list[zipfile.ZipInfo] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def ids(self) -> dict[str, set[str]]:
        """The ids in the zip, per task that has a folder."""
        return {task: {i.stem for i in self.images if i.task == task} for task in self.folders}

    def report(self, path: str, what: str, hint: str, kind: str) -> None:
        """Adds a problem."""
        self.problems.append(Problem(path, what, hint, kind))


def sort_entries(infos: list[zipfile.ZipInfo]) -> ZipLayout:
    """Sorts a zip's entries into images, readmes and problems; nothing is read from the zip."""
    layout = ZipLayout()
    for info in infos:
        path = _usable_path(info, layout)
        if path is not None:
            _add_entry(info, path, layout)
    for name, count in Counter(info.orig_filename for info in infos).items():
        if count > 1:
            hint = "recreate the zip; unpackers keep only one of them, and not all keep the same one"
            layout.report(name, f"{count} entries of this name", hint, "doubled")
    by_id = defaultdict(set)
    for image in layout.images:
        by_id[image.task, image.stem.casefold()].add(image.path)  # A.png and a.png are one on some disks
    for (task, _), distinct in by_id.items():
        if len(distinct) > 1:
            paths = sorted(distinct)
            what = f"{len(paths)} files for one id of {task}: {some_of(paths, 4)}"
            layout.report(paths[0], what, "keep one file per test input", "doubled")
    for task in sorted(layout.folders - {image.task for image in layout.images}):
        hint = "put the predictions into it, or omit the folder (the task then counts 1)"
        layout.report(f"{task}/", f"the task folder {task} has no PNG or TIFF", hint, "empty")
    if not layout.folders:
        hint = f"put the predictions into folders named exactly {', '.join(TASKS)} at the zip's root"
        layout.report(WHOLE_ZIP, "no task folder at all", hint, "empty")
    # A folder around the task folders is reported as nested; that it is no task folder would mislead.
    wrappers = {problem.path.split("/")[0] + "/" for problem in layout.problems if problem.kind == "nested"}
    wrappers -= {wrapper for wrapper in wrappers if wrapper.rstrip("/").casefold() in TASKS}
    layout.problems = [p for p in layout.problems if p.kind != "folder" or p.path not in wrappers]
    return layout


def _usable_path(info: zipfile.ZipInfo, layout: ZipLayout) -> str | None:
    """The entry's path with `/` between its parts; None, with a problem, when the entry is unusable."""
    name = info.orig_filename
    printable = name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name
    # The file type is in the Unix half of the attributes.
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        hint = "replace it by the file itself (zip without --symlinks)"
        layout.report(printable, "a link or special file, not a plain file", hint, "link")
        return None
    if not name.isascii() or not name.isprintable():
        hint = "rename it in plain ASCII letters and digits, by the id of its test input"
        layout.report(printable, "the name contains characters that are not plain ASCII", hint, "name")
    if "\\" in name:
        what = "the name contains backslashes, which unpack as part of the file's name"
        layout.report(printable, what, "create the zip with a tool that writes / as separator", "name")
    path = name.split("\0")[0].replace("\\", "/")
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or path[1:2] == ":" or any(part in ("", ".", "..") for part in parts):
        hint = "create the zip from within its folder, with relative names"
        layout.report(printable, "the path is absolute, or has a part that is empty, . or ..", hint, "name")
        return None
    if system_files := [part for part in parts if is_system_file(part)]:
        what = f"{system_files[0]!r} is a hidden file or metadata of an operating system"
        hint = "delete it from the zip, as in: zip -d submission.zip '__MACOSX/*' '*.DS_Store' '*/._*'"
        layout.report(path, what, hint, "litter")
        return None
    if path.endswith("/") and info.file_size:
        layout.report(path, "a folder's entry that contains data", "recreate the zip", "extra")
    return path


def _add_entry(info: zipfile.ZipInfo, path: str, layout: ZipLayout) -> None:
    """Adds one entry to the images or readmes, or reports it as a problem."""
    folders = path.rstrip("/").split("/")
    name = "" if path.endswith("/") else folders.pop()
    if name.casefold() in _README_NAMES:
        if folders:
            hint = f"move it to the zip's root, next to the task folders, as {README_NAME}"
            layout.report(path, "the readme is in a folder", hint, "readme")
        if name != README_NAME:
            layout.report(path, f"the readme is named {name!r}", f"name it exactly {README_NAME}", "readme")
        layout.readmes.append(info)
        return
    depth = next((i for i, part in enumerate(folders) if part.casefold() in TASKS), None)
    if depth is None:
        if folders:
            squeezed = "".join(c for c in folders[0].casefold() if c.isalnum()).replace("to", "2")
            close = difflib.get_close_matches(squeezed, TASKS, n=1, cutoff=0.5)
            close += [task for task in TASKS if task in squeezed]
            hint = f"rename it to {close[0]}" if close else "remove it from the zip"
            hint += f"; the folders at the zip's root are named exactly {', '.join(TASKS)}"
            layout.report(f"{folders[0]}/", f"{folders[0]!r} is not a task folder", hint, "folder")
        if name:
            stray = (f"{name!r} is in no task folder", _REMOVE) if folders else _describe_stray(name)
            layout.report(path, *stray, "extra")
        return
    task = folders[depth].casefold()
    layout.folders.add(task)
    if depth:
        around = "/".join(folders[:depth]) + "/"
        what = f"the task folders are inside the folder {around!r}, not at the zip's root"
        layout.report(
            around, what, f"zip from inside it: cd {around} && zip -r ../submission.zip .", "nested"
        )
    if folders[depth] != task:
        what = f"the folder {folders[depth]!r} is not in lower case"
        layout.report("/".join(folders[: depth + 1]) + "/", what, f"rename it to {task}", "folder")
    if len(folders) > depth + 1:
        what, hint = f"a folder within the task folder {task!r}", f"move its images directly into {task}/"
        layout.report("/".join(folders) + "/", what, hint, "nested")
    suffix, stem = PurePosixPath(name).suffix, PurePosixPath(name).stem
    if suffix.casefold() in IMAGE_SUFFIXES:
        if suffix not in IMAGE_SUFFIXES:
            what = f"the suffix {suffix!r} is not in lower case"
            layout.report(path, what, f"rename it to {stem}{suffix.casefold()}", "name")
        layout.images.append(ZipImage(info, path, task, stem))
    elif name:
        layout.report(path, *_describe_stray(name), "extra")


def _describe_stray(name: str) -> tuple[str, str]:
    """Why a file that is no image of a task does not belong in the zip, and what to do with it."""
    suffix = PurePosixPath(name).suffix.casefold()
    if suffix in _ARCHIVE_SUFFIXES:
        return f"{name!r} is an archive within the zip", "unpack it: task folders belong at the zip's root"
    if suffix in _JPEG_SUFFIXES:
        return f"{name!r} is a JPEG, not a PNG or TIFF", "write the prediction as a PNG: JPEG is lossy"
    if suffix in _RECORD_SUFFIXES:
        what = f"{name!r} is not an image: targets, scripts and records do not belong in the zip"
        return what, _REMOVE
    if suffix in IMAGE_SUFFIXES:
        return (
            f"the image {name!r} is in no task folder",
            f"move it into its task's folder: {', '.join(TASKS)}",
        )
    return f"{name!r} does not belong in the zip", _REMOVE
