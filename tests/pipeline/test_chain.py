"""The whole chain on a tiny challenge: done, skipped, killed, and out of date."""

import hashlib
import json
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from pbvs.core import pixels
from pbvs.scenes.synth import make_archives

TASKS = ("sar2eo", "sar2rgb", "rgb2ir", "sar2ir")


def states(ended):
    return {s["step"]: (s["state"], s["words"]) for s in json.loads(ended.out)["steps"]}


def test_archives_to_a_checked_and_scored_zip(done, pbvs):
    out = done.root / "out"
    with zipfile.ZipFile(out / "submission.zip") as zipped:
        names = zipped.namelist()
    assert sorted(names) == sorted(["readme.txt", *(f"{t}/{i}.png" for t in TASKS for i in range(3))])
    assert (
        pbvs("submit", "check", out / "submission.zip", "--inputs", done.test, "--tasks", done.tasks).code
        == 0
    )
    score = json.loads((out / "score.json").read_text())
    assert score["weights"]["kind"] == "standin"
    assert "not comparable" in score["marked"]
    assert score["missing"] == []
    assert score["overall"] == pytest.approx(sum(score["tasks"][t]["score"] for t in TASKS) / 4)
    assert set(score["tasks"]["rgb2ir"]) >= {
        "images",
        "size_px",
        "fid",
        "lpips",
        "l1",
        "l2",
        "score",
        "interval95",
    }


def test_rgb2ir_is_exact_where_ir_is_the_gray_times_the_factor(done):
    for i in range(3):
        pred = pixels.read_image(done.root / "out" / "predictions" / "rgb2ir" / f"{i}.png")
        np.testing.assert_array_equal(pred, pixels.read_image(done.targets / "rgb2ir" / f"{i}.png"))
    score = json.loads((done.root / "out" / "score.json").read_text())["tasks"]["rgb2ir"]
    assert (score["l1"], score["l2"], score["lpips"]) == (0.0, 0.0, 0.0)
    assert score["score"] == pytest.approx(0.0, abs=1e-6)


def test_sar2ir_is_the_gray_of_sar2rgb_s_own_images(done):
    predictions = done.root / "out" / "predictions"
    for i in range(3):
        rgb = pixels.read_image(predictions / "sar2rgb" / f"{i}.png")
        expected = np.rint(np.clip(1.15 * rgb.mean(axis=2, keepdims=True), 0, 255))
        np.testing.assert_array_equal(pixels.read_image(predictions / "sar2ir" / f"{i}.png"), expected)


def test_the_second_time_every_step_is_skipped(done, pbvs):
    before = tree(done.root / "out")
    plan = states(pbvs(*done.run_args(*TASKS), "--json"))
    assert len(plan) == 10
    assert {state for state, _ in plan.values()} == {"skipped"}
    assert tree(done.root / "out") == before


def test_retraining_sar2rgb_makes_sar2ir_out_of_date(done, pbvs):
    new_seed = ("--set", "sar2rgb.nodes.pix2pixhd.training.seed=7")
    ended = pbvs(*done.run_args(*TASKS), *new_seed, "--to", "sar2rgb.train", "--json")
    assert states(ended)["sar2rgb.train"][0] == "done"
    plan = states(pbvs(*done.run_args(*TASKS), *new_seed, "--dry-run", "--json"))
    state, why = plan["sar2ir.translate"]
    assert (state, "weights of sar2rgb.pix2pixhd changed" in why) == ("would do", True)
    assert plan["rgb2ir.translate"][0] == plan["sar2eo.translate"][0] == plan["sar2rgb.train"][0] == "skipped"
    assert plan["submit"][0] == plan["score"][0] == "would do"


def test_retraining_sar2eo_makes_sar2rgb_out_of_date(done, pbvs):
    new_seed = ("--set", "sar2eo.nodes.pix2pixhd.training.seed=7")
    assert pbvs(*done.run_args(*TASKS), *new_seed, "--to", "sar2eo.train").code == 0
    plan = states(pbvs(*done.run_args(*TASKS), *new_seed, "--dry-run", "--json"))
    assert plan["sar2eo.train"][0] == "skipped"
    assert plan["sar2rgb.train"] == ("would do", "init weights changed")


def test_new_data_reaches_training_and_all_after_it(done, pbvs):
    tile = done.data / "Train_Data_and_Validation_EO_SAR" / "EO" / "train" / "Gotcha_1.png"
    pixels.write_png(tile, 255 - pixels.read_image(tile))
    plan = states(pbvs(*done.run_args(*TASKS), "--dry-run", "--json"))
    assert plan["prepare.eo_sar"] == ("would do", "archives changed")
    for step in ("sar2eo.train", "sar2rgb.train", "sar2rgb.translate", "sar2ir.translate", "score", "submit"):
        assert plan[step][0] == "would do", step
    assert plan["prepare.stack-32x32"][0] == plan["rgb2ir.translate"][0] == "skipped"


def test_what_a_killed_process_left_unfinished_is_cleared_away(done, pbvs):
    out = done.root / "out"
    strays = [
        out / "predictions" / "sar2eo" / ".0.1.part.png",
        out / "runs" / "sar2eo" / "pix2pixhd" / ".last.1.part.safetensors",
        out / "steps" / ".submit.1.part.json",
        out / ".submission.1.part.zip",
    ]
    for stray in strays:
        stray.write_bytes(b"truncated")
    for record in (*out.glob("steps/*.json"), out / "runs" / "sar2eo" / "step.json"):
        record.unlink()
    assert pbvs(*done.run_args(*TASKS)).code == 0
    assert [stray for stray in strays if stray.exists()] == []


def test_part_of_a_run(challenge, pbvs):
    events = states(pbvs(*challenge.run_args("sar2rgb"), "--to", "sar2eo.train", "--json"))
    assert set(events) == {"prepare.eo_sar", "sar2eo.train"}
    ended = pbvs(*challenge.run_args("sar2rgb"), "--from", "sar2rgb.translate")
    assert ended.code == 1
    assert "sar2rgb has no trained weights" in ended.err
    ended = pbvs(*challenge.run_args("sar2rgb"), "--to", "sar2oe.train")
    assert ended.code == 2
    assert "did you mean 'sar2eo.train'" in ended.err


def test_killed_at_several_points_and_run_again_ends_with_the_same_files(done):
    command = [sys.executable, "-m", "pbvs", *map(str, done.run_args(*TASKS, out="killed"))]
    folder = done.root / "killed"
    runs = folder / "runs"
    points = (
        runs / "prepared" / "eo_sar" / "prepared.json",
        runs / "sar2eo" / "pix2pixhd" / "run.json",
        runs / "sar2rgb" / "pix2pixhd" / "training_state.pt",
        folder / "predictions" / "sar2rgb" / "0.png",
    )
    for point in points:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not point.exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert point.exists()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert same(tree(folder)) == same(tree(done.root / "out"))


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): (
            p.read_text() if p.suffix == ".csv" else hashlib.sha256(p.read_bytes()).hexdigest()
        )
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def same(files):
    """The files that must be alike: not those that hold times, paths of this run, or TensorBoard's events."""
    timed = ("steps/", "step.json", ".translate.json", "hashes.json", "training_state.pt", "submission.zip")
    timed += ("times.csv",)
    return {
        name: sha
        for name, sha in files.items()
        if not any(t in name for t in timed) and "tensorboard" not in name
    }


def test_rgb2ir_is_exact_on_synthetic_scenes_whose_ir_is_the_gray(challenge, pbvs):
    root = challenge.root / "scenes"
    make_archives(root, locations=4, tiles=2, test_images=2, chip_px=96, ir="gray", target_px=64)
    out = challenge.root / "out"
    ended = pbvs(
        "translate", "rgb2ir", "--inputs", root / "test" / "rgb2ir", "--out", out, "--tasks", challenge.tasks
    )
    assert ended.code == 0, ended.err
    targets = pixels.list_images(root / "test_targets" / "rgb2ir")
    assert len(targets) == 2
    for target in targets:
        np.testing.assert_array_equal(pixels.read_image(out / target.name), pixels.read_image(target))


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_its_code_and_a_checkpoint(challenge, pbvs, signal_number, code):
    assert pbvs(*challenge.run_args("sar2eo"), "--to", "prepare.eo_sar").code == 0
    endless = "sar2eo.nodes.pix2pixhd.training.stages=[{epochs=100000,learning_rate=1e-4}]"
    command = [sys.executable, "-m", "pbvs", *map(str, challenge.run_args("sar2eo")), "--set", endless]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    node = challenge.root / "out" / "runs" / "sar2eo" / "pix2pixhd"
    while not (node / "curves.csv").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, stderr = process.communicate()
    assert process.returncode == code
    assert "a checkpoint was written at" in stderr
    assert "Traceback" not in stderr
    assert (node / "training_state.pt").is_file()


def test_an_unfinished_run_translates_and_says_so_but_nothing_is_trained_from_it(done, pbvs):
    runs = done.root / "out" / "runs"
    (runs / "sar2eo" / "pix2pixhd" / "best.safetensors").unlink()  # as before the first validation
    options = ("--tasks", done.tasks, "--runs", runs, "--device", "cpu")
    ended = pbvs(
        "translate", "sar2eo", "--inputs", done.test / "sar2eo", "--out", done.root / "new", *options
    )
    assert ended.code == 0, ended.err
    assert "last weights from" in ended.out
    (prepared,) = (runs / "prepared").glob("stack-*")
    refused = pbvs("train", "sar2rgb", "--data", prepared, "--weights", "standin", *options)
    assert refused.code == 1
    assert "sar2rgb starts from sar2eo, which is not trained yet" in refused.err
