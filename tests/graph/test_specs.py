"""Task files: what they say, and the messages about wrong ones."""

import pytest

from pbvs.core.errors import TaskError, UsageError
from pbvs.graph.node_kinds import known_kinds
from pbvs.graph.task_files import split_overrides
from pbvs.graph.task_set import TaskSet
from pbvs.training.run_record import RENAMED_KEYS

TASKS = TaskSet()

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


def error_of(tmp_path, text, name="gray"):
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
    described = TASKS.graph(task).described()
    assert described["order"] == order
    assert described["weight_edges"] == weight_edges
    assert described["image_edges"] == [list(pair) for pair in zip(["source", *order], order, strict=False)]
    assert described["size_px"] == ([256, 256] if task == "sar2eo" else [1024, 1024])


def test_the_four_tasks_have_the_winning_solution_s_numbers():
    sar2eo = TASKS.spec("sar2eo").nodes["pix2pixhd"].params
    stages = [(s.epochs, s.learning_rate) for s in sar2eo.training.stages]
    assert stages == [(30, 2e-4), (10, 1e-4)]
    assert sar2eo.losses.model_dump() == {
        "gan": 1.0, "feature_matching": 10.0, "vgg": 10.0, "lpips": 1.0, "l2": 1.0, "l1": 0.0,
    }  # fmt: skip
    assert TASKS.spec("rgb2ir").nodes["intensity"].params.factor == 1.3
    assert TASKS.spec("sar2ir").nodes["intensity"].params.factor == 1.15
    assert TASKS.in_order(["sar2ir"]) == ["sar2eo", "sar2rgb", "sar2ir"]


def test_all_problems_of_a_file_are_reported_at_once(tmp_path):
    wrong = GOOD.replace("factor = 1.3", "facter = 1.3").replace('source = "rgb"', 'source = "rgbb"')
    message = error_of(tmp_path, wrong.replace("size_px = 64", 'size_px = "big"'))
    assert "4 problems" in message
    assert "nodes.intensity.facter: unknown key; did you mean 'factor'?" in message
    assert "nodes.intensity.factor: missing" in message
    assert "source: " in message
    assert "size_px" in message
    assert "gray.toml" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('use = "grayscale"', 'use = "greyscale"', "did you mean 'grayscale'?"),
        ('inputs = ["grayscale"]', 'inputs = ["grayscal"]', "no node 'grayscal'; did you mean 'grayscale'?"),
        ('inputs = ["source"]', 'inputs = ["intensity"]', "has a cycle"),
        ('source = "rgb"', 'source = "sar"', "nodes.grayscale: it takes a 3-band image, its input has 1"),
        ('target = "ir"', 'target = "rgb"', "intensity gives 1 band(s), rgb has 3"),
        ('output = "intensity"', 'output = "grayscale"', "nodes.intensity: no node takes its image"),
        ('inputs = ["grayscale"]', 'inputs = ["grayscale", "source"]', "intensity takes 1, not 2"),
        ("factor = 1.3", "factor = -1", "nodes.intensity.factor"),
        ('task = "gray"', 'task = "grey"', "names its task 'grey'"),
        ("[nodes.grayscale]", "[nodes.source]", "'source' is the task's own image"),
    ],
)
def test_each_kind_of_wrong_graph_is_reported(tmp_path, old, new, message):
    assert old in GOOD
    assert message in error_of(tmp_path, GOOD.replace(old, new))


def test_broken_toml_names_the_file_and_line(tmp_path):
    assert "line 2" in error_of(tmp_path, "\ntask = \n")


def test_a_misspelt_nested_key_is_answered_with_the_nearest():
    task_set = TaskSet(overrides={"sar2eo": {"nodes.pix2pixhd.training.batchsize": 2}})
    with pytest.raises(TaskError, match=r"training\.batchsize: unknown key; did you mean 'batch_size'\?"):
        task_set.graph("sar2eo")


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_key_of_0_1_0_is_answered_with_its_new_name(old, new):
    task_set = TaskSet(overrides={"sar2eo": {f"nodes.pix2pixhd.{old}": 1}})
    with pytest.raises(TaskError) as error:
        task_set.graph("sar2eo")
    assert f"nodes.pix2pixhd.{old}: unknown key; it is now {new}\n" in str(error.value)
    # What it is called now is a key: it is not unknown, whatever is wrong with the value.
    renamed = TaskSet(overrides={"sar2eo": {f"nodes.pix2pixhd.{new}": "?"}})
    with pytest.raises(TaskError) as error:
        renamed.graph("sar2eo")
    assert f"nodes.pix2pixhd.{new}: " in str(error.value) and "unknown key" not in str(error.value)


@pytest.mark.parametrize(("old", "new"), [("band_mix", "channel_mix"), ("tone_table", "lut")])
def test_a_kind_of_0_1_0_is_answered_with_its_new_name(tmp_path, old, new):
    message = error_of(tmp_path, GOOD.replace('use = "grayscale"', f'use = "{old}"'))
    assert f"nodes.grayscale.use: unknown kind of node '{old}'; it is now called '{new}'" in message
    assert new in known_kinds() and old not in known_kinds()


def test_weights_from_an_unknown_task_or_node_are_an_error():
    task_set = TaskSet(overrides={"sar2rgb": {"nodes.pix2pixhd.init_from.task": "sar2oe"}})
    with pytest.raises(TaskError, match=r"init_from\.task: unknown task 'sar2oe'; did you mean 'sar2eo'"):
        task_set.graph("sar2rgb")
    task_set = TaskSet(overrides={"sar2rgb": {"nodes.pix2pixhd.init_from.node": "unet"}})
    with pytest.raises(TaskError, match="sar2eo trains no node 'unet'"):
        task_set.graph("sar2rgb")


def test_a_cycle_of_tasks_is_an_error():
    task_set = TaskSet(overrides={"sar2eo": {"nodes.pix2pixhd.init_from.task": "sar2rgb"}})
    with pytest.raises(TaskError, match="cycle: sar2"):
        task_set.graph("sar2eo")


def test_a_task_of_another_source_cannot_stand_as_a_node():
    task_set = TaskSet(overrides={"sar2ir": {"source": "eo"}})
    with pytest.raises(TaskError, match="sar2rgb translates sar, its input is eo"):
        task_set.graph("sar2ir")


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'sar2eo'"):
        TASKS.graph("sar2oe")
    with pytest.raises(UsageError, match="did you mean 'sar2eo'"):
        split_overrides(["sar2oe.size_px=64"], TASKS.names)
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        split_overrides(["sar2eo"], TASKS.names)


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
    graph = TASKS.graph("sar2ir")
    assert graph.part() == ("sar2rgb", "grayscale", "intensity")
    assert graph.part(end="sar2rgb") == ("sar2rgb",)
    assert graph.part(start="grayscale") == ("grayscale", "intensity")
    with pytest.raises(UsageError, match="did you mean 'grayscale'"):
        graph.part(start="greyscale")
    with pytest.raises(UsageError, match="does not depend"):
        graph.part(start="intensity", end="sar2rgb")


TWO = """
task = "two"
source = "sar"
target = "rgb"
size_px = 64
output = "both"
[nodes.small]
use = "pix2pixhd"
inputs = ["source"]
size_px = 32
training = { stages = [{ epochs = 1, learning_rate = 1e-3 }] }
init_from = { task = "two", node = "large" }
[nodes.large]
use = "pix2pixhd"
inputs = ["source"]
training = { stages = [{ epochs = 1, learning_rate = 1e-3 }] }
[nodes.both]
use = "blend"
inputs = ["small", "large"]
"""


def test_trained_nodes_come_after_what_they_read_and_begin_at(tmp_path):
    (tmp_path / "two.toml").write_text(TWO)
    assert [node.name for node in TaskSet(tmp_path).graph("two").trained] == ["large", "small"]
    both_ways = TWO.replace(
        'use = "pix2pixhd"\ninputs = ["source"]\nt', 'use = "pix2pixhd"\ninputs = ["small"]\nt'
    )
    assert both_ways != TWO
    assert "init_from and inputs have a cycle: " in error_of(tmp_path, both_ways, "two")


def test_a_node_behind_another_sees_its_image_in_its_views(tmp_path):
    views = "[nodes.large.views.source]\ngray = true\n"
    text = TWO.replace('init_from = { task = "two", node = "large" }', "") + views
    (tmp_path / "two.toml").write_text(text.replace('["source"]\nt', '["small"]\nt'))
    graph = TaskSet(tmp_path).graph("two")
    large = graph.spec.nodes["large"]
    assert graph.upstream(large) == ("small",) and graph.upstream(graph.spec.nodes["small"]) == ()
    assert graph.view_bands(large) == {"source": 1, "target": 3}  # gray, of the three bands of `small`
    views = {node["name"]: node.get("views") for node in graph.described()["nodes"]}
    assert views["large"] == {"source": "small, gray", "target": "target"} and views["both"] is None


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("input = {}", "pix2pixhd has no view 'input'"),
        ('source = { of = "large" }', "nodes.small.views.source.of: no input 'large'"),
        (
            "source = { low = 2 }",
            "the source is reduced by 2 and the target by 1, but pix2pixhd makes images 1",
        ),
        ("source = { lo = 2 }", "nodes.small.views.source.lo: unknown key; did you mean 'low'?"),
        ("target = { gray = true }", "a blend is of images with the same bands, its inputs have [1, 3]"),
    ],
)
def test_wrong_views_are_reported(tmp_path, views, message):
    text = TWO.replace("size_px = 32\n", f"size_px = 32\nviews = {{ {views} }}\n")
    assert message in error_of(tmp_path, text, "two")
