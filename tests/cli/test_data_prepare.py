"""`pbvs data prepare`: settings from the task files, what it prints, and which process prints."""

import json

import numpy as np
import pytest
from made_archives import location_in, write_tiff

from pbvs.archives.scan import Problem
from pbvs.prepare import prepare as module
from pbvs.prepare.prepare import PreparedSummary


@pytest.fixture
def prepare(challenge, pbvs, tmp_path):
    """Runs the command on the challenge's archives."""

    def run(*options, task="sar2rgb"):
        return pbvs(
            *("data", "prepare", challenge.data, tmp_path / "out", "--task", task),
            *("--tasks", challenge.tasks, *options),
        )

    return run


def about(tmp_path):
    return json.loads((tmp_path / "out/prepared.json").read_text())


def test_one_line_of_result_then_the_split_then_the_problems(prepare, challenge):
    write_tiff(
        location_in(challenge.data, "Manhattan", "1.0_2.0") / "x_rgb.tif", np.full((8, 8, 3), 90, np.uint8)
    )
    ended = prepare()
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].endswith("out: 7 captures, 7 written, 0 up to date")
    assert lines[1] == "training and held-out locations"
    assert "│ stack  │ Bingham   │         1 │" in ended.out
    assert "1 x missing_modality" in lines
    assert "registration" not in ended.out
    assert "7 up to date" in prepare().out


def test_rules_come_from_the_task_file_and_options_override_them(prepare, challenge, tmp_path):
    prepare()
    rules = about(tmp_path)["rules"]
    assert rules == {"uint16": "full", "uint16_percent": None, "min_overlap": 0.5, "register": False}
    file = challenge.tasks / "sar2rgb.toml"
    file.write_text(file.read_text().replace("[data]", '[data]\nuint16 = "percentile"\nregister_sar = true'))
    prepare()
    assert about(tmp_path)["rules"] == rules | {
        "uint16": "percentile",
        "uint16_percent": [1, 99],
        "register": True,
    }
    ended = prepare("--uint16", "percentile_image", "--no-register", "--min-overlap", "0.25")
    assert ended.code == 0
    assert about(tmp_path)["rules"] == {
        "uint16": "percentile_image",
        "uint16_percent": [1, 99],
        "min_overlap": 0.25,
        "register": False,
    }


def test_registration_and_new_16_bit_stretches_are_printed(prepare, challenge):
    folder = location_in(challenge.data, "Bingham", "40.64610_-112.18230")
    write_tiff(folder / "a_GEC.tif", np.full((64, 64), 500, np.uint16))
    options = ("--uint16", "percentile", "--register")
    assert "registration: 0 of 3 SAR captures moved (registration.csv)" in prepare(*options).out
    write_tiff(folder / "b_GEC.tif", np.full((64, 64), 900, np.uint16))
    expected = "16-bit stack/sar: 500 to 900 become black and white (before: 500 to 501), all written again"
    assert expected in prepare(*options).out


def test_json_has_all_of_it(prepare):
    summary = json.loads(prepare("--register", "--json").out)
    assert (summary["images"], summary["made"], summary["kept"], summary["compared"]) == (6, 6, 0, 2)
    assert summary["problems"] == []
    assert [row["city"] for row in summary["splits"]] == ["Bingham", "Manhattan", "all"]
    assert sum(row["locations"] for row in summary["splits"][:2]) == 2
    assert len(summary["fingerprint"]) == 64


def test_the_other_ranks_are_silent(prepare, monkeypatch):
    def as_rank_1(root, out, **arguments):
        assert arguments["progress"] is None
        return PreparedSummary(out, 1, 1, 0, 0, [Problem("a", "b", "c")], "f", first=False)

    monkeypatch.setattr(module, "prepare", as_rank_1)
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, str(value))
    ended = prepare()
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_options_out_of_range(prepare):
    assert prepare("--min-overlap", "1.5").code == 2
    ended = prepare("--uint16", "percentle")
    assert ended.code == 2
    assert "percentile_image" in ended.err
