"""The ablation by its command, on a tiny challenge: every cell by its own task, shared parts once."""

import csv
import json

import pytest

from pbvs.core.errors import TaskError
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.ablate import ROWS, ablation_folder, read_rows
from pbvs.pipeline.chain import find_inputs

TWICE = "[data]\ndraws_per_location = 2\n"  # a batch is of two
FROM_RGB = 'source = "rgb"\ntarget = "ir"\n'
EXTRA = {
    "sar2rgb_fresh": f'extends = "sar2eo.toml"\ntask = "sar2rgb_fresh"\ntarget = "rgb"\n{TWICE}',
    "rgb2ir_direct": f'extends = "sar2eo.toml"\ntask = "rgb2ir_direct"\n{FROM_RGB}{TWICE}',
    "sar2ir_direct": f'extends = "sar2eo.toml"\ntask = "sar2ir_direct"\ntarget = "ir"\n{TWICE}',
    "sar2ir_pretrained": 'extends = "sar2rgb.toml"\ntask = "sar2ir_pretrained"\ntarget = "ir"\n',
    "sar2ir_gray": 'extends = "sar2ir.toml"\ntask = "sar2ir_gray"\n[nodes.sar2rgb]\ntask = "sar2rgb_fresh"\n',
}


@pytest.fixture
def ablated(challenge):
    for task, text in EXTRA.items():
        (challenge.tasks / f"{task}.toml").write_text(text)
    return challenge


def args(challenge, *more):
    folders = ("--data", challenge.data, "--test", challenge.test, "--tasks", challenge.tasks)
    outs = ("--runs", challenge.root / "runs", "--out", challenge.root / "out")
    return ("ablate", *folders, *outs, "--weights", "standin", *more)


def test_the_table_on_one_s_own_data(ablated, pbvs):
    ended = pbvs(*args(ablated, "--json"))
    assert ended.code == 0, ended.err
    table = json.loads(ended.out)
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == ["Pix2PixHD-c", "Grayscale", "Pretrained", "All combined"]
    assert rows["Pix2PixHD-c"]["scores"]["sar2ir"]["by"] == "sar2ir_direct"
    assert (
        rows["Grayscale"]["scores"].keys() == {"rgb2ir", "sar2ir"} and rows["Grayscale"]["combined"] is None
    )
    whole = rows["All combined"]
    assert whole["combined"] == pytest.approx(sum(s["score"] for s in whole["scores"].values()) / 4)
    # One task, one score, wherever it stands.
    assert rows["Pix2PixHD-c"]["scores"]["sar2eo"] == whole["scores"]["sar2eo"]
    assert rows["Pretrained"]["scores"]["sar2rgb"] == whole["scores"]["sar2rgb"]
    assert rows["Grayscale"]["scores"]["sar2ir"]["score"] != whole["scores"]["sar2ir"]["score"]
    assert all(s["interval95"] and s["images"] == 3 for s in whole["scores"].values())
    assert table["marked"] and table["left_out"] == []
    trained = sorted(path.parent.parent.name for path in (ablated.root / "runs").glob("*/*/best.safetensors"))
    assert trained == [
        "rgb2ir_direct",
        "sar2eo",
        "sar2ir_direct",
        "sar2ir_pretrained",
        "sar2rgb",
        "sar2rgb_fresh",
    ]
    lines = list(csv.DictReader((ablated.root / "out" / "ablation.csv").read_text().splitlines()))
    assert len(lines) == 4 + 2 + 2 + 4 and {line["weights"] for line in lines} == {"standin"}

    again = pbvs(*args(ablated))
    assert again.code == 0 and "doing" not in again.err
    assert "published 2024" in again.out and "0.44" in again.out and "not to be ranked" in again.out


def test_tasks_without_a_test_set_have_no_cells_and_are_not_trained(ablated, pbvs):
    inputs = find_inputs(ablated.test, "sar2ir")
    inputs.rename(ablated.root / "elsewhere")
    plan = pbvs(*args(ablated, "--dry-run"))
    assert plan.code == 0, plan.err
    assert "sar2eo.train" in plan.out and "sar2ir" not in plan.out
    assert not (ablated.root / "runs").exists()


def test_without_targets_it_is_an_error(ablated, pbvs):
    ablated.targets.rename(ablated.root / "hidden")
    ended = pbvs(*args(ablated))
    assert ended.code == 2 and "--targets" in ended.err


def test_the_rows_that_come_with_pbvs_are_the_published_ones():
    rows = read_rows(ablation_folder() / ROWS, TaskSet(ablation_folder()))
    assert [row.published.get("combined") for row in rows] == [0.44, None, None, 0.32]
    cells = [score for row in rows for task, score in row.published.items() if task != "combined"]
    assert sum(cells) == pytest.approx(
        0.08 + 0.56 + 0.55 + 0.58 + 0.16 + 0.53 + 0.55 + 0.55 + 0.08 + 0.55 + 0.16 + 0.51
    )
    assert all(row.published.keys() - {"combined"} == row.tasks.keys() for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rows]]\nname = "a"\ntasks = { sar2eo = "sar2eoo" }', "no task 'sar2eoo'"),
        ('[[rows]]\nname = "a"\ntasks = { sar2ir = "sar2eo" }', "cannot solve sar2ir"),
        ('[[rows]]\nname = "a"\ntasks = { sar2xx = "sar2eo" }', "'sar2xx'"),
        ('[[rows]]\nname = "a"', "cannot be read"),
        ("rows = ", "cannot be read"),
    ],
)
def test_wrong_rows_are_reported(tmp_path, text, message):
    path = tmp_path / "rows.toml"
    path.write_text(text)
    with pytest.raises(TaskError, match=message):
        read_rows(path, TaskSet(ablation_folder()))
