"""`pbvs train`: its output, when it starts over, and what translation loads from its checkpoint."""

import json

import numpy as np
import pytest
import torch

from pbvs.core import pixels
from pbvs.graph.trained import load_translation, run
from pbvs.systems.pix2pixhd.official import load_official
from pbvs.training import checkpoint

SET = "nodes.pix2pixhd.training"


@pytest.fixture
def command(challenge, pbvs):
    """Trains sar2eo on prepared tiles, with further arguments."""
    prepared = challenge.root / "prepared"
    ended = pbvs("data", "prepare", challenge.data, prepared, "--task", "sar2eo", "--tasks", challenge.tasks)
    assert ended.code == 0, ended.err

    def train(*more):
        return pbvs(
            *("train", "sar2eo", "--data", prepared, "--tasks", challenge.tasks),
            *("--runs", challenge.root / "runs", "--weights", "standin", "--device", "cpu"),
            *("--data-workers", 0, "--set", f"{SET}.ema=0.9", *more),
        )

    return train


def test_a_finished_run_says_so_and_another_precision_is_another_run(challenge, command):
    assert "10 images in" in command().out
    again = command().out
    assert "finished before, at 10 images (to go on: more epochs in training.stages, and --resume)" in again
    longer = ("--set", f"{SET}.stages=[{{epochs=4,learning_rate=1e-3}}]", "--resume", "--json")
    result = json.loads(command(*longer).out)
    assert (result["images"], result["ended_early"]) == (20, False)
    node = challenge.root / "runs" / "sar2eo" / "pix2pixhd"
    record = json.loads((node / "run.json").read_text())
    assert record["provenance"]["precision"] == "32-true"
    other = command("--precision", "bf16-mixed", *longer[:2])
    assert "20 images in" in other.out
    assert json.loads((node / "run.json").read_text())["provenance"]["precision"] == "bf16-mixed"
    aside = node.with_name("pix2pixhd.previous-1")
    assert json.loads((aside / "run.json").read_text())["provenance"]["precision"] == "32-true"
    assert checkpoint.read_record(aside / checkpoint.LAST).images_seen == 20


def test_translation_uses_the_average(challenge, command, pbvs):
    assert command().code == 0
    best = challenge.root / "runs" / "sar2eo" / "pix2pixhd" / checkpoint.BEST
    record, states = checkpoint.load_weights(best)
    translation = load_translation(record, states)
    ended = pbvs(
        *("translate", "sar2eo", "--inputs", challenge.test / "sar2eo", "--out", challenge.root / "out"),
        *("--tasks", challenge.tasks, "--runs", challenge.root / "runs", "--device", "cpu"),
    )
    assert ended.code == 0, ended.err
    for source in pixels.list_images(challenge.test / "sar2eo"):
        float255 = pixels.float255_from_stored(pixels.read_image(source))
        expected = pixels.stored_from_float255(run(translation, float255))
        np.testing.assert_array_equal(pixels.read_image(challenge.root / "out" / source.name), expected)
    from safetensors.torch import load_file

    raw = load_file(best)
    assert any((raw[f"G.{name}"] != value).any() for name, value in states["G"].items())


def test_float16_on_a_cpu_is_misuse(command):
    ended = command("--precision", "16-mixed")
    assert ended.code == 2
    assert "float16 is for CUDA devices" in ended.err


def test_written_in_the_published_form_and_trained_on_from_there(challenge, command, pbvs):
    assert command().code == 0
    node = challenge.root / "runs" / "sar2eo" / "pix2pixhd"
    out = challenge.root / "published"
    ended = pbvs("weights", "export", node / checkpoint.BEST, "--out", out)
    assert ended.code == 0, ended.err
    assert "latest_net_G.pth: {'netG': 'global', 'input_nc': 1" in ended.out
    average = checkpoint.load_weights(node / checkpoint.BEST)[1]["G"]
    written = load_official(out / "latest_net_G.pth")
    assert all(torch.equal(value, average[name]) for name, value in written.state_dict().items())
    again = pbvs("weights", "export", node / checkpoint.BEST, "--out", out)
    assert (again.code, "add --overwrite" in again.err) == (2, True)

    start = f"nodes.pix2pixhd.init_from.official={out / 'latest_net_G.pth'}"
    ended = command("--set", start, "--set", f"{SET}.stages=[{{epochs=1,learning_rate=1e-12}}]")
    assert ended.code == 0, ended.err
    assert "from latest_net_G.pth: generator" in ended.out
    report = json.loads((node / "init_weights.json").read_text())
    n_tensors = [len(network.state_dict()) for network in (written, load_official(out / "latest_net_D.pth"))]
    assert [len(report[name]["loaded"]) for name in ("generator", "discriminator")] == n_tensors
    raw = checkpoint.load_weights(node / checkpoint.LAST)[1]["G"]
    assert all(torch.allclose(raw[name], value, atol=1e-6) for name, value in average.items())
    (out / "latest_net_G.pth").write_bytes(b"truncated")
    ended = command("--set", start)
    assert (ended.code, "Traceback" in ended.err) == (1, False)
    assert "latest_net_G.pth" in ended.err
    (out / "latest_net_G.pth").unlink()
    assert "sar2eo starts from a file that does not exist" in command("--set", start).err


def test_initial_weights_have_one_origin(command):
    ended = command("--set", "nodes.pix2pixhd.init_from={task='sar2rgb',official='net_G.pth'}")
    assert ended.code == 2
    assert "give either task (and node), or official" in ended.err


def test_an_impossible_batch_size_leaves_the_run_where_it_is(challenge, command):
    assert command().code == 0
    best = challenge.root / "runs" / "sar2eo" / "pix2pixhd" / checkpoint.BEST
    before = best.read_bytes()
    ended = command("--set", f"{SET}.batch_size=64")
    assert (ended.code, "a batch of 64 is larger than the data" in ended.err) == (1, True)
    assert best.read_bytes() == before
    assert [p.name for p in best.parents[1].iterdir() if "previous" in p.name] == []
