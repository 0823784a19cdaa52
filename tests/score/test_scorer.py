from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from pbvs.core.errors import ImageError, ScoreError, UsageError
from pbvs.core.pixels import resize, write_png
from pbvs.score.folders import score_folder, score_folders
from pbvs.score.rules import ScoreConfig
from pbvs.score.scorer import Scorer

N = 4


def _scene(seed: int, bands: int = 1, size_px: tuple[int, int] = (40, 48)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return resize(rng.integers(0, 256, (6, 6, bands), dtype=np.uint8), size_px)


def _noisy(image: np.ndarray, seed: int, sigma: float = 20.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _pairs(bands: int = 1) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [(str(i), _noisy(_scene(i, bands), 100 + i), _scene(i, bands)) for i in range(N)]


def _write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        write_png(folder / f"{name}.png", image)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    pairs = _pairs()
    return (
        _write(tmp_path / "pred" / "sar2eo", {name: pred for name, pred, _ in pairs}),
        _write(tmp_path / "target" / "sar2eo", {name: target for name, _, target in pairs}),
    )


def test_pixel_errors_equal_numpy_on_stored_values(scorer: Scorer) -> None:
    pairs = _pairs(3)
    result = scorer.score_pairs(pairs)
    differences = [(a.astype(np.float64) - b) / 255 for _, a, b in pairs]
    assert result.l1 == pytest.approx(np.mean([np.abs(d).mean() for d in differences]), abs=1e-12)
    assert result.l2 == pytest.approx(np.mean([np.sqrt((d**2).mean()) for d in differences]), abs=1e-12)
    assert [row.name for row in result.per_image] == [str(i) for i in range(N)]
    assert result.lpips == pytest.approx(np.mean([row.lpips for row in result.per_image]), abs=1e-12)


@pytest.mark.parametrize("config", [ScoreConfig(), ScoreConfig("2026", 2048, 0.5)])
def test_the_score_is_the_rule_of_its_parts(scorer: Scorer, config: ScoreConfig) -> None:
    result = scorer.score_pairs(_pairs(), config)
    pixel = result.l2 if config.rules == "2024" else result.l1
    for layer in (64, 192, 768, 2048):
        arctan = 2 / math.pi * math.atan(config.arctan_weight * result.fid[layer])
        assert result.score_by_layer[layer] == pytest.approx((arctan + result.lpips + pixel) / 3, abs=1e-12)
    assert result.score == result.score_by_layer[config.fid_layer]
    assert result.interval95 is not None
    low, high = result.interval95
    assert 0 <= low < result.score < high < 1


def test_the_same_images_score_zero_at_every_layer(scorer: Scorer) -> None:
    result = scorer.score_pairs([(name, target, target) for name, _, target in _pairs()])
    assert set(result.fid.values()) == {0.0}
    assert (result.lpips, result.l1, result.l2, result.score) == (0, 0, 0, 0)
    assert result.interval95 == (0.0, 0.0)


def test_more_noise_scores_worse_in_every_part(scorer: Scorer) -> None:
    mild, strong = (
        scorer.score_pairs([(n, _noisy(target, 7, sigma), target) for n, _, target in _pairs()])
        for sigma in (5, 40)
    )
    for part in ("lpips", "l1", "l2", "score"):
        assert getattr(mild, part) < getattr(strong, part)
    assert all(mild.fid[layer] < strong.fid[layer] for layer in mild.fid)


def test_two_images_are_finite_and_one_is_refused(scorer: Scorer) -> None:
    result = scorer.score_pairs(_pairs()[:2])
    assert all(math.isfinite(v) and v >= 0 for v in result.fid.values())
    assert result.interval95 is not None and all(map(math.isfinite, result.interval95))
    assert result.short_layers == [64, 192, 768, 2048]
    for few in (0, 1):
        with pytest.raises(ScoreError, match="at least 2 images"):
            scorer.score_pairs(_pairs()[:few])


def test_the_order_of_the_pairs_does_not_matter(scorer: Scorer) -> None:
    one, other = scorer.score_pairs(_pairs()), scorer.score_pairs(_pairs()[::-1])
    assert one.per_image == other.per_image
    assert one.score == pytest.approx(other.score, abs=1e-9)


def test_another_size_is_resampled_once_and_counted(scorer: Scorer) -> None:
    pairs = _pairs()
    small = resize(pairs[0][1], (20, 24))
    by_hand = [("0", resize(small, (40, 48)), pairs[0][2]), *pairs[1:]]
    result, expected = (
        scorer.score_pairs([("0", small, pairs[0][2]), *pairs[1:]]),
        scorer.score_pairs(by_hand),
    )
    assert (result.n_resampled, expected.n_resampled) == (1, 0)
    assert result.per_image == expected.per_image


def test_size_px_is_the_most_common_size(scorer: Scorer) -> None:
    other = _scene(9, size_px=(32, 33))
    result = scorer.score_pairs([*_pairs(), ("9", other, other)])
    assert (result.size_px, result.n_sizes) == ((40, 48), 2)


def test_gray_and_equal_bands_are_the_same_and_colour_is_refused(scorer: Scorer) -> None:
    pairs = _pairs()
    gray = scorer.score_pairs(pairs)
    as_rgb = scorer.score_pairs([(n, pred.repeat(3, axis=2), target) for n, pred, target in pairs])
    against_rgb = scorer.score_pairs([(n, pred, target.repeat(3, axis=2)) for n, pred, target in pairs])
    assert as_rgb == gray
    assert against_rgb.score == pytest.approx(gray.score, abs=1e-6)
    colour = [(n, _scene(50, 3), target) for n, _, target in pairs]
    with pytest.raises(ScoreError, match=r"in colour(.|\n)*where: 0"):
        scorer.score_pairs(colour)
    with pytest.raises(ScoreError, match=r"H,W,1\|3"):
        scorer.score_pairs([("a", pairs[0][1].astype(np.uint16), pairs[0][2])])


def test_folders_give_the_scores_of_their_pairs(scorer: Scorer, folders: tuple[Path, Path]) -> None:
    (folders[0] / "._0.png").write_bytes(b"ignored")
    calls: list[tuple[int, int]] = []
    report = score_folder(scorer, "sar2eo", *folders, progress=lambda *t: calls.append(t))
    assert report.tasks["sar2eo"] == scorer.score_pairs(_pairs())
    assert calls == [(i, N) for i in range(1, N + 1)]
    roots = score_folders(scorer, folders[0].parent, folders[1].parent)
    assert roots == report
    assert report.missing == ["sar2rgb", "rgb2ir", "sar2ir"]
    assert report.overall == pytest.approx(report.tasks["sar2eo"].score / 4 + 3)


def test_the_json_report_keeps_its_schema(scorer: Scorer, folders: tuple[Path, Path]) -> None:
    report = score_folder(scorer, "sar2eo", *folders, ScoreConfig("2026", 192))
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (value["schema"], value["rules"], value["fid_layer"], value["pixel_term"]) == (
        1,
        "2026",
        192,
        "l1",
    )
    assert value["weights"]["kind"] == "standin"
    assert set(value["weights"]["sha256"]) == {"inception", "alexnet", "lpips_heads"}
    assert value["marked"] == "stand-in weights: not comparable"
    task = value["tasks"]["sar2eo"]
    assert (task["images"], task["size_px"], task["n_resampled"]) == (N, [40, 48], 0)
    assert set(task["fid"]) == set(task["score_by_layer"]) == {"64", "192", "768", "2048"}
    assert task["score"] == task["score_by_layer"]["192"]
    assert len(task["interval95"]) == 2
    assert value["overall"] == report.overall
    rows = report.csv_rows()
    assert [row["image"] for row in rows] == [str(i) for i in range(N)]
    assert {row["marked"] for row in rows} == {"stand-in weights: not comparable"}


def test_names_on_one_side_only_are_all_named_before_anything_is_read(
    scorer: Scorer, folders: tuple[Path, Path]
) -> None:
    (folders[0] / "3.png").unlink()
    (folders[1] / "1.png").rename(folders[1] / "x1.png")
    (folders[0] / "0.png").write_bytes(b"not an image")
    with pytest.raises(ScoreError) as caught:
        score_folder(scorer, "sar2eo", *folders)
    assert "2 without a prediction: 3, x1" in str(caught.value)
    assert "1 without a target: 1" in str(caught.value)


def test_two_files_of_one_stem_are_refused(scorer: Scorer, folders: tuple[Path, Path]) -> None:
    (folders[0] / "2.TIF").write_bytes(b"")
    with pytest.raises(ScoreError, match="one stem: 2"):
        score_folder(scorer, "sar2eo", *folders)


def test_at_most_ten_names_are_listed(scorer: Scorer, folders: tuple[Path, Path]) -> None:
    for i in range(30, 45):
        write_png(folders[0] / f"{i}.png", _scene(i))
    with pytest.raises(ScoreError, match=r"15 without a target: 30, .*, 39 and 5 more"):
        score_folder(scorer, "sar2eo", *folders)


def test_an_unreadable_or_16_bit_image_is_named(scorer: Scorer, folders: tuple[Path, Path]) -> None:
    whole = (folders[0] / "0.png").read_bytes()
    (folders[0] / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=str(folders[0] / "0.png")):
        score_folder(scorer, "sar2eo", *folders)
    cv2.imwrite(str(folders[0] / "0.png"), np.full((40, 48), 4000, np.uint16))
    with pytest.raises(ScoreError, match=r"8-bit(.|\n)*0\.png"):
        score_folder(scorer, "sar2eo", *folders)


def test_tasks_pair_by_folder(scorer: Scorer, folders: tuple[Path, Path]) -> None:
    pred, target = folders[0].parent, folders[1].parent
    targets = {str(i): _scene(i, 3) for i in range(3)}
    _write(target / "sar2rgb", targets)
    assert score_folders(scorer, pred, target).missing == ["sar2rgb", "rgb2ir", "sar2ir"]
    _write(pred / "sar2rgb", targets)
    report = score_folders(scorer, pred, target)
    assert list(report.tasks) == ["sar2eo", "sar2rgb"]
    assert report.tasks["sar2rgb"].score == 0
    assert report.overall == pytest.approx(report.tasks["sar2eo"].score / 4 + 2)
    assert list(score_folders(scorer, pred, target, ["sar2rgb"]).tasks) == ["sar2rgb"]
    _write(pred / "rgb2ir", {"0": _scene(0)})
    with pytest.raises(ScoreError, match="without targets: rgb2ir"):
        score_folders(scorer, pred, target)


def test_wrong_names_and_empty_folders_say_so(
    scorer: Scorer, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="sar2eo"):
        score_folder(scorer, "sar2e0", *folders)
    with pytest.raises(UsageError, match="does not exist"):
        score_folder(scorer, "sar2eo", tmp_path / "none", folders[1])
    with pytest.raises(UsageError, match="does not exist"):
        score_folders(scorer, tmp_path / "none", folders[1].parent)
    with pytest.raises(ScoreError, match="no folder of predictions"):
        score_folders(scorer, *folders)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoreError, match="no PNG or TIFF"):
        score_folder(scorer, "sar2eo", tmp_path / "empty", tmp_path / "empty")
