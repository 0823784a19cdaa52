"""Imports go one way: each part of pbvs sees only the parts below it."""

import ast
from pathlib import Path

import pytest

import pbvs

ROOT = Path(pbvs.__file__).parent
GROUND = {"pbvs", "errors", "files", "tiff", "pixels"}
ALLOWED = {
    "pbvs": set(),
    "errors": set(),
    "files": {"errors"},
    "tiff": {"errors"},
    "pixels": {"errors", "files", "tiff"},
    "charts": set(),
    "data": GROUND,
    "score": GROUND | {"data"},
    "submission": GROUND | {"data"},
    "models": GROUND,
    # The training loss and the score share one LPIPS and one pixel error, so losses sees score.
    "losses": GROUND | {"data", "score"},
    "training": GROUND | {"data", "score", "models", "losses"},
    "modules": GROUND | {"data", "score", "models", "losses", "training"},
    "tasks": GROUND | {"data", "score", "models", "losses", "training", "modules", "submission", "charts"},
    "report": GROUND | {"data", "score", "charts"},
    "cli": GROUND
    | {"data", "score", "models", "losses", "training", "modules", "submission", "tasks", "report"},
    "__main__": {"cli"},
}


def part_of(module: str) -> str:
    """`pbvs.score.lpips` -> `score`; `pbvs` itself -> `pbvs`."""
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
    return {part_of(name) for name in found if name.split(".")[0] == "pbvs"}


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: f.relative_to(ROOT).as_posix())
def test_file_imports_only_what_lies_below(file):
    names = file.relative_to(ROOT).parts
    own = "pbvs" if names == ("__init__.py",) else names[0].removesuffix(".py")
    above = imported(file) - ALLOWED[own] - {own}
    assert not above, f"{own} may not import {sorted(above)}"


def test_every_folder_is_ruled():
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert folders <= set(ALLOWED)
