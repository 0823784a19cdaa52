"""`pbvs train`: what it tells, when it begins anew, and what translation takes from its checkpoint."""

import json

import numpy as np
import pytest
import torch

from pbvs.core import pixels
from pbvs.graph.trained import translated
from pbvs.systems.pix2pixhd.network import Generator, GeneratorConfig
from pbvs.systems.pix2pixhd.official import load_official
from pbvs.training import checkpoint

SET = "nodes.pix2pixhd.training"


@pytest.fixture
def command(challenge, pbvs):
    """Trains sar2eo on prepared tiles; further words are added to the command."""
    prepared = challenge.root / "prepared"
    told = pbvs("data", "prepare", challenge.data, prepared, "--task", "sar2eo", "--tasks", challenge.tasks)
    assert told.code == 0, told.err

    def run(*more):
        return pbvs(
            *("train", "sar2eo", "--data", prepared, "--tasks", challenge.tasks),
            *("--runs", challenge.root / "runs", "--weights", "standin", "--device", "cpu"),
            *("--data-workers", 0, "--set", f"{SET}.ema=0.9", *more),
        )

    return run


def test_a_finished_run_says_so_and_another_precision_is_another_run(challenge, command):
    assert "10 images in" in command().out
    again = command().out
    assert "finished before, at 10 images (to go on: more epochs in training.stages, and --resume)" in again
    longer = ("--set", f"{SET}.stages=[{{epochs=4,learning_rate=1e-3}}]", "--resume", "--json")
    told = json.loads(command(*longer).out)
    assert (told["images"], told["ended_early"]) == (20, False)
    node = challenge.root / "runs" / "sar2eo" / "pix2pixhd"
    record = json.loads((node / "run.json").read_text())
    assert record["made_of"]["precision"] == "32-true"
    other = command("--precision", "bf16-mixed", *longer[:2])
    assert "20 images in" in other.out
    assert json.loads((node / "run.json").read_text())["made_of"]["precision"] == "bf16-mixed"
    aside = node.with_name("pix2pixhd.previous-1")
    assert json.loads((aside / "run.json").read_text())["made_of"]["precision"] == "32-true"
    assert checkpoint.read_record(aside / checkpoint.LAST).images_seen == 20


def test_translation_uses_the_average(challenge, command, pbvs):
    assert command().code == 0
    best = challenge.root / "runs" / "sar2eo" / "pix2pixhd" / checkpoint.BEST
    header, average = checkpoint.load_weights(best, "G")
    network = Generator(GeneratorConfig(**header.params["generator"]), 1, 1)
    network.load_state_dict(average)
    told = pbvs(
        *("translate", "sar2eo", "--inputs", challenge.test / "sar2eo", "--out", challenge.root / "made"),
        *("--tasks", challenge.tasks, "--runs", challenge.root / "runs", "--device", "cpu"),
    )
    assert told.code == 0, told.err
    for source in pixels.list_images(challenge.test / "sar2eo"):
        levels = pixels.float255_from_stored(pixels.read_image(source))
        with torch.inference_mode():
            expected = pixels.stored_from_float255(translated(network.eval(), levels, (64, 64)))
        np.testing.assert_array_equal(pixels.read_image(challenge.root / "made" / source.name), expected)
    from safetensors.torch import load_file

    raw = load_file(best)
    assert any((raw[f"G.{name}"] != value).any() for name, value in average.items())


def test_float16_on_a_cpu_is_misuse(command):
    told = command("--precision", "16-mixed")
    assert told.code == 2
    assert "float16 is for CUDA devices" in told.err


def test_written_in_the_published_form_and_trained_on_from_there(challenge, command, pbvs):
    assert command().code == 0
    node = challenge.root / "runs" / "sar2eo" / "pix2pixhd"
    out = challenge.root / "published"
    told = pbvs("weights", "export", node / checkpoint.BEST, "--out", out)
    assert told.code == 0, told.err
    assert "latest_net_G.pth: {'netG': 'global', 'input_nc': 1" in told.out
    average = checkpoint.load_weights(node / checkpoint.BEST)[1]["G"]
    written = load_official(out / "latest_net_G.pth")
    assert all(torch.equal(value, average[name]) for name, value in written.state_dict().items())
    again = pbvs("weights", "export", node / checkpoint.BEST, "--out", out)
    assert (again.code, "add --overwrite" in again.err) == (2, True)

    start = f"nodes.pix2pixhd.first_weights.official={out / 'latest_net_G.pth'}"
    told = command("--set", start, "--set", f"{SET}.stages=[{{epochs=1,learning_rate=1e-12}}]")
    assert told.code == 0, told.err
    assert "from latest_net_G.pth: generator" in told.out
    became = json.loads((node / "first_weights.json").read_text())
    n_tensors = [len(network.state_dict()) for network in (written, load_official(out / "latest_net_D.pth"))]
    assert [len(became[name]["loaded"]) for name in ("generator", "discriminator")] == n_tensors
    raw = checkpoint.load_weights(node / checkpoint.LAST)[1]["G"]
    assert all(torch.allclose(raw[name], value, atol=1e-6) for name, value in average.items())
    (out / "latest_net_G.pth").write_bytes(b"torn")
    told = command("--set", start)
    assert (told.code, "Traceback" in told.err) == (1, False)
    assert "latest_net_G.pth" in told.err
    (out / "latest_net_G.pth").unlink()
    assert "sar2eo starts from a file that is not there" in command("--set", start).err


def test_first_weights_come_from_one_place(command):
    told = command("--set", "nodes.pix2pixhd.first_weights={task='sar2rgb',official='net_G.pth'}")
    assert told.code == 2
    assert "give either task (and node), or official" in told.err


def test_a_batch_that_cannot_be_leaves_the_run_where_it_is(challenge, command):
    assert command().code == 0
    best = challenge.root / "runs" / "sar2eo" / "pix2pixhd" / checkpoint.BEST
    before = best.read_bytes()
    told = command("--set", f"{SET}.batch_size=64")
    assert (told.code, "a batch of 64 is larger than the data" in told.err) == (1, True)
    assert best.read_bytes() == before
    assert [p.name for p in best.parents[1].iterdir() if "previous" in p.name] == []
