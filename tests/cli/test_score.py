"""`pbvs score`: comparisons, subsets, and what stands beside every number."""

import json
import shutil

import numpy as np
import pytest

from pbvs import pixels


@pytest.fixture
def score(done, pbvs):
    def run(predictions, *more):
        return pbvs(
            *("score", predictions, done.targets / "sar2rgb", "--task", "sar2rgb"),
            *("--weights", "standin", "--device", "cpu", *more),
        )

    return run


def test_against_other_predictions(done, score, tmp_path):
    made, worse = done.targets / "sar2rgb", tmp_path / "worse"
    shutil.copytree(made, worse)
    for path in pixels.list_images(worse):
        image = pixels.read_image(path)
        path.unlink()
        pixels.write_png(path.with_suffix(".png"), np.clip(image.astype(int) + 60, 0, 255).astype(np.uint8))
    told = score(made, "--against", worse, "--json", "-")
    assert told.code == 0, told.err
    found = json.loads(told.out)["against"]["sar2rgb"]
    assert found["score"] == 0.0 < found["other"]
    assert found["difference"] == -found["other"]
    assert found["certainty"] == 1.0
    text = score(worse, "--against", made)
    assert "worse, 100% certain; difference 95 % from +" in text.out
    assert "better," not in text.out


def test_subsets_of_the_board_s_size(done, score):
    made = done.root / "out" / "predictions" / "sar2rgb"
    told = json.loads(score(made, "--subset", 2, "--json", "-").out)
    assert (told["subsets"]["sar2rgb"]["images"], told["subsets"]["sar2rgb"]["subsets"]) == (2, 100)
    assert "sar2rgb at 2 images: " in score(made, "--subset", 2).out
    too_many = score(made, "--subset", 4)
    assert (too_many.code, "a subset of 4 cannot be taken of 3 images" in too_many.err) == (2, True)


def test_everything_that_makes_the_number_stands_beside_it(done, score):
    made = done.root / "out" / "predictions" / "sar2rgb"
    text = score(made, "--rules", "2026", "--fid-layer", 768, "--arctan-weight", 0.1, "--lpips", "alex")
    title = " ".join(text.out.split())
    assert "rules 2026 (P = L1), FID of 768 dimensions times 0.1 inside the arctan, LPIPS alex 0.1" in title
    assert "standin weights" in title
    told = json.loads(score(made, "--arctan-weight", 0.1, "--json", "-").out)
    assert (told["arctan_weight"], told["fid_layer"], told["pixel_term"]) == (0.1, 64, "l2")
    low, high = told["overall_interval95"]
    assert low <= told["overall"] <= high
    assert score(made, "--arctan-weight", 0).code == 2
