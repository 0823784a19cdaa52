"""`pbvs score`: comparisons, subsets, and what is printed with every number."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pbvs.core import pixels


@pytest.fixture
def score(done, pbvs):
    def run(predictions, *more):
        return pbvs(
            *("score", predictions, done.targets / "sar2rgb", "--task", "sar2rgb"),
            *("--weights", "standin", "--device", "cpu", *more),
        )

    return run


def test_against_other_predictions(done, score, tmp_path):
    pred, worse = done.targets / "sar2rgb", tmp_path / "worse"
    shutil.copytree(pred, worse)
    for path in pixels.list_images(worse):
        image = pixels.read_image(path)
        path.unlink()
        pixels.write_png(path.with_suffix(".png"), np.clip(image.astype(int) + 60, 0, 255).astype(np.uint8))
    ended = score(pred, "--against", worse, "--json", "-")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["against"]["sar2rgb"]
    assert found["score"] == 0.0 < found["other"]
    assert found["difference"] == -found["other"]
    assert found["certainty"] == 1.0
    text = score(worse, "--against", pred)
    assert "worse, 100% certain; difference 95 % from +" in text.out
    assert "better," not in text.out


def test_subsets_of_the_board_s_size(done, score):
    pred = done.root / "out" / "predictions" / "sar2rgb"
    found = json.loads(score(pred, "--subset", 2, "--json", "-").out)["subsets"]["sar2rgb"]
    assert (found["images"], found["subsets"]) == (2, 100)
    assert "sar2rgb at 2 images: " in score(pred, "--subset", 2).out
    too_many = score(pred, "--subset", 4)
    assert (too_many.code, "a subset of 4 cannot be taken of 3 images" in too_many.err) == (2, True)


def test_everything_that_decides_the_number_is_printed_with_it(done, score):
    pred = done.root / "out" / "predictions" / "sar2rgb"
    text = score(pred, "--rules", "2026", "--fid-layer", 768, "--arctan-weight", 0.1, "--lpips", "alex")
    title = " ".join(text.out.split())
    assert "rules 2026 (P = L1), FID of 768 dimensions times 0.1 inside the arctan, LPIPS alex 0.1" in title
    assert "standin weights" in title
    result = json.loads(score(pred, "--arctan-weight", 0.1, "--json", "-").out)
    assert (result["arctan_weight"], result["fid_layer"], result["pixel_term"]) == (0.1, 64, "l2")
    low, high = result["overall_interval95"]
    assert low <= result["overall"] <= high
    assert score(pred, "--arctan-weight", 0).code == 2


def test_two_processes_share_the_work_and_one_prints(done, score):
    pred = done.root / "out" / "predictions" / "sar2rgb"
    options = ("--task", "sar2rgb", "--weights", "standin", "--device", "cpu", "--no-cache", "--json", "-")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "pbvs", "score"]

    def together(predictions):
        return subprocess.run(
            [*torchrun, str(predictions), str(done.targets / "sar2rgb"), *options],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        )

    ended = together(pred)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == json.loads(score(pred, "--no-cache", "--json", "-").out)
    last = pixels.list_images(pred)[-1]
    last.write_bytes(last.read_bytes()[:100])
    ended = together(pred)
    assert ended.returncode != 0
    assert last.name in ended.stderr
