"""Where each entry of a zip belongs by its name alone, and what is wrong with the names."""

from __future__ import annotations

import difflib
import stat
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pbvs.core.pixels import IMAGE_SUFFIXES
from pbvs.submission.rules import README_NAME, TASKS, WHOLE_ZIP, Problem, is_litter, some_of

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_RECORD_SUFFIXES = (".csv", ".json", ".txt", ".py", ".ipynb", ".md")


@dataclass(frozen=True)
class Placed:
    """An entry that is an image of a task: `stem` is the input's id."""

    info: zipfile.ZipInfo
    path: str
    task: str
    stem: str


@dataclass
class Layout:
    """What the names of a zip's entries say.

    Attributes:
        images: the entries that are images of a task, in the zip's order, misplaced ones included.
        readmes: entries that are meant as the readme, misplaced ones included.
        folders: tasks that have a folder, be it an empty one.
        problems: what is wrong with the names.
    """

    images: list[Placed] = field(default_factory=list)
    readmes: list[zipfile.ZipInfo] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _said: set[Problem] = field(default_factory=set, repr=False)

    def say(self, path: str, what: str, cure: str, kind: str) -> None:
        """Adds a problem, once: a fault of a folder is met again with each of its files."""
        problem = Problem(path, what, cure, kind)
        if problem not in self._said:
            self._said.add(problem)
            self.problems.append(problem)


def apply_memory_format(infos: list[zipfile.ZipInfo]) -> Layout:
    """Sorts a zip's entries into images, readmes and problems; nothing is read from the zip."""
    layout = Layout()
    for info in infos:
        path = _plain_path(info, layout)
        if path is not None and _is_wanted(path, layout):
            _place(info, path, layout)
    _tell_doubled_entries(infos, layout)
    _tell_doubled_ids(layout)
    _tell_empty_folders(layout)
    _forget_wrappers(layout)
    return layout


def _plain_path(info: zipfile.ZipInfo, layout: Layout) -> str | None:
    """The entry's path with `/` between its parts, or None when it cannot be followed at all."""
    name = info.orig_filename
    printable = name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name
    if _is_special(info):
        cure = "put the file itself in its place (zip without --symlinks)"
        layout.say(printable, "a link or special file, not a plain file", cure, "link")
        return None
    cure = "rename it in plain ASCII letters and digits, by the id of its test input"
    if not name.isascii() or not name.isprintable():
        layout.say(printable, "the name holds characters that are not plain ASCII", cure, "name")
    if "\\" in name:
        cure = "make the zip with a tool that writes / between folder and file"
        layout.say(
            printable, "the name holds backslashes, which unpack as part of the file's name", cure, "name"
        )
    path = name.split("\0")[0].replace("\\", "/")
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or path[1:2] == ":" or any(part in ("", ".", "..") for part in parts):
        cure = "make the zip from within its folder, with relative names"
        layout.say(printable, "the path is absolute, or has a part that is empty, . or ..", cure, "name")
        return None
    return path


def _is_special(info: zipfile.ZipInfo) -> bool:
    """True for symbolic links, devices and the like (the file type in the Unix half of the attributes)."""
    return stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)


def _is_wanted(path: str, layout: Layout) -> bool:
    """False, with a problem, for what an operating system leaves behind."""
    for part in path.rstrip("/").split("/"):
        if is_litter(part):
            cure = "delete it from the zip, as in: zip -d submission.zip '__MACOSX/*' '*.DS_Store' '*/._*'"
            layout.say(path, f"{part!r} is litter of an operating system or a hidden file", cure, "litter")
            return False
    return True


def _place(info: zipfile.ZipInfo, path: str, layout: Layout) -> None:
    """Files one entry under its task, as a readme, or as a problem."""
    is_folder = path.endswith("/")
    parts = path.rstrip("/").split("/")
    folders = parts if is_folder else parts[:-1]
    if is_folder and info.file_size:
        layout.say(path, "a folder's entry that holds data", "make the zip anew", "extra")
    if not is_folder and _is_readme(parts[-1]):
        _place_readme(info, parts, layout)
        return
    depth = next((i for i, part in enumerate(folders) if part.casefold() in TASKS), None)
    if depth is None:
        _tell_stray(path, folders, parts[-1], is_folder, layout)
        return
    task = folders[depth].casefold()
    layout.folders.add(task)
    _tell_folder_faults(folders, depth, layout)
    if not is_folder:
        _place_file(info, path, task, layout)


def _is_readme(name: str) -> bool:
    return name.casefold() in ("readme", README_NAME, "readme.md", "read_me.txt", "readme.txt.txt")


def _place_readme(info: zipfile.ZipInfo, parts: list[str], layout: Layout) -> None:
    path = "/".join(parts)
    if len(parts) > 1:
        cure = f"move it to the zip's root, beside the task folders, as {README_NAME}"
        layout.say(path, "the readme lies in a folder", cure, "readme")
    if parts[-1] != README_NAME:
        layout.say(path, f"the readme is named {parts[-1]!r}", f"name it exactly {README_NAME}", "readme")
    layout.readmes.append(info)


def _tell_stray(path: str, folders: list[str], name: str, is_folder: bool, layout: Layout) -> None:
    """An entry that lies in none of the task folders."""
    if folders:
        layout.say(f"{folders[0]}/", f"{folders[0]!r} is no task folder", _folder_cure(folders[0]), "folder")
    if is_folder:
        return
    what, cure = _told_file(name) if not folders else (f"{name!r} lies in no task folder", _file_cure())
    layout.say(path, what, cure, "extra")


def _folder_cure(name: str) -> str:
    squeezed = "".join(c for c in name.casefold() if c.isalnum()).replace("to", "2")
    close = difflib.get_close_matches(squeezed, TASKS, n=1, cutoff=0.5) or [t for t in TASKS if t in squeezed]
    hint = f"rename it to {close[0]}" if close else "take it out of the zip"
    return f"{hint}; the folders at the zip's root are named exactly {', '.join(TASKS)}"


def _file_cure() -> str:
    return f"take it out: beside {README_NAME} the zip holds only the task folders {', '.join(TASKS)}"


def _told_file(name: str) -> tuple[str, str]:
    """What a file that is no image of a task is, and what to do with it."""
    suffix = PurePosixPath(name).suffix.casefold()
    if suffix in _ARCHIVE_SUFFIXES:
        return (
            f"{name!r} is an archive within the zip",
            "unpack it: its task folders belong at the zip's root",
        )
    if suffix in _JPEG_SUFFIXES:
        return (
            f"{name!r} is a JPEG, neither PNG nor TIFF",
            "write the prediction as a PNG: JPEG changes pixels",
        )
    if suffix in _RECORD_SUFFIXES:
        return (
            f"{name!r} is no image: ground truth, scripts and records do not belong in the zip",
            _file_cure(),
        )
    if suffix in IMAGE_SUFFIXES:
        return (
            f"the image {name!r} lies in no task folder",
            f"move it into its task's folder: {', '.join(TASKS)}",
        )
    return f"{name!r} does not belong in the zip", _file_cure()


def _tell_folder_faults(folders: list[str], depth: int, layout: Layout) -> None:
    """Task folders that are nested, spelt in another case, or hold folders."""
    task = folders[depth].casefold()
    if depth:
        around = "/".join(folders[:depth]) + "/"
        what = f"the task folders lie within the folder {around!r}, not at the zip's root"
        layout.say(around, what, f"zip from inside it: cd {around} && zip -r ../submission.zip .", "nested")
    if folders[depth] != task:
        where = "/".join(folders[: depth + 1]) + "/"
        layout.say(
            where, f"the folder {folders[depth]!r} is not in small letters", f"rename it to {task}", "folder"
        )
    if len(folders) > depth + 1:
        within = "/".join(folders) + "/"
        what = f"a folder within the task folder {task!r}"
        layout.say(within, what, f"move its images up, directly into {task}/", "nested")


def _place_file(info: zipfile.ZipInfo, path: str, task: str, layout: Layout) -> None:
    """One file under a task folder: an image, or something that does not belong there."""
    name = PurePosixPath(path)
    if name.suffix.casefold() not in IMAGE_SUFFIXES:
        layout.say(path, *_told_file(name.name), "extra")
        return
    if name.suffix not in IMAGE_SUFFIXES:
        what = f"the suffix {name.suffix!r} is not in small letters"
        layout.say(path, what, f"rename it to {name.stem}{name.suffix.casefold()}", "name")
    layout.images.append(Placed(info, path, task, name.stem))


def _tell_doubled_entries(infos: list[zipfile.ZipInfo], layout: Layout) -> None:
    counts = Counter(info.orig_filename for info in infos)
    for name, count in counts.items():
        if count > 1:
            cure = "make the zip anew; unpackers keep only one of them, and not all the same one"
            layout.say(name, f"{count} entries of this name", cure, "doubled")


def _tell_doubled_ids(layout: Layout) -> None:
    """Two files for one id, such as 0.png and 0.tiff, or A.png and a.png, which some disks take for one."""
    by_id: dict[tuple[str, str], list[str]] = {}
    for image in layout.images:
        by_id.setdefault((image.task, image.stem.casefold()), []).append(image.path)
    for (task, _), paths in by_id.items():
        distinct = sorted(set(paths))
        if len(distinct) > 1:
            what = f"{len(distinct)} files for one id of {task}: {some_of(distinct, 4)}"
            layout.say(distinct[0], what, "keep one file for each test input", "doubled")


def _tell_empty_folders(layout: Layout) -> None:
    filled = {image.task for image in layout.images}
    for task in sorted(layout.folders - filled):
        cure = "put the predictions into it, or leave the folder out (the task then counts 1)"
        layout.say(f"{task}/", f"the task folder {task} holds no PNG or TIFF", cure, "empty")
    if not layout.folders:
        cure = f"put the predictions into folders named exactly {', '.join(TASKS)} at the zip's root"
        layout.say(WHOLE_ZIP, "no task folder at all", cure, "empty")


def _forget_wrappers(layout: Layout) -> None:
    """A folder around the task folders is told as nesting; that it is no task folder would mislead."""
    wrappers = {problem.path.split("/")[0] + "/" for problem in layout.problems if problem.kind == "nested"}
    layout.problems = [
        p for p in layout.problems if p.kind != "folder" or p.path not in wrappers or _is_task(p.path)
    ]


def _is_task(folder: str) -> bool:
    return folder.rstrip("/").casefold() in TASKS
