"""A source of any size is resampled once, in whole numbers, straight to the size that the network reads."""

import numpy as np
import pytest
import torch
from untrained import untrained_runs

from pbvs.core import pixels
from pbvs.dataset.views import luma
from pbvs.graph.task_set import TaskSet
from pbvs.graph.trained import load_translation, run
from pbvs.pipeline.translate import translate_folder
from pbvs.pipeline.translator import Translator

SIZES = [(319, 302), (50, 60), (33, 90), (64, 64), (32, 32), (20, 25)]  # the task has 64, its network 32
RNG = np.random.default_rng(8)


def scene(size, bands):
    """Rough enough that each resampling changes it."""
    return RNG.integers(0, 256, (*size, bands), dtype=np.uint8)


def translator(challenge, runs, task="sar2rgb", **overrides):
    return Translator(TaskSet(challenge.tasks, overrides), task, runs, torch.device("cpu"))


def through_network(runs, task, source):
    """One stored image through the weights alone: float255 of the network's own size, not rounded."""
    translation = load_translation(*runs.load(task, "pix2pixhd"))
    return run(translation, pixels.float255_from_stored(source))


def resized_and_rounded(float255, size_px=(64, 64)):
    return pixels.stored_from_float255(pixels.resize_float255(float255, size_px))


@pytest.mark.parametrize("size", SIZES)
def test_once_to_the_working_size_and_once_to_the_task_s(challenge, tmp_path, size):
    source, runs = scene(size, 1), untrained_runs(challenge)
    expected = resized_and_rounded(through_network(runs, "sar2rgb", pixels.resize(source, (32, 32))))
    assert translator(challenge, runs).stored(source).tobytes() == expected.tobytes()
    pixels.write_png(tmp_path / "in" / "0.png", source)
    pixels.write_png(tmp_path / "expected.png", expected)
    translate_folder(translator(challenge, runs), tmp_path / "in", tmp_path / "out", overwrite=False)
    assert (tmp_path / "out" / "0.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.parametrize("size", [(319, 302), (50, 60), (33, 90)])
def test_twice_would_be_another_image(challenge, size):
    """The wrong ways, which must not pass the test above: by the task's size, and rounded on the way."""
    source, runs = scene(size, 1), untrained_runs(challenge)
    written = translator(challenge, runs).stored(source)
    at_task_size = pixels.resize(pixels.resize(source, (64, 64)), (32, 32))
    assert (resized_and_rounded(through_network(runs, "sar2rgb", at_task_size)) != written).any()
    small = pixels.stored_from_float255(through_network(runs, "sar2rgb", pixels.resize(source, (32, 32))))
    assert (pixels.resize(small, (64, 64)) != written).any()


def test_several_sizes_go_through_together(challenge):
    runs = untrained_runs(challenge)
    sources = [scene(size, 1) for size in SIZES]
    together = translator(challenge, runs).stored_together(sources)
    for source, image in zip(sources, together, strict=True):
        alone = translator(challenge, runs).stored(source)
        assert abs(image.astype(int) - alone).max() <= 1  # the convolutions of a batch round in another order


def test_the_size_is_the_checkpoint_s_not_today_s(challenge):
    source, runs = scene((90, 70), 1), untrained_runs(challenge)
    other = translator(challenge, runs, sar2rgb={"nodes.pix2pixhd.size_px": 48})
    assert np.array_equal(other.stored(source), translator(challenge, runs).stored(source))


def test_a_task_inside_another_has_the_source_itself(challenge):
    """sar2ir is the gray of what sar2rgb writes of the same file, whatever its size."""
    source, runs = scene((319, 302), 1), untrained_runs(challenge)
    rgb = translator(challenge, runs).stored(source)
    gray = np.rint(np.clip(1.15 * rgb.mean(axis=2, keepdims=True), 0, 255))
    assert np.array_equal(translator(challenge, runs, "sar2ir").stored(source), gray)


def test_views_of_the_source_are_taken_at_the_size_that_the_network_reads(challenge):
    """Gray after the resize; `low` makes the size itself smaller."""
    (challenge.tasks / "rgb2ir_direct.toml").write_text(
        f'extends = "{challenge.tasks}/sar2eo.toml"\ntask = "rgb2ir_direct"\nsource = "rgb"\ntarget = "ir"\n'
        "[nodes.pix2pixhd.views]\nsource = { gray = true, low = 2 }\ntarget = { of = 'target', low = 2 }\n"
    )
    source, task = scene((319, 302), 3), "rgb2ir_direct"
    runs = untrained_runs(challenge, task)
    reads = luma(pixels.resize(source, (32, 32)))
    expected = resized_and_rounded(through_network(runs, task, reads))
    assert np.array_equal(translator(challenge, runs, task).stored(source), expected)


def test_a_node_behind_another_reads_whole_numbers_of_that_one_s_size(challenge):
    """What training reads from the captures of the node before, `Translator.unresized` keeps as it is."""
    (challenge.tasks / "two.toml").write_text(
        f'extends = "{challenge.tasks}/sar2eo.toml"\ntask = "two"\noutput = "second"\n'
        '[nodes.pix2pixhd]\nsize_px = 32\n[nodes.second]\nuse = "pix2pixhd"\ninputs = ["pix2pixhd"]\n'
        "size_px = 48\ngenerator = { channels = 4, n_downsample = 1, blocks = 1 }\n"
        "training = { stages = [{ epochs = 1, learning_rate = 1e-3 }] }\n"
    )
    runs = untrained_runs(challenge, "two")
    task_set, source = TaskSet(challenge.tasks), scene((70, 80), 1)
    first = Translator(task_set, "two", runs, torch.device("cpu"), ("pix2pixhd",))
    [small] = first.unresized([source])
    assert small.shape == (32, 32, 1)
    float255 = pixels.float255_from_stored(pixels.resize(small, (48, 48)))
    expected = resized_and_rounded(run(load_translation(*runs.load("two", "second")), float255))
    whole = Translator(task_set, "two", runs, torch.device("cpu"))
    assert np.array_equal(whole.stored(source), expected)
