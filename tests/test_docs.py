"""The commands of the README and of docs/ work as they stand, on a tiny challenge with stand-in weights."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# In an order in which each page finds what the ones before it made.
PAGES = (
    *("README.md", "docs/data.md", "docs/training.md", "docs/translating.md", "docs/scores.md"),
    *("docs/submission.md", "docs/calibration.md", "docs/systems/pix2pixhd.md", "docs/task_files.md"),
)
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
]
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]

# What a test must add: tiny networks, and weights that need no network.
TINY = ("--tasks", "tasks")
STANDIN = ("--weights", "standin")
ADDED = {
    ("data", "prepare"): TINY,
    ("run",): (*TINY, *STANDIN),
    ("train",): (*TINY, *STANDIN),
    ("translate",): TINY,
    ("calibrate",): TINY,
    ("ablate",): STANDIN,
    ("tasks", "show"): TINY,
    ("report",): TINY,
    ("score",): STANDIN,
    ("submit", "build"): TINY,
    ("submit", "check"): TINY,
}


def added(args):
    return next((more for begin, more in ADDED.items() if tuple(args[: len(begin)]) == begin), ())


def test_every_page_is_among_those_below():
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages | {"README.md"} == set(PAGES)
    assert len(COMMANDS) == 35
    assert {command.split()[0] for command in COMMANDS} == {"make", "pbvs", "torchrun"}
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_every_link_leads_to_a_file():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert ((ROOT / page).parent / target).is_file(), (page, target)


def test_every_pbvs_command_of_the_pages(challenge, pbvs, monkeypatch):
    monkeypatch.chdir(challenge.root)
    for command in COMMANDS:
        name, *args = shlex.split(command)
        if name != "pbvs" or args == ["weights", "fetch"]:  # fetching needs a network
            continue
        ended = pbvs(*args, *added(args))
        assert ended.code == 0, (command, ended.err)


def test_the_torchrun_command_of_the_pages(challenge, pbvs, monkeypatch):
    """Two processes on the CPU: the same draws, shared, and one set of files."""
    monkeypatch.chdir(challenge.root)
    assert pbvs("data", "prepare", "archives", "prepared", "--task", "sar2eo", *TINY).code == 0
    (command,) = [c for c in COMMANDS if c.startswith("torchrun") and " train " in c]
    args = shlex.split(command)[1:]
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *args, *TINY, *STANDIN, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "10 images in" in ended.stdout
    assert (challenge.root / "runs" / "sar2eo" / "pix2pixhd" / "last.safetensors").is_file()


@pytest.mark.parametrize(
    "target", ["demo", "test", "check", "train-sar2eo", "train-sar2ir", "score", "submission", "help"]
)
def test_the_makefile_knows_what_the_pages_name(target):
    ended = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
