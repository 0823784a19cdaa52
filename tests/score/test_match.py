"""Finding the rule behind a board: known rules are found again, and ambiguity is reported."""

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pbvs.core.errors import ScoreError, UsageError
from pbvs.core.pixels import resize, write_png
from pbvs.score.match import Rule, match_board, read_submissions, summarize_matches

TRUE = Rule(192, "torchmetrics", 0.05, "[0,1]", "l1")


def write_images(folder, seed, sigma=None):
    folder.mkdir(parents=True)
    for n in range(4):
        rng = np.random.default_rng([seed, n])
        image = resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (40, 48))
        if sigma:
            noise = np.random.default_rng([seed, n, 1]).normal(0, sigma, image.shape)
            image = np.clip(np.rint(cv2.GaussianBlur(image, (0, 0), 1 + sigma / 20) + noise), 0, 255)
        write_png(folder / f"{n}.png", image.astype(np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two submissions for two tasks."""
    root = tmp_path_factory.mktemp("match")
    for k, task in enumerate(("sar2rgb", "rgb2ir")):
        write_images(root / "real" / task, k)
        write_images(root / "a" / task, k, sigma=10)
        write_images(root / "b" / task, k, sigma=60)
    return root


def submissions(root, scores):
    tables = [
        f"[[submission]]\nname = '{name}'\npredictions = '{name}'\ntargets = 'real'\n"
        f"board = {{ {', '.join(f'{t} = {s!r}' for t, s in board.items())} }}\n"
        for name, board in scores.items()
    ]
    (root / "board.toml").write_text("".join(tables))
    return read_submissions(root / "board.toml")


@pytest.fixture(scope="module")
def matches(scorer, folders):
    """All rules, on arbitrary board scores."""
    zero = {name: {"sar2rgb": 0.0, "rgb2ir": 0.0} for name in ("a", "b")}
    return match_board(scorer, submissions(folders, zero))


def by_rule(matches, rule):
    (found,) = (match for match in matches if match.rule == rule)
    return found


def test_the_rule_behind_exact_scores_is_found_and_stands_alone(scorer, folders, matches):
    board = by_rule(matches, TRUE).scores
    found = match_board(scorer, submissions(folders, board))
    assert found[0].rule == TRUE
    assert found[0].error == pytest.approx(0.0, abs=1e-9)
    assert found[1].error > 1e-5
    assert len(found) == 16 * 2 * 3 * 4 * 2 == len({match.rule for match in found})


def test_rounded_scores_are_reproduced_by_the_true_rule_among_others(scorer, folders, matches):
    exact = by_rule(matches, TRUE).scores
    board = {name: {task: round(s, 2) for task, s in scores.items()} for name, scores in exact.items()}
    found = match_board(scorer, submissions(folders, board))
    reproducing = [match for match in found if match.reproduces_board]
    assert TRUE in [match.rule for match in reproducing]
    assert len(reproducing) < len(found) / 10
    summary = summarize_matches(found)
    several = f"{len(reproducing)} of 768 rules reproduce the board"
    assert summary.startswith(several) or "one rule reproduces" in summary
    for match in found:
        differences = [match.scores[n][t] - board[n][t] for n in board for t in board[n]]
        assert match.error == pytest.approx(np.sqrt(np.mean(np.square(differences))))
        assert match.largest == pytest.approx(np.abs(differences).max())


def test_scores_of_other_images_are_reproduced_by_no_rule(scorer, folders):
    found = match_board(scorer, submissions(folders, {"a": {"sar2rgb": 0.99}, "b": {"sar2rgb": 0.01}}))
    assert "no rule reproduces the board" in summarize_matches(found)


def test_the_default_rule_is_the_scorers_own_score(scorer, folders, matches):
    from pbvs.score.folders import score_folders
    from pbvs.score.rules import ScoreConfig

    for layer, rules in ((64, "2024"), (2048, "2026")):
        report = score_folders(scorer, folders / "b", folders / "real", config=ScoreConfig(rules, layer))
        term = "l2" if rules == "2024" else "l1"
        ours = by_rule(matches, Rule(layer, "pytorch-fid", 1.0, "[-1,1]", term)).scores["b"]
        assert ours == pytest.approx({task: s.score for task, s in report.tasks.items()}, abs=1e-9)


def test_images_are_resized_as_torchmetrics_does(scorer):
    image = torch.rand(1, 3, 37, 53, generator=torch.Generator().manual_seed(0))
    soft = F.interpolate(255 * image, (299, 299), mode="bilinear", align_corners=False, antialias=True)
    resized = scorer.inception.resized
    torch.testing.assert_close(resized(image, "torchmetrics-antialias"), (soft - 128) / 128)
    # TensorFlow 1's: output pixel i is at i * old / new, so every old / gcd-th pixel is an old one.
    double = torch.rand(1, 1, 598, 598, generator=torch.Generator().manual_seed(1))
    halved = (255 * double[:, :, ::2, ::2] - 128) / 128
    torch.testing.assert_close(resized(double, "torchmetrics")[:, :1], halved)
    ramp = torch.arange(30.0).expand(1, 1, 30, 30) / 255
    row = resized(ramp, "torchmetrics")[0, 0, 0] * 128 + 128
    torch.testing.assert_close(row, (torch.arange(299) * 30 / 299).clamp(max=29), atol=1e-4, rtol=0)


def test_the_command(folders, matches, capsys, monkeypatch):
    from pbvs.cli import main as cli

    submissions(folders, by_rule(matches, TRUE).scores)

    def run(*more):
        monkeypatch.setattr("sys.argv", ["pbvs", "match", str(folders / "board.toml"), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr()

    options = ("--weights", "standin", "--lpips", "alex", "--device", "cpu")
    code, output = run(*options, "--json")
    assert code == 0, output.err
    found = json.loads(output.out)
    assert {k: found["matches"][0][k] for k in asdict(TRUE)} == asdict(TRUE)
    assert "not comparable" in found["marked"]
    code, output = run(*options)
    assert (code, "the nearest of 768 rules" in " ".join(output.out.split())) == (0, True)
    assert "not comparable" in output.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "cannot be read"),
        ("", r"holds no \[\[submission\]\]"),
        ("submission = 1", "holds no"),
        ("[[submission]]\nboard = {sar2eo = 0.1}", "a submission has board, predictions, targets"),
        ("[[submission]]\npredictions = 'a'\ntargets = 'b'\nboard = {}", "board has no scores by task"),
        ("[[submission]]\npredictions = 'a'\ntargets = 'b'\nboard = {sar2oe = 0.1}", "unknown task 'sar2oe'"),
        (
            "[[submission]]\npredictions = 'a'\ntargets = 'b'\nboard = {sar2eo = 'low'}",
            "not a number from 0 to 3",
        ),
    ],
)
def test_files_of_other_contents(tmp_path, text, message):
    path = tmp_path / "board.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_submissions(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_submissions(tmp_path / "missing.toml")


def test_folders_that_cannot_be_scored(scorer, tmp_path):
    for side in ("a", "real"):
        (tmp_path / side / "sar2eo").mkdir(parents=True)
        write_png(tmp_path / side / "sar2eo" / "0.png", np.zeros((8, 8, 1), np.uint8))
    with pytest.raises(ScoreError, match="fewer are in a sar2eo"):
        match_board(scorer, submissions(tmp_path, {"a": {"sar2eo": 0.1}}))
    with pytest.raises(UsageError, match="does not exist"):
        match_board(scorer, submissions(tmp_path, {"a": {"sar2rgb": 0.1}}))
