"""Wrong input by hand: one clear message with file, key and what to do; the right exit code; no traceback."""

import json
import re

import pytest

from pbvs.core.pixels import encode_png


def assert_fails(ended, code, *texts):
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err + ended.out
    for text in texts:
        assert str(text) in ended.err, (text, ended.err)


def test_misspelt_task_key_and_node(challenge, pbvs):
    assert_fails(pbvs("tasks", "show", "sar2oe"), 2, "did you mean 'sar2eo'", "next:")
    assert_fails(pbvs(*challenge.run_args("sar2oe")), 2, "did you mean 'sar2eo'", challenge.tasks)
    file = challenge.tasks / "rgb2ir.toml"
    file.write_text(file.read_text() + "[nodes.intensity]\nfacter = 1\n")
    assert_fails(
        pbvs(*challenge.run_args("rgb2ir")), 2, file, "nodes.intensity.facter", "did you mean 'factor'"
    )
    ended = pbvs("run", "rgb2ir", "--set", "rgb2ir.nodes.intensity.inputs=['grayscal']")
    assert_fails(ended, 2, "nodes.intensity.inputs", "did you mean 'grayscale'")
    ended = pbvs(
        "translate", "rgb2ir", "--inputs", challenge.test / "rgb2ir", "--out", "o", "--to", "greyscale"
    )
    assert_fails(ended, 2, "did you mean 'grayscale'")


def test_data_that_is_missing_empty_or_of_another_layout(challenge, pbvs, tmp_path):
    challenge.data.rename(tmp_path / "kept")
    assert_fails(pbvs(*challenge.run_args("sar2eo")), 2, challenge.data, "next:")
    challenge.data.mkdir()
    assert_fails(pbvs(*challenge.run_args("sar2eo")), 1, challenge.data, "next:", "Train_Data_")
    (challenge.data / "photos").mkdir()
    (challenge.data / "photos" / "a.png").write_bytes(b"")
    assert_fails(pbvs(*challenge.run_args("sar2eo")), 1, challenge.data, "next:", "Train_Data_")
    assert_fails(pbvs("data", "scan", tmp_path / "nowhere"), 2, "nowhere")
    assert_fails(
        pbvs("train", "sar2eo", "--data", challenge.data, "--weights", "standin"), 1, "pbvs data prepare"
    )


def test_test_inputs_that_are_missing_or_unreadable(done, pbvs, tmp_path):
    whole = (done.test / "sar2eo" / "1.png").read_bytes()
    (done.test / "sar2eo" / "1.png").write_bytes(whole[:100])
    assert_fails(pbvs(*done.run_args("sar2eo")), 1, done.test / "sar2eo" / "1.png", "cannot be read", "next:")
    (done.test / "sar2eo" / "1.png").write_bytes(encode_png_rgb())
    assert_fails(pbvs(*done.run_args("sar2eo")), 1, done.test / "sar2eo" / "1.png", "3 band(s)")
    (done.test / "sar2eo").rename(tmp_path / "elsewhere")
    assert_fails(pbvs(*done.run_args("sar2eo")), 1, "no test inputs for sar2eo", done.test)
    (done.test / "sar2eo").mkdir()
    assert_fails(pbvs(*done.run_args("sar2eo")), 1, "no PNG or TIFF", done.test / "sar2eo")


def encode_png_rgb():
    import numpy as np

    return encode_png(np.zeros((64, 64, 3), np.uint8))


def test_a_checkpoint_of_another_task(done, pbvs, tmp_path):
    runs = done.root / "out" / "runs"
    inputs = ("--inputs", done.test / "sar2rgb", "--out", tmp_path / "o", "--tasks", done.tasks)
    for checkpoint in (
        runs / "sar2eo",
        runs / "sar2eo" / "pix2pixhd",
        runs / "sar2eo" / "pix2pixhd" / "best.safetensors",
    ):
        ended = pbvs("translate", "sar2rgb", *inputs, "--checkpoint", checkpoint)
        assert_fails(
            ended, 1, "belongs to sar2eo.pix2pixhd, not to sar2rgb.pix2pixhd", "best.safetensors", "next:"
        )
    assert_fails(
        pbvs("translate", "sar2rgb", *inputs, "--checkpoint", tmp_path / "no"), 2, "no such checkpoint"
    )
    assert_fails(
        pbvs("translate", "sar2rgb", *inputs, "--runs", tmp_path / "no"), 1, "has no trained weights"
    )
    ended = pbvs("translate", "sar2rgb", *inputs, "--checkpoint", runs / "sar2rgb")
    assert ended.code == 0, ended.err
    assert re.search(r"sar2rgb\.pix2pixhd: best weights from \d+ training images", ended.out)


def test_nothing_is_overwritten_without_overwrite(done, pbvs, tmp_path):
    command = (
        "translate",
        "rgb2ir",
        "--inputs",
        done.test / "rgb2ir",
        "--out",
        tmp_path / "o",
        "--tasks",
        done.tasks,
    )
    assert pbvs(*command).code == 0
    before = (tmp_path / "o" / "0.png").read_bytes()
    other = (*command, "--set", "nodes.intensity.factor=2.0")
    assert_fails(pbvs(*other), 2, "--overwrite")
    assert (tmp_path / "o" / "0.png").read_bytes() == before
    assert pbvs(*other, "--overwrite").code == 0
    assert (tmp_path / "o" / "0.png").read_bytes() != before
    zip_path = done.root / "out" / "submission.zip"
    ended = pbvs(
        "submit", "build", done.root / "out" / "predictions", "--out", zip_path, "--tasks", done.tasks
    )
    assert_fails(ended, 2, zip_path)


def test_misuse_of_the_command_line_is_two(pbvs):
    for args in (["run", "--bogus"], ["nonsense"], ["score"], ["run", "--weights", "maybe"], []):
        ended = pbvs(*args)
        assert ended.code == 2, args
        assert "Traceback" not in ended.err


def test_verbose_shows_the_traceback(pbvs, tmp_path):
    ended = pbvs("-v", "data", "scan", tmp_path / "nowhere")
    assert ended.code == 2
    assert "Traceback" in ended.err


def test_official_weights_that_are_missing_stop_a_run_before_any_work(challenge, pbvs, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    ended = pbvs(*challenge.run_args("sar2eo")[:-1], "official")
    assert_fails(
        ended,
        1,
        "pt_inception-2015-12-05-6726825d.pth",
        "vgg16-397923af.pth",
        "pbvs weights fetch",
        "standin",
    )
    assert not (challenge.root / "out").exists()


def test_a_zip_that_breaks_the_rules_is_exit_one(done, pbvs, tmp_path):
    bad = tmp_path / "bad.zip"
    bad.write_bytes((done.root / "out" / "submission.zip").read_bytes()[:-30])
    ended = pbvs("submit", "check", bad, "--tasks", done.tasks, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["ok"] is False


def test_a_finished_training_says_so_and_changed_settings_keep_it_aside(done, pbvs):
    runs = done.root / "out" / "runs"
    train = (
        *("train", "sar2eo", "--data", runs / "prepared" / "eo_sar", "--out", runs / "sar2eo"),
        *("--tasks", done.tasks, "--weights", "standin", "--data-workers", "0"),
    )
    before = (runs / "sar2eo" / "pix2pixhd" / "best.safetensors").read_bytes()
    ended = pbvs(*train)
    assert ended.code == 0
    assert "finished before" in ended.out
    assert (runs / "sar2eo" / "pix2pixhd" / "best.safetensors").read_bytes() == before
    assert pbvs(*train, "--set", "nodes.pix2pixhd.training.seed=5").code == 0
    assert (runs / "sar2eo" / "pix2pixhd.previous-1" / "best.safetensors").read_bytes() == before
    assert (runs / "sar2eo" / "pix2pixhd" / "best.safetensors").read_bytes() != before


@pytest.mark.parametrize("value", ["0", "-1", "1.5", '"two"'])
def test_a_value_of_the_wrong_kind_is_reported_with_its_key(pbvs, value):
    ended = pbvs("tasks", "show", "sar2eo", "--set", f"data.draws_per_location={value}")
    assert_fails(ended, 2, "data.draws_per_location", "sar2eo.toml")
