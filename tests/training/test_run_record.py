"""The record of a run: written and read back, and upgraded from the forms that pbvs 0.1.0 wrote."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from untrained import record_of

from pbvs.core.errors import CheckpointError
from pbvs.systems.pix2pixhd.config import Pix2PixHDConfig
from pbvs.training.checkpoint import read_record
from pbvs.training.run_record import RunRecord, pix2pixhd_config_from_0_1_0

GOLDEN = Path(__file__).parents[1] / "golden" / "run_0_1_0"
# A `run.json` of 0.1.0, as its demo wrote it for SAR2RGB, with every renamed key set.
TRAINING = {
    "accumulate": 1,
    "batch_size": 4,
    "betas": [0.5, 0.999],
    "channels_last": False,
    "checkpoint_every_images": 20000,
    "checkpointing": True,
    "clip_norm": None,
    "compile": False,
    "crop_px": 128,
    "ema": None,
    "fix_global_epochs": 2,
    "flips": True,
    "patience": None,
    "pool_size": 7,
    "seed": 0,
    "stages": [{"decay": "constant", "epochs": 5, "learning_rate": 0.001}],
    "validate_every_epochs": 3,
    "validate_every_images": None,
}
PARAMS = {
    "discriminator": {"channels": 16, "layers": 3, "norm": "instance", "scales": 2},
    "first_weights": {"bands": "mean", "node": None, "official": None, "task": "sar2eo"},
    "generator": {
        "blocks": 3,
        "channels": 16,
        "downsamplings": 2,
        "enhancer_blocks": 3,
        "enhancers": 1,
        "kind": "local",
        "norm": "batch",
    },
    "losses": {"feature_matching": 0.05, "gan": 0.02, "l1": 0.0, "l2": 10.0, "lpips": 2.0, "vgg": 0.0},
    "size_px": None,
    "training": TRAINING,
}
NODE = {
    **PARAMS,
    "use": "pix2pixhd",
    "inputs": ["source"],
    "inference": {"checkpoints": ["best"], "turns": 1, "weights": None},
}
MADE_OF = {
    "code": "b2aef6",
    "first weights": "fresh",
    "judges' weights": "standin",
    "precision": "32-true",
    "task settings": "cb1a30",
    "training data": "bb3211",
}
RUN_JSON = {
    "bands": [1, 3],
    "made_of": MADE_OF,
    "marked": "stand-in weights: not comparable",
    "node": "pix2pixhd",
    "prepared": "satellite",
    "schema": 1,
    "size_px": [256, 192],
    "stretches": {"sar": [3.0, 900.0]},
    "task": {
        "data": {"uint16": "stretch", "uint16_percent": [1.0, 99.0]},
        "nodes": {"pix2pixhd": NODE},
        "output": "pix2pixhd",
        "size_px": [256, 192],
        "source": "sar",
        "target": "rgb",
        "task": "sar2rgb",
    },
    "uint16": "stretch",
    "uint16_percent": [1.0, 99.0],
    "versions": {"pbvs": "0.1.0", "python": "3.11.7", "torch": "2.15.0+cu132"},
    "weights": "standin",
}
# In place of the last two: what a weights file's header had.
HEADER = {key: value for key, value in RUN_JSON.items() if key not in ("prepared", "schema", "versions")} | {
    "best_score": 0.25,
    "images_seen": 1234,
    "params": PARAMS,
    "task": "sar2rgb",
}
CONFIG = {
    "discriminator": PARAMS["discriminator"],
    "init_from": PARAMS["first_weights"],
    "generator": {
        "blocks": 3,
        "channels": 16,
        "n_downsample": 2,
        "enhancer_blocks": 3,
        "local_enhancers": 1,
        "kind": "local",
        "norm": "batch",
    },
    "losses": PARAMS["losses"],
    "size_px": None,
    "pool_size": 7,
    "fix_global_epochs": 2,
    "training": {
        **{k: v for k, v in TRAINING.items() if k not in ("pool_size", "fix_global_epochs", "checkpointing")},
        "activation_checkpointing": True,
    },
}
UPGRADED = {
    "system": "pix2pixhd",
    "version": 1,
    "task": "sar2rgb",
    "node": "pix2pixhd",
    "size_px": (256, 192),
    "bands": {"source": 1, "target": 3},
    "config": CONFIG,
    "settings": RUN_JSON["task"],
    "provenance": {
        "code of 0.1.0": "b2aef6",
        "init weights": "fresh",
        "metric weights": "standin",
        "precision": "32-true",
        "task settings": "cb1a30",
        "training data": "bb3211",
    },
    "data": "satellite",
    "uint16": "stretch",
    "uint16_percent": [1.0, 99.0],
    "stretches": {"sar": [3.0, 900.0]},
    "metric_weights": "standin",
    "disclaimer": "stand-in weights: not comparable",
    "versions": {"pbvs": "0.1.0", "python": "3.11.7", "torch": "2.15.0+cu132"},
    "images_seen": 0,
    "best_score": None,
    "schema": 2,
}


def test_a_run_json_of_0_1_0_is_upgraded(tmp_path):
    before = json.dumps(RUN_JSON)
    assert asdict(RunRecord.from_dict(RUN_JSON, tmp_path)) == UPGRADED
    assert json.dumps(RUN_JSON) == before
    (tmp_path / "run.json").write_text(before)
    assert asdict(RunRecord.read(tmp_path)) == UPGRADED


def test_a_weights_header_of_0_1_0_is_upgraded(tmp_path):
    """It had the node's settings, and neither the task's nor the versions."""
    differs = {
        "settings": {},
        "data": "",
        "versions": {"pbvs": "0.1.0"},
        "images_seen": 1234,
        "best_score": 0.25,
    }
    assert asdict(RunRecord.from_dict(HEADER, tmp_path)) == UPGRADED | differs


def test_an_upgraded_config_is_valid_today(tmp_path):
    config = Pix2PixHDConfig.model_validate(RunRecord.from_dict(RUN_JSON, tmp_path).config)
    assert (config.generator.n_downsample, config.generator.local_enhancers) == (2, 1)
    assert (config.pool_size, config.fix_global_epochs) == (7, 2)
    assert config.training.activation_checkpointing
    assert config.init_from.task == "sar2eo"


def test_files_that_0_1_0_wrote_are_read():
    run = RunRecord.read(GOLDEN / "runs" / "sar2eo" / "pix2pixhd")
    weights = read_record(GOLDEN / "finished" / "best.safetensors")
    assert run.config == weights.config
    assert run.config["generator"]["n_downsample"] == weights.config["generator"]["n_downsample"] == 1
    assert run.config["pool_size"] == 3
    assert run.provenance == weights.provenance
    assert (run.images_seen, weights.images_seen) == (0, 10)
    assert run.size_px == weights.size_px == (64, 64)
    assert run.settings["nodes"]["pix2pixhd"]["training"]["pool_size"] == 3  # as it was written


def test_keys_that_a_config_lacks_are_not_added():
    assert pix2pixhd_config_from_0_1_0({"generator": {"channels": 4}}) == {"generator": {"channels": 4}}
    assert pix2pixhd_config_from_0_1_0({"inference": {"turns": 4}}) == {"inference": {"tta": 4}}


def test_a_record_is_written_and_read_back(tmp_path):
    record = record_of(size_px=(48, 64), stretches={"sar": [1.0, 2.0]}, uint16_percent=[1.0, 99.0])
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record
    of_weights = record.at(12, 0.5)
    assert (of_weights.images_seen, of_weights.best_score) == (12, 0.5)
    assert RunRecord.from_dict(json.loads(of_weights.to_json()), tmp_path) == of_weights


@pytest.mark.parametrize(
    "raw",
    [
        asdict(record_of()) | {"schema": 3},
        asdict(record_of()) | {"new_field": 1},
        {key: value for key, value in asdict(record_of()).items() if key != "bands"},
        {key: value for key, value in HEADER.items() if key != "node"},
        {"n": 1},
    ],
    ids=["later schema", "unknown field", "field missing", "0.1.0 without node", "not a record"],
)
def test_a_record_of_another_form_is_an_error_that_names_the_file(raw):
    with pytest.raises(CheckpointError, match="another version of pbvs") as error:
        RunRecord.from_dict(raw, Path("run.json"))
    assert error.value.where == "run.json"
    assert "--fresh" in str(error.value)
