"""16-bit test inputs become 8-bit as the training data of the network that reads them did."""

import cv2
import numpy as np
import pytest
import torch
from made_archives import write_tiff
from untrained import untrained_runs

from pbvs.core.errors import CheckpointError, ImageError, TaskError, UsageError
from pbvs.core.pixels import read_image, to_uint8
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.node_training import prepare_rules
from pbvs.pipeline.runs import Runs
from pbvs.pipeline.translate import read_source, translate_folder
from pbvs.pipeline.translator import Translator
from pbvs.pipeline.uint16_scaling import Uint16Scaling, resolve_scaling
from pbvs.training.checkpoint import read_record
from pbvs.training.run_record import RunRecord

SAR = np.random.default_rng(1).integers(500, 9000, (48, 52, 1), dtype=np.uint16)
PERCENTILE = {"uint16": "percentile", "uint16_percent": [1, 99], "stretches": {"sar": [900, 7000]}}


def task_set(challenge, **overrides):
    return TaskSet(challenge.tasks, {task: {"data.uint16": rule} for task, rule in overrides.items()})


def translator(challenge, task, runs, **overrides):
    return Translator(task_set(challenge, **overrides), task, runs, torch.device("cpu"))


@pytest.fixture
def input_16(tmp_path):
    return write_tiff(tmp_path / "inputs" / "0.tiff", SAR)


@pytest.mark.parametrize("task", ["sar2rgb", "sar2ir"])
def test_the_numbers_are_those_the_network_was_trained_with(challenge, input_16, task):
    """Of sar2ir that network is inside of the task that it contains; its own rule does not matter."""
    by_percentile = translator(challenge, task, untrained_runs(challenge, **PERCENTILE))
    stored = read_source(input_16, by_percentile)
    assert np.array_equal(stored, to_uint8(SAR, 900, 7000))
    translate_folder(by_percentile, input_16.parent, challenge.root / "out", overwrite=False)
    assert np.array_equal(read_image(challenge.root / "out" / "0.png"), by_percentile.stored(stored))


def test_the_network_s_rule_stands_over_the_task_s(challenge, input_16):
    full = {"uint16": "full", "uint16_percent": None, "stretches": {"sar": [0, 65535]}}
    by_full = translator(challenge, "sar2rgb", untrained_runs(challenge, **full), sar2rgb="percentile")
    assert np.array_equal(read_source(input_16, by_full), to_uint8(SAR))


def test_each_image_its_own_numbers_of_its_valid_pixels(challenge, tmp_path):
    own = {"uint16": "percentile_image", "uint16_percent": [10, 80], "stretches": {}}
    by_image = translator(challenge, "sar2rgb", untrained_runs(challenge, **own))
    image = SAR.copy()
    image[:, :20] = 0  # nodata: joined to a corner
    values = np.sort(image[:, 20:].ravel())
    low, high = (values[int(np.ceil(values.size * part)) - 1] for part in (0.1, 0.8))
    path = write_tiff(tmp_path / "0.tiff", image)
    assert np.array_equal(read_source(path, by_image), to_uint8(image, low, high))


def test_without_numbers_it_is_an_error_and_8_bits_are_none(challenge, input_16):
    runs = untrained_runs(challenge, **PERCENTILE | {"stretches": {"rgb": [1, 2]}})
    with pytest.raises(ImageError, match="no numbers") as caught:
        read_source(input_16, translator(challenge, "sar2rgb", runs))
    assert caught.value.where == str(input_16)
    eight = read_source(challenge.test / "sar2rgb" / "0.tiff", translator(challenge, "sar2rgb", runs))
    assert np.array_equal(eight, read_image(challenge.test / "sar2rgb" / "0.tiff"))


def test_a_task_without_a_network_has_its_own_rule(challenge, tmp_path):
    rgb = np.random.default_rng(1).integers(500, 9000, (40, 40, 3), dtype=np.uint16)
    path, runs = write_tiff(tmp_path / "0.tiff", rgb), Runs(tmp_path / "none")
    assert np.array_equal(read_source(path, translator(challenge, "rgb2ir", runs)), to_uint8(rgb))
    own = read_source(path, translator(challenge, "rgb2ir", runs, rgb2ir="percentile_image"))
    low, high = np.sort(rgb.ravel())[[47, 4751]]
    assert np.array_equal(own, to_uint8(rgb, low, high))
    with pytest.raises(ImageError, match="no numbers"):
        read_source(path, translator(challenge, "rgb2ir", runs, rgb2ir="percentile"))


def test_weights_without_a_rule_leave_it_to_the_task(challenge, input_16):
    runs = untrained_runs(challenge)
    assert np.array_equal(read_source(input_16, translator(challenge, "sar2rgb", runs)), to_uint8(SAR))
    with pytest.raises(ImageError, match="no numbers"):
        read_source(input_16, translator(challenge, "sar2rgb", runs, sar2rgb="percentile"))


def test_networks_that_were_trained_otherwise_do_not_go_together():
    first, second = (Uint16Scaling("percentile", (1, 99), (900, high)) for high in (7000, 8000))
    full = Uint16Scaling("full")
    assert resolve_scaling({}, full) == full
    assert resolve_scaling({"a.G": first, "b.G": first}, full) == first
    with pytest.raises(CheckpointError, match=r"a\.G and b\.G were trained .* different numbers"):
        resolve_scaling({"a.G": first, "b.G": second}, full)


def test_training_keeps_the_numbers_and_translation_uses_them(challenge, pbvs):
    """From 16-bit tiles to a translated 16-bit input, by the commands."""
    rng, values = np.random.default_rng(2), []
    for path in sorted((challenge.data / "Train_Data_and_Validation_EO_SAR/SAR/train").iterdir()):
        values.append(rng.integers(300, 5000, (64, 64), dtype=np.uint16))
        cv2.imwrite(str(path), values[-1])
    ordered = np.sort(np.concatenate(values).ravel())
    low, high = (ordered[int(np.ceil(ordered.size * part)) - 1] for part in (0.02, 0.98))
    settings = ("--set", "sar2eo.data.uint16=percentile", "--set", "sar2eo.data.uint16_percent=[2, 98]")
    ended = pbvs(*challenge.run_args("sar2eo"), *settings, "--to", "sar2eo.train")
    assert ended.code == 0, ended.err
    runs = challenge.root / "out" / "runs"
    expected = {"uint16": "percentile", "uint16_percent": [2, 98], "stretches": {"sar": [low, high]}}
    node = runs / "sar2eo" / "pix2pixhd"
    for record in (RunRecord.read(node), read_record(node / "best.safetensors")):
        assert {key: getattr(record, key) for key in expected} == expected
    for name, image in (("sixteen", values[0]), ("eight", to_uint8(values[0], low, high))):
        (challenge.root / name).mkdir()
        cv2.imwrite(str(challenge.root / name / "0.png"), image)
        folders = ("--inputs", challenge.root / name, "--out", challenge.root / f"{name}_out")
        ended = pbvs("translate", "sar2eo", *folders, "--runs", runs, "--tasks", challenge.tasks)
        assert ended.code == 0, ended.err
    written = [(challenge.root / f"{name}_out" / "0.png").read_bytes() for name in ("sixteen", "eight")]
    assert written[0] == written[1]


# ---- the rules to prepare by


def test_the_rules_of_several_tasks(challenge):
    some = TaskSet(
        challenge.tasks,
        {
            "sar2rgb": {"data.min_overlap": 0.3, "data.register_sar": True},
            "sar2ir": {"data.uint16": "percentile"},
        },
    )
    sar2rgb, rgb2ir, sar2ir = (some.spec(task) for task in ("sar2rgb", "rgb2ir", "sar2ir"))
    rules = prepare_rules([sar2rgb, rgb2ir])
    assert (rules.uint16, rules.min_overlap, rules.register) == ("full", 0.3, True)
    given = prepare_rules([sar2rgb, sar2ir], uint16="percentile_image", min_overlap=0.7, register=False)
    assert (given.uint16, given.min_overlap, given.register) == ("percentile_image", 0.7, False)
    with pytest.raises(UsageError, match="different 16-bit rules"):
        prepare_rules([sar2rgb, sar2ir])


def test_wrong_percents_are_reported_with_their_key(challenge):
    some = TaskSet(challenge.tasks, {"sar2rgb": {"data.uint16_percent": [99, 1]}})
    with pytest.raises(TaskError, match=r"data\.uint16_percent: .*0 <= low < high <= 100"):
        some.spec("sar2rgb")
