"""Imports go one way: each room of pbvs sees only the rooms below it."""

import ast
from pathlib import Path

import pytest

import pbvs

ROOT = Path(pbvs.__file__).parent
# The rooms from the ground up. Those on one line do not see each other.
LEVELS = (
    ("pbvs",),
    ("core",),
    ("archives",),
    ("scenes", "prepare", "submission"),
    ("dataset", "perceptual"),
    ("networks", "losses", "score"),
    ("training",),
    ("systems",),
    ("graph", "report"),
    ("pipeline",),
    ("cli",),
    ("__main__", "models"),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# Neither losses nor training may depend on how a score is made.
NEVER = {("losses", "score"), ("training", "score"), ("systems", "score"), ("graph", "score")}


def room_of(module: str) -> str:
    """`pbvs.score.rules` -> `score`; `pbvs` itself -> `pbvs`."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "pbvs"


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "pbvs" else node.module
                for alias in node.names
            }
    return {room_of(name) for name in found if name.split(".")[0] == "pbvs"}


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: f.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_lies_below(file):
    names = file.relative_to(ROOT).parts
    own = "pbvs" if names == ("__init__.py",) else names[0].removesuffix(".py")
    above = {room for room in imported(file) - {own} if LEVEL[room] >= LEVEL[own] or (own, room) in NEVER}
    assert not above, f"{own} may not import {sorted(above)}"


def test_every_room_has_a_level():
    rooms = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= set(LEVEL)
