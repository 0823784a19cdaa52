"""The factor put into synthetic scenes comes back; errors are those of brute force; written tasks run."""

import json
import tomllib

import numpy as np
import pytest
from untrained import untrained_runs

from pbvs.core.errors import UsageError
from pbvs.dataset.index import PreparedData
from pbvs.graph.task_set import TaskSet
from pbvs.pipeline.calibrate import calibrate
from pbvs.pipeline.calibrated import FACTORS, chart, task_with
from pbvs.pipeline.tone_pairs import Pair, Pairs, nodes_before, tone_tail
from pbvs.scenes.synth import make_archives


class Synthetic:
    """Pairs in memory: `n` locations in two cities, noisy, clipped, partly masked."""

    def __init__(self, factor, n=6, noise=0.0, clipped=False, masked=0.0):
        self.pairs = []
        for i in range(n):
            rng = np.random.default_rng(i)
            low, high = (120, 256) if clipped else (0, 256)
            rgb = rng.integers(low, high, (64, 64, 3), dtype=np.uint8)
            gray = factor * rgb.mean(axis=2, keepdims=True) + rng.normal(0, noise or 1e-12, (64, 64, 1))
            target = np.rint(np.clip(gray, 0, 255)).astype(np.uint8)
            valid = rng.random((64, 64)) >= masked
            target[~valid] = 0  # nodata
            city = "Bingham" if i < n / 2 else "Manhattan"
            self.pairs.append(Pair(("stack", city, str(i)), str(i), rgb, target, valid))

    def __len__(self):
        return len(self.pairs)

    def __iter__(self):
        return iter(self.pairs)

    def some(self, n):
        return self


@pytest.fixture(scope="module")
def graph():
    return TaskSet().graph("rgb2ir")


@pytest.mark.parametrize("by", ["l2", "l1"])
@pytest.mark.parametrize("factor", [0.83, 1.15, 1.372])
@pytest.mark.parametrize("trouble", [{}, {"noise": 12.0}, {"clipped": True}, {"noise": 5.0, "masked": 0.4}])
def test_the_factor_put_in_is_found(graph, by, factor, trouble):
    found = calibrate(graph, Synthetic(factor, **trouble), by)
    assert found.factor == pytest.approx(factor, abs=0.005)
    assert found.plateau[0] <= found.factor <= found.plateau[1]
    assert all(abs(other - factor) < 0.01 for other in found.fold_factors)
    assert found.cities.keys() == {"Bingham", "Manhattan"}


def test_errors_are_means_over_images_of_brute_force(graph):
    pairs = Synthetic(1.2, noise=9.0, masked=0.3)
    found = calibrate(graph, pairs)
    value = found.to_json()

    def brute(factor):
        rows = []
        for pair in pairs:
            gray = np.rint(np.clip(factor * (pair.rgb.astype(int).sum(axis=2) / 3), 0, 255))
            difference = (gray - pair.target[..., 0])[pair.valid] / 255
            rows.append((np.abs(difference).mean(), np.sqrt((difference**2).mean())))
        return np.mean(rows, axis=0)

    assert (value["l1"], value["l2"]) == pytest.approx(tuple(brute(found.factor)), abs=1e-9)
    assert (found.current.l1, found.current.l2) == pytest.approx(tuple(brute(1.3)), abs=1e-9)
    for i in (0, 700, 2800):
        assert (found.curve_l1[i], found.curve_l2[i]) == pytest.approx(tuple(brute(FACTORS[i])), abs=1e-9)
    assert value["pixels"] == sum(pair.valid.sum() for pair in pairs)
    assert found.factor == FACTORS[np.argmin(found.curve_l2)]


def test_held_out_errors_are_of_locations_not_fitted_to(graph):
    pairs = Synthetic(
        1.2, n=5, noise=20.0
    )  # without noise the mean of roots, as a median, heeds no single one
    odd = Synthetic(1.6, n=5, noise=20.0).pairs[4]
    pairs.pairs[4] = odd  # one location with a factor of its own: left out, the others say 1.2
    found = calibrate(graph, pairs)
    assert found.fold_factors[4] == pytest.approx(1.2, abs=0.01)
    assert min(found.fold_factors[:4]) > found.fold_factors[4] + 0.02
    assert found.best.l2_heldout > found.best.l2
    alone = calibrate(graph, Synthetic(1.2, n=1))
    assert alone.best.l2_heldout is None and alone.conclusion is None
    assert json.loads(json.dumps(alone.to_json()))["heldout"]["l2"] is None


def test_the_conclusion_does_not_praise_a_factor_that_is_worse_elsewhere(graph):
    """Cities that pull apart: the mean of both is no better on a location left out than what was there."""
    pairs = Synthetic(1.0, n=2)
    pairs.pairs[1] = Synthetic(1.7, n=2).pairs[1]
    found = calibrate(graph, pairs)
    assert found.best.l2_heldout > found.current.l2_heldout
    assert "no reason to change it" in found.conclusion
    assert "no reason" not in calibrate(graph, Synthetic(1.6, n=4, noise=3.0)).conclusion


def test_a_table_takes_what_no_factor_can_and_a_mix_what_no_table_can(graph):
    pairs = Synthetic(1.0, n=4)
    for i, pair in enumerate(pairs.pairs):
        bent = 255 * (pair.rgb.mean(axis=2, keepdims=True) / 255) ** 2
        pairs.pairs[i] = pair._replace(target=np.rint(bent).astype(np.uint8), valid=pair.valid | True)
    found = calibrate(graph, pairs)
    assert found.lut.l2 < 0.01 < found.best.l2
    for i, pair in enumerate(pairs.pairs):
        pairs.pairs[i] = pair._replace(target=pair.rgb[:, :, 1:2])
    found = calibrate(graph, pairs)
    assert found.mix.l2 < 1e-9 < found.lut.l2
    assert found.weights == pytest.approx((0, 1, 0), abs=1e-9)


def test_by_score_takes_the_best_scored(graph):
    class Scorer:
        def __init__(self):
            self.errors = []

        def score_pairs(self, pairs, score_config):
            self.errors.append([np.abs(pred.astype(float) - real).mean() for _, pred, real in pairs])

            class Score:
                score = float(np.mean(self.errors[-1]))
                interval95 = None

            return Score

    scorer = Scorer()
    found = calibrate(graph, Synthetic(1.2, noise=4.0, masked=0.5), "score", scorer=scorer)
    assert found.factor == min(found.scored, key=lambda one: one.score).factor
    assert {found.current_factor, found.factor} <= {one.factor for one in found.scored}
    assert len(scorer.errors) == len(found.scored) > 3


@pytest.mark.parametrize("write_as", ["factor", "table", "mix"])
def test_the_task_that_is_written_runs(graph, tmp_path, write_as):
    from pbvs.pipeline.runs import Runs
    from pbvs.pipeline.translator import Translator

    found = calibrate(graph, Synthetic(1.2, noise=4.0))
    (tmp_path / "rgb2ir.toml").write_text(task_with(graph.spec, found, write_as))
    spec = TaskSet(tmp_path).spec("rgb2ir")
    if write_as == "factor":
        assert spec.nodes["intensity"].params.factor == found.factor
    translator = Translator(TaskSet(tmp_path), "rgb2ir", Runs(tmp_path), device=None)
    rgb = np.random.default_rng(9).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    sums = rgb.astype(int).sum(axis=2)
    expected = {
        "factor": found.factor * (sums / 3),
        "table": np.round(found.lut_values, 2)[sums],
        "mix": rgb @ np.array(found.weights) + found.offset,
    }[write_as]
    assert np.array_equal(translator.stored(rgb)[..., 0], np.rint(np.clip(expected, 0, 255)))


def test_tasks_without_a_factor_are_refused():
    with pytest.raises(UsageError, match="no factor to calibrate"):
        tone_tail(TaskSet().graph("sar2eo"))


def test_by_command_on_synthetic_scenes(pbvs, tmp_path):
    make_archives(
        tmp_path / "a",
        locations=4,
        tiles=0,
        test_images=0,
        chip_px=96,
        ir="gray",
        gray_factor=1.17,
        target_px=64,
    )
    assert pbvs("data", "prepare", tmp_path / "a", tmp_path / "p", "--task", "rgb2ir").code == 0
    plot, csv, toml = (tmp_path / name for name in ("c.svg", "c.csv", "new/rgb2ir.toml"))
    command = ("calibrate", "rgb2ir", "--data", tmp_path / "p")
    ended = pbvs(*command, "--plot", plot, "--csv", csv, "--write", toml, "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert value["factor"] == pytest.approx(1.17, abs=0.005) and value["by"] == "l2" and value["pixels"] > 0
    counts = {"images", "locations", "pixels"}
    errors = {"l1", "l2", "heldout", "present", "table", "mix", "verdict", "candidates", "cities", "flat"}
    assert value.keys() == {"schema", "task", "by", "factor", "marked"} | counts | errors
    assert value["heldout"].keys() == {"factors", "l1", "l2"} and value["present"].keys() == {
        "factor",
        "l1",
        "l2",
    }
    assert tomllib.loads(toml.read_text())["nodes"]["intensity"]["factor"] == value["factor"]
    assert plot.read_text().startswith("<svg") and len(csv.read_text().splitlines()) == len(FACTORS) + 1
    again = pbvs(*command, "--write", toml)
    assert again.code == 2 and "--overwrite" in again.err
    printed = pbvs(*command, "--tasks", toml.parent)
    assert printed.code == 0 and f"best factor by l2: {value['factor']:g}" in printed.out


def test_of_sar2ir_the_colour_is_what_sar2rgb_writes(challenge, pbvs, tmp_path):
    import torch

    from pbvs.pipeline.translator import Translator

    runs = untrained_runs(challenge, uint16="full", uint16_percent=None, stretches={})
    ended = pbvs(
        "data", "prepare", challenge.data, tmp_path / "p", "--task", "sar2ir", "--tasks", challenge.tasks
    )
    assert ended.code == 0, ended.err
    task_set = TaskSet(challenge.tasks)
    graph = task_set.graph("sar2ir")
    assert nodes_before(graph, tone_tail(graph)) == ("sar2rgb",)
    before = Translator(task_set, "sar2ir", runs, torch.device("cpu"), ("sar2rgb",))
    inner = Translator(task_set, "sar2rgb", runs, torch.device("cpu"))
    plain, through = (
        Pairs(graph, PreparedData.open(tmp_path / "p"), upstream) for upstream in (None, before)
    )
    assert len(plain) == len(through) > 0
    for sar, rgb in zip(plain, through, strict=True):
        assert np.array_equal(rgb.rgb, inner.stored(sar.rgb))
    found = calibrate(graph, through)
    assert 0.2 <= found.factor <= 3 and chart(found).count("<polyline") == 2
