"""Task files: what they say, and how wrong ones are told."""

import pytest

from pbvs.core.errors import TaskError, UsageError
from pbvs.graph.task_files import split_overrides
from pbvs.graph.task_set import TaskSet

BOOK = TaskSet()

GOOD = """
task = "gray"
source = "rgb"
target = "ir"
size_px = 64
output = "intensity"
[nodes.grayscale]
use = "grayscale"
inputs = ["source"]
[nodes.intensity]
use = "intensity"
inputs = ["grayscale"]
factor = 1.3
"""


def told_of(tmp_path, text, name="gray"):
    (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError) as error:
        TaskSet(tmp_path).graph(name)
    return str(error.value)


@pytest.mark.parametrize(
    ("task", "order", "weight_edges"),
    [
        ("sar2eo", ["pix2pixhd"], []),
        ("sar2rgb", ["pix2pixhd"], [["sar2eo", "pix2pixhd"]]),
        ("rgb2ir", ["grayscale", "intensity"], []),
        ("sar2ir", ["sar2rgb", "grayscale", "intensity"], [["sar2rgb", "sar2rgb"]]),
    ],
)
def test_the_four_tasks_have_the_winning_solution_s_graphs(task, order, weight_edges):
    told = BOOK.graph(task).described()
    assert told["order"] == order
    assert told["weight_edges"] == weight_edges
    assert told["image_edges"] == [list(pair) for pair in zip(["source", *order], order, strict=False)]
    assert told["size_px"] == ([256, 256] if task == "sar2eo" else [1024, 1024])


def test_the_four_tasks_have_the_winning_solution_s_numbers():
    sar2eo = BOOK.spec("sar2eo").nodes["pix2pixhd"].params
    stages = [(s.epochs, s.learning_rate) for s in sar2eo.training.stages]
    assert stages == [(30, 2e-4), (10, 1e-4)]
    assert sar2eo.losses.model_dump() == {
        "gan": 1.0, "feature_matching": 10.0, "vgg": 10.0, "lpips": 1.0, "l2": 1.0, "l1": 0.0,
    }  # fmt: skip
    assert BOOK.spec("rgb2ir").nodes["intensity"].params.factor == 1.3
    assert BOOK.spec("sar2ir").nodes["intensity"].params.factor == 1.15
    assert BOOK.in_order(["sar2ir"]) == ["sar2eo", "sar2rgb", "sar2ir"]


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    wrong = GOOD.replace("factor = 1.3", "facter = 1.3").replace('source = "rgb"', 'source = "rgbb"')
    told = told_of(tmp_path, wrong.replace("size_px = 64", 'size_px = "big"'))
    assert "4 problems" in told
    assert "nodes.intensity.facter: unknown key; did you mean 'factor'?" in told
    assert "nodes.intensity.factor: missing" in told
    assert "source: " in told
    assert "size_px" in told
    assert "gray.toml" in told


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('use = "grayscale"', 'use = "greyscale"', "did you mean 'grayscale'?"),
        ('inputs = ["grayscale"]', 'inputs = ["grayscal"]', "no node 'grayscal'; did you mean 'grayscale'?"),
        ('inputs = ["source"]', 'inputs = ["intensity"]', "goes in a circle"),
        ('source = "rgb"', 'source = "sar"', "grayscale takes a 3-band image, its input has 1"),
        ('target = "ir"', 'target = "rgb"', "intensity gives 1 band(s), rgb has 3"),
        ('output = "intensity"', 'output = "grayscale"', "nodes.intensity: nothing takes its image"),
        ('inputs = ["grayscale"]', 'inputs = ["grayscale", "source"]', "intensity takes 1, not 2"),
        ("factor = 1.3", "factor = -1", "nodes.intensity.factor"),
        ('task = "gray"', 'task = "grey"', "names its task 'grey'"),
        ("[nodes.grayscale]", "[nodes.source]", "'source' is the task's input"),
    ],
)
def test_each_kind_of_wrong_graph_is_told(tmp_path, old, new, words):
    assert old in GOOD
    assert words in told_of(tmp_path, GOOD.replace(old, new))


def test_broken_toml_names_the_file_and_line(tmp_path):
    assert "line 2" in told_of(tmp_path, "\ntask = \n")


def test_a_misspelt_nested_key_is_told_with_the_nearest():
    book = TaskSet(overrides={"sar2eo": {"nodes.pix2pixhd.training.batchsize": 2}})
    with pytest.raises(TaskError, match=r"training\.batchsize: unknown key; did you mean 'batch_size'\?"):
        book.graph("sar2eo")


def test_weights_from_an_unknown_task_or_node_are_told():
    book = TaskSet(overrides={"sar2rgb": {"nodes.pix2pixhd.first_weights.task": "sar2oe"}})
    with pytest.raises(TaskError, match=r"first_weights\.task: unknown task 'sar2oe'; did you mean 'sar2eo'"):
        book.graph("sar2rgb")
    book = TaskSet(overrides={"sar2rgb": {"nodes.pix2pixhd.first_weights.node": "unet"}})
    with pytest.raises(TaskError, match="sar2eo trains no node 'unet'"):
        book.graph("sar2rgb")


def test_tasks_in_a_circle_are_told():
    book = TaskSet(overrides={"sar2eo": {"nodes.pix2pixhd.first_weights.task": "sar2rgb"}})
    with pytest.raises(TaskError, match="circle: sar2"):
        book.graph("sar2eo")


def test_a_task_of_another_source_cannot_stand_as_a_node():
    book = TaskSet(overrides={"sar2ir": {"source": "eo"}})
    with pytest.raises(TaskError, match="sar2rgb translates sar, its input is eo"):
        book.graph("sar2ir")


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'sar2eo'"):
        BOOK.graph("sar2oe")
    with pytest.raises(UsageError, match="did you mean 'sar2eo'"):
        split_overrides(["sar2oe.size_px=64"], BOOK.names)
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        split_overrides(["sar2eo"], BOOK.names)


def test_a_file_that_extends_another_states_only_what_differs(tmp_path):
    (tmp_path / "gray.toml").write_text(GOOD, encoding="utf-8")
    more = tmp_path / "more"
    more.mkdir()
    (more / "gray.toml").write_text(
        'extends = "../gray.toml"\n[nodes.intensity]\nfactor = 2.0\n', encoding="utf-8"
    )
    spec = TaskSet(more).spec("gray")
    assert spec.nodes["intensity"].params.factor == 2.0
    assert spec.size_px == (64, 64)


def test_parts_of_a_graph():
    graph = BOOK.graph("sar2ir")
    assert graph.part() == ("sar2rgb", "grayscale", "intensity")
    assert graph.part(end="sar2rgb") == ("sar2rgb",)
    assert graph.part(start="grayscale") == ("grayscale", "intensity")
    with pytest.raises(UsageError, match="did you mean 'grayscale'"):
        graph.part(start="greyscale")
    with pytest.raises(UsageError, match="does not depend"):
        graph.part(start="intensity", end="sar2rgb")
