"""What makes steps and runs out of date is a version raised by hand, never the text of the source."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.fabric import Fabric

import pbvs
from pbvs.core import versions
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline import ablate, chain, node_training, translator
from pbvs.pipeline.node_training import NodeTraining
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.train import train_node
from pbvs.systems import registry
from pbvs.training.run_record import RunRecord

TASKS = ("sar2eo", "sar2rgb", "rgb2ir", "sar2ir")
PREPARES = {"prepare.eo_sar", "prepare.stack-32x32"}
TRAINS = {"sar2eo.train", "sar2rgb.train"}
TRANSLATES = {f"{task}.translate" for task in TASKS}
OF_NETWORKS = TRANSLATES - {"rgb2ir.translate"}
SYSTEM = "pix2pixhd"


def raise_version(monkeypatch, name):
    """Raises a constant of `pbvs.core.versions` wherever it was imported, or a system's version."""
    if name == SYSTEM:
        record = registry.SYSTEMS[name]
        monkeypatch.setitem(registry.SYSTEMS, name, replace(record, version=record.version + 1))
        return
    raised = getattr(versions, name) + 1
    users = [module for module in (ablate, chain, node_training, translator) if hasattr(module, name)]
    assert users
    for module in (versions, *users):
        monkeypatch.setattr(module, name, raised)


def plan_of(pbvs, challenge):
    """Why each step would be done, by step; without those that are up to date."""
    ended = pbvs(*challenge.run_args(*TASKS), "--dry-run", "--json")
    assert ended.code == 0, ended.err
    steps = json.loads(ended.out)["steps"]
    assert len(steps) == 10
    return {s["step"]: s["words"] for s in steps if s["state"] != "skipped"}


@pytest.mark.parametrize(
    ("name", "key", "changed", "after"),
    [
        ("PREPARE", "prepare", PREPARES, TRAINS | OF_NETWORKS | {"score", "submit"}),
        ("TRAINING", "training", TRAINS, OF_NETWORKS | {"score", "submit"}),
        (SYSTEM, "system", TRAINS, OF_NETWORKS | {"score", "submit"}),
        ("TRANSLATE", "translate", TRANSLATES, {"score", "submit"}),
        ("SCORE", "score", {"score"}, set()),
        ("SUBMIT", "submit", {"submit"}, set()),
    ],
)
def test_a_version_raised_reaches_what_depends_on_it_and_nothing_else(
    done, pbvs, monkeypatch, name, key, changed, after
):
    raise_version(monkeypatch, name)
    plan = plan_of(pbvs, done)
    assert set(plan) == changed | after
    of = f"{SYSTEM} " if name == SYSTEM else ""
    from_to = re.compile(rf"{key} changed from {of}version (\d+) to {of}version (\d+)")
    numbers = {step: found.groups() for step, why in plan.items() if (found := from_to.search(why))}
    # A step behind another one that would be done is in the plan for that reason alone.
    alone = {step for step in changed if "comes before it" not in plan[step]}
    assert numbers.keys() == alone and alone
    assert all(int(now) == int(before) + 1 for before, now in numbers.values())
    assert {step for step, why in plan.items() if "comes before it" in why} == after | (changed - alone)


def test_a_raised_translate_version_translates_anew(done, pbvs, monkeypatch):
    """The folder's own record has the version too: else the step would find every image done."""
    image = done.root / "out" / "predictions" / "rgb2ir" / "0.png"
    before, written = image.read_bytes(), image.stat().st_mtime_ns
    raise_version(monkeypatch, "TRANSLATE")
    ended = pbvs(*done.run_args("rgb2ir"), "--to", "rgb2ir.translate")
    assert ended.code == 0, ended.err
    assert "rgb2ir.translate         done: 3 images" in ended.err
    assert image.stat().st_mtime_ns > written and image.read_bytes() == before
    assert "rgb2ir.translate" not in plan_of(pbvs, done)


def training_of(done, task):
    task_set, runs = TaskSet(done.tasks), Runs(done.root / "out" / "runs")
    [node] = task_set.graph(task).trained
    return NodeTraining(task_set, task, node, runs.folder / "prepared" / "eo_sar", runs, "standin")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (SYSTEM, "system changed from pix2pixhd version 1 to pix2pixhd version 2"),
        ("TRAINING", "training changed from version 1 to version 2"),
    ],
)
def test_a_run_of_another_version_is_moved_aside_after_a_warning(done, monkeypatch, name, change):
    raise_version(monkeypatch, name)
    training = training_of(done, "sar2eo")
    files = {path.name: path.read_bytes() for path in training.folder.glob("*.*") if path.is_file()}
    aside = training.folder.with_name("pix2pixhd.previous-1")
    warnings = []

    def warn(line):
        if "moved aside" in line:  # the old run is still where it was
            warnings.append(line)
            assert (training.folder / "run.json").read_bytes() == files["run.json"] and not aside.exists()

    fabric = Fabric(accelerator="cpu", devices=1)
    result = train_node(training, fabric, lambda *numbers: None, warn=warn)
    [line] = warnings
    assert line.startswith(f"sar2eo.pix2pixhd: the run in {training.folder} is out of date ({change});")
    assert {path.name: path.read_bytes() for path in aside.glob("*.*") if path.is_file()} == files
    assert result.outcome.images_now == result.outcome.images_seen > 0  # it began anew
    record = RunRecord.read(training.folder)
    assert record.version == (2 if name == SYSTEM else 1)
    warnings.clear()
    again = train_node(training, fabric, lambda *numbers: None, warn=warn)
    assert again.outcome.images_now == 0 and not warnings


def test_another_system_s_version_leaves_a_run_as_it_is(done, monkeypatch):
    before = training_of(done, "sar2eo").provenance()
    monkeypatch.setitem(registry.SYSTEMS, "other", replace(registry.SYSTEMS[SYSTEM], version=7))
    assert training_of(done, "sar2eo").provenance() == before
    (done.tasks / "other.toml").write_text(
        (done.tasks / "sar2eo.toml").read_text().replace("size_px = 64", 'task = "other"\nsize_px = 64')
        + '[nodes.pix2pixhd]\nuse = "other"\n'
    )
    assert training_of(done, "other").provenance()["system"] == "other version 7"


def test_source_text_is_no_part_of_any_fingerprint(done, tmp_path):
    """A copy of the package with a new file in each folder, and a comment and a docstring changed in each."""
    package = tmp_path / "copy" / "pbvs"
    shutil.copytree(Path(pbvs.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    edited = 0
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"""', '"""Edited. ', 1) + "\n# An edited comment.\n", encoding="utf-8")
        (path.parent / "unused.py").write_text('"""A new file."""\n', encoding="utf-8")
        edited += 1
    assert edited > 150
    command = [sys.executable, "-m", "pbvs", *map(str, done.run_args(*TASKS)), "--dry-run", "--json"]
    # The folder of the copy comes first on the path: it is where the command runs.
    ended = subprocess.run(command, cwd=package.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert {step["state"] for step in json.loads(ended.stdout)["steps"]} == {"skipped"}
    where = [sys.executable, "-c", "import pbvs; print(pbvs.__file__)"]
    found = subprocess.run(where, cwd=package.parent, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()) == package / "__init__.py"
