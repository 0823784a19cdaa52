"""The README's commands work as they stand, on a tiny challenge with stand-in weights."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
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
    ("report",): TINY,
    ("score",): STANDIN,
    ("submit", "build"): TINY,
    ("submit", "check"): TINY,
}


def added(words):
    return next((more for begin, more in ADDED.items() if tuple(words[: len(begin)]) == begin), ())


def test_the_readme_s_commands_are_the_ones_below():
    assert len(COMMANDS) == 30
    assert {command.split()[0] for command in COMMANDS} == {"make", "pbvs", "torchrun"}


def test_every_pbvs_command_of_the_readme(challenge, pbvs, monkeypatch):
    monkeypatch.chdir(challenge.root)
    for command in COMMANDS:
        name, *words = shlex.split(command)
        if name != "pbvs" or words == ["weights", "fetch"]:  # fetching needs a network
            continue
        told = pbvs(*words, *added(words))
        assert told.code == 0, (command, told.err)


def test_the_torchrun_command_of_the_readme(challenge, pbvs, monkeypatch):
    """Two processes on the CPU: the same draws, shared, and one set of files."""
    monkeypatch.chdir(challenge.root)
    assert pbvs("data", "prepare", "archives", "prepared", "--task", "sar2eo", *TINY).code == 0
    (command,) = [c for c in COMMANDS if c.startswith("torchrun") and " train " in c]
    words = shlex.split(command)[1:]
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, *TINY, *STANDIN, "--device", "cpu"],
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
def test_the_makefile_knows_what_the_readme_names(target):
    ended = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
