"""Folders of test inputs translated: sizes, order, faults, formats, several at once."""

import json
import shutil

import cv2
import numpy as np
import pytest
import rasterio
import torch
from made_archives import write_tiff
from untrained import untrained_runs

from pbvs.core.errors import ImageError, UsageError
from pbvs.core.geotiff import read_georeference
from pbvs.core.pixels import read_image, resize, write_png
from pbvs.core.process_group import ProcessGroup
from pbvs.graph.node import InferenceOptions
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.translate import translate_folder
from pbvs.pipeline.translation_record import RECORD
from pbvs.pipeline.translator import Translator

CPU = torch.device("cpu")
SIZES = [(319, 302), (1333, 1291), (2423, 2518)]


def scene(seed, height, width, bands):
    rough = np.random.default_rng(seed).integers(0, 256, (9, 7, bands), dtype=np.uint8)
    return resize(rough, (height, width))


@pytest.fixture
def runs(challenge):
    return untrained_runs(challenge, uint16="full", uint16_percent=None, stretches={})


def translator(challenge, task, runs, part=None, options=None, **overrides):
    return Translator(TaskSet(challenge.tasks, overrides), task, runs, CPU, part, options)


@pytest.mark.parametrize("task", ["sar2rgb", "rgb2ir", "sar2ir"])
def test_any_size_comes_out_at_the_task_s(challenge, runs, tmp_path, task):
    bands = 3 if task == "rgb2ir" else 1
    for i, size in enumerate(SIZES):
        write_tiff(tmp_path / "in" / f"{i}.tiff", scene(i, *size, bands))
    done = translate_folder(
        translator(challenge, task, runs), tmp_path / "in", tmp_path / "out", overwrite=False
    )
    assert done.images == done.new_images == 3
    for i in range(3):
        image = read_image(tmp_path / "out" / f"{i}.png")
        assert image.shape == (64, 64, 3 if task == "sar2rgb" else 1)


def test_gray_tasks_are_one_rounding_of_the_resized_image(challenge, runs):
    source = scene(1, 133, 129, 3)
    gray = translator(challenge, "rgb2ir", runs).stored(source)
    at_size = resize(source, (64, 64)).astype(np.float64)
    expected = np.rint(np.clip(1.3 * at_size.mean(axis=2), 0, 255))
    assert np.array_equal(gray[..., 0], expected)
    constant = np.full((319, 302, 3), 71, np.uint8)
    assert np.unique(translator(challenge, "rgb2ir", runs).stored(constant)).tolist() == [92]


def test_the_lut_equals_the_nodes_one_by_one(challenge, runs):
    source = scene(2, 64, 64, 1)
    by_lut = translator(challenge, "sar2ir", runs)
    assert by_lut._lut is not None
    rgb = translator(challenge, "sar2rgb", runs).stored(source)
    gray = np.rint(np.clip(1.15 * rgb.mean(axis=2), 0, 255))
    assert np.array_equal(by_lut.stored(source)[..., 0], gray)
    # Without a tail of one piece, or where its input is not rounded, there is no LUT.
    assert translator(challenge, "sar2ir", runs, part=("sar2rgb",))._lut is None
    assert translator(challenge, "rgb2ir", runs, part=("intensity",))._lut is None


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_give_the_same_images(challenge, runs, tmp_path, batch):
    by_task = translator(challenge, "sar2rgb", runs)
    for i in range(4):
        write_png(tmp_path / "in" / f"{i}.png", scene(i, 50 + i, 60, 1))
    translate_folder(by_task, tmp_path / "in", tmp_path / "out", overwrite=False, batch=batch)
    for i in range(4):
        alone = by_task.stored(scene(i, 50 + i, 60, 1)).astype(int)
        together = read_image(tmp_path / "out" / f"{i}.png").astype(int)
        assert abs(alone - together).max() <= 1
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["timed_images"] == 4 and record["seconds"] > 0


def test_an_input_that_cannot_be_read_stops_no_other(challenge, runs, tmp_path):
    for i in range(4):
        write_png(tmp_path / "in" / f"{i}.png", scene(i, 50, 60, 1))
    (tmp_path / "in" / "1.png").write_bytes(b"")
    write_png(tmp_path / "in" / "2.png", scene(2, 50, 60, 3))
    nan = tmp_path / "in" / "4.tif"
    cv2.imwrite(str(nan), np.full((30, 30), np.nan, np.float32))
    by_task = translator(challenge, "sar2rgb", runs)
    with pytest.raises(ImageError, match="3 of 5 inputs") as caught:
        translate_folder(by_task, tmp_path / "in", tmp_path / "out", overwrite=False)
    text = str(caught.value)
    assert all(str(tmp_path / "in" / name) in text for name in ("1.png", "2.png", "4.tif"))
    assert "3 band(s)" in text and "float32" in text
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["0.png", "3.png"]
    # Repaired, the command resumes with what is missing.
    nan.unlink()
    for i in (1, 2):
        write_png(tmp_path / "in" / f"{i}.png", scene(i, 50, 60, 1))
    again = translate_folder(by_task, tmp_path / "in", tmp_path / "out", overwrite=True)
    assert again.images == 4 and len(list((tmp_path / "out").glob("*.png"))) == 4


def test_images_among_the_inputs_are_refused(challenge, runs):
    inputs = challenge.test / "rgb2ir"
    for out in (inputs, inputs / "out"):
        with pytest.raises(UsageError, match="lies in that of the inputs"):
            translate_folder(translator(challenge, "rgb2ir", runs), inputs, out, overwrite=True)
    assert not (inputs / RECORD).exists()


def test_a_geotiff_keeps_its_place_on_the_ground(challenge, runs, tmp_path):
    path = tmp_path / "in" / "0.tiff"
    path.parent.mkdir()
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000)
    with rasterio.open(
        path, "w", "GTiff", 100, 80, 3, "EPSG:26912", transform, "uint8"
    ) as tiff:  # 100 wide, 80 high
        tiff.write(scene(3, 80, 100, 3).transpose(2, 0, 1))
    write_png(tmp_path / "in" / "1.png", scene(3, 80, 100, 3))
    by_task = translator(challenge, "rgb2ir", runs)
    translate_folder(by_task, tmp_path / "in", tmp_path / "out", overwrite=False, format="tiff")
    with rasterio.open(tmp_path / "out" / "0.tiff") as result, rasterio.open(path) as source:
        assert result.crs == source.crs and result.shape == (64, 64)
        assert result.bounds == pytest.approx(source.bounds)
        assert np.array_equal(result.read(1), by_task.stored(scene(3, 80, 100, 3))[..., 0])
    assert read_georeference(tmp_path / "out" / "1.tiff") is None
    again = translate_folder(by_task, tmp_path / "in", tmp_path / "out", overwrite=False, format="tiff")
    assert again.new_images == 0


def test_processes_share_the_images(challenge, runs, tmp_path):
    """Each takes its part; here one after the other, the second receives what the first sent."""
    for i in range(5):
        write_png(tmp_path / "in" / f"{i}.png", scene(i, 50, 60, 1))
    by_task = translator(challenge, "sar2rgb", runs)
    sent = []

    def first(value):
        sent.append(value)
        return [value, value]

    out = tmp_path / "out"
    translate_folder(by_task, tmp_path / "in", out, overwrite=False, group=ProcessGroup(0, 2, first))
    assert sorted(path.stem for path in out.glob("*.png")) == ["0", "2", "4"]
    received = iter(sent)
    second = ProcessGroup(1, 2, lambda value: [next(received), value])
    done = translate_folder(by_task, tmp_path / "in", out, overwrite=False, group=second)
    assert sorted(path.stem for path in out.glob("*.png")) == ["0", "1", "2", "3", "4"]
    assert (done.images, done.new_images) == (5, 5)


def test_checkpoints_and_orientations_are_averaged(challenge, runs):
    node = runs.node_folder("sar2rgb", "pix2pixhd")
    other = node / "other.safetensors"
    shutil.copy(node / "best.safetensors", other)
    source = scene(1, 64, 64, 1)
    plain = translator(challenge, "sar2rgb", runs).stored(source)
    inference = {"nodes.pix2pixhd.inference.checkpoints": ["best", str(other)]}
    twice = translator(challenge, "sar2rgb", runs, sar2rgb=inference)
    assert np.array_equal(twice.stored(source), plain)
    assert len(twice.weights) == 2
    eight = translator(challenge, "sar2rgb", runs, sar2rgb={"nodes.pix2pixhd.inference.tta": 8})
    image = eight.stored(source)
    mirrored = eight.stored(np.ascontiguousarray(source[:, ::-1]))
    assert abs(mirrored[:, ::-1].astype(int) - image.astype(int)).max() <= 1
    assert not np.array_equal(image, plain)
    # Its settings decide the images of the task that it is a node of, too.
    tta = {"sar2rgb": {"nodes.pix2pixhd.inference.tta": 8}}
    for task in ("sar2rgb", "sar2ir"):
        before, now = (translator(challenge, task, runs, **more).provenance() for more in ({}, tta))
        assert {key for key in now if now[key] != before[key]} == {"task sar2rgb"}


def test_strips_and_bf16_stay_within_what_they_say(challenge, runs):
    source = scene(1, 200, 180, 1)
    whole = translator(challenge, "sar2rgb", runs).stored(source).astype(int)
    strips = translator(challenge, "sar2rgb", runs, options=InferenceOptions(in_strips=True))
    assert abs(strips.stored(source).astype(int) - whole).max() <= 1
    half = translator(challenge, "sar2rgb", runs, options=InferenceOptions(precision="bf16-mixed"))
    difference = abs(half.stored(source).astype(int) - whole)
    assert 0 < difference.mean() < 2


def test_no_weights_and_another_task_s_weights_are_refused(challenge, runs, tmp_path):
    with pytest.raises(Exception, match="no trained weights") as caught:
        translator(challenge, "sar2rgb", Runs(tmp_path / "none"))
    assert "pbvs train sar2rgb" in str(caught.value)
    weights = runs.weights_file("sar2rgb", "pix2pixhd")
    wrong = Runs(tmp_path / "none", checkpoint_override=weights, override_for=("sar2eo", "pix2pixhd"))
    with pytest.raises(Exception, match=r"belongs to sar2rgb\.pix2pixhd"):
        translator(challenge, "sar2eo", wrong)


def test_what_is_not_rounded_before_gray_is_rounded_once_behind_it(challenge, runs):
    """The mean of two translators has halves, so no LUT of whole sums can convert it to gray."""
    (challenge.tasks / "joined.toml").write_text(
        'task = "joined"\nsource = "sar"\ntarget = "ir"\nsize_px = 64\noutput = "intensity"\n'
        '[nodes.a]\nuse = "task"\ntask = "sar2rgb"\ninputs = ["source"]\n'
        '[nodes.b]\nuse = "task"\ntask = "sar2rgb"\ninputs = ["source"]\n'
        '[nodes.mix]\nuse = "blend"\ninputs = ["a", "b"]\nweights = [1, 1]\n'
        '[nodes.gray]\nuse = "grayscale"\ninputs = ["mix"]\n'
        '[nodes.intensity]\nuse = "intensity"\nfactor = 1.15\ninputs = ["gray"]\n'
    )
    joined = translator(challenge, "joined", runs)
    assert joined._lut is None
    source = scene(4, 64, 64, 1)
    rgb = translator(challenge, "sar2rgb", runs).stored(source).astype(np.float64)
    inner = {"a": rgb, "b": np.roll(rgb, 1, axis=0)}
    joined._operators["b"] = lambda pictures: torch.from_numpy(inner["b"].transpose(2, 0, 1))[None]
    mix = (inner["a"] + inner["b"]) / 2
    expected = np.rint(np.clip(1.15 * mix.mean(axis=2), 0, 255))
    rounded_first = np.rint(np.clip(1.15 * np.rint(mix).mean(axis=2), 0, 255))
    assert (expected != rounded_first).any()
    assert abs(joined.stored(source)[..., 0] - expected).max() == 0
