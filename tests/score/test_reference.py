"""The score of folders against the unchanged reference packages, on the same weights and the same files."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import lpips
import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid.fid_score import calculate_fid_given_paths

from pbvs.core import pixels
from pbvs.core.errors import ImageError, PbvsError, ScoreError
from pbvs.core.pixels import resize
from pbvs.score.folders import score_folder
from pbvs.score.frechet import frechet_distance
from pbvs.score.scorer import Scorer


def _write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image[:, :, ::-1] if image.ndim == 3 else image)


def _pair(seed: int, bands: int, size_px: int, pred_px: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target, `H,W` or `H,W,3`; smooth, so that the features of a set vary."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (rng.integers(3, 9), 5, bands), dtype=np.uint8)
    target = resize(rough, (size_px, size_px))
    pred = resize(cv2.GaussianBlur(target, (0, 0), 2.0).reshape(target.shape), (pred_px, pred_px))
    pred = np.clip(pred + rng.normal(0, 12, pred.shape), 0, 255).astype(np.uint8)
    return (pred[:, :, 0], target[:, :, 0]) if bands == 1 else (pred, target)


# What pytorch-fid reads by itself: PNG and TIFF, gray and RGB, in sets of one size.
SETS = {
    "rgb png 256": (3, ".png", 256, 256),
    "gray tiff 256": (1, ".tiff", 256, 256),
    "gray png resampled": (1, ".png", 256, 200),
    "rgb tiff 1024": (3, ".tiff", 1024, 1024),
}


@pytest.mark.parametrize(("bands", "suffix", "size_px", "pred_px"), SETS.values(), ids=SETS.keys())
@pytest.mark.usefixtures("hub_with_standins")
def test_the_scores_of_folders_are_those_of_the_reference_packages(
    scorer: Scorer, tmp_path: Path, bands: int, suffix: str, size_px: int, pred_px: int
) -> None:
    pred_dir, target_dir, resized_dir = (tmp_path / name for name in ("pred", "target", "resized"))
    for folder in (pred_dir, target_dir, resized_dir):
        folder.mkdir()
    n = 3
    for i in range(n):
        pred, target = _pair(i, bands, size_px, pred_px)
        _write(pred_dir / f"{i}{suffix}", pred)
        _write(target_dir / f"{i}{suffix}", target)
        at_size = pred if pred_px == size_px else resize(pred[:, :, None], (size_px, size_px))[:, :, 0]
        _write(resized_dir / f"{i}{suffix}", at_size)  # the input of the reference packages

    score = score_folder(scorer, "sar2eo", pred_dir, target_dir).tasks["sar2eo"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy 1.17 for `disp=`; torchvision for `pretrained=`
        reference = lpips.LPIPS(net="alex", verbose=False)
        # At 2048 SciPy takes half a minute for a square root: once is enough.
        for dims in (64, 192, 768, 2048)[: 4 if suffix == ".png" and bands == 3 else 3]:
            try:
                paths = [str(resized_dir), str(target_dir)]
                fid = calculate_fid_given_paths(paths, 2, torch.device("cpu"), dims, num_workers=0)
            except TypeError:
                pytest.skip("this SciPy has no sqrtm(disp=) any more")
            # With fewer images than features pytorch-fid adds 1e-6 to singular covariances.
            assert score.fid[dims] == pytest.approx(float(fid), rel=1e-4), dims
    for i, row in enumerate(score.per_image):
        a, b = (
            np.asarray(Image.open(folder / f"{i}{suffix}").convert("RGB"), np.float64) / 255
            for folder in (resized_dir, target_dir)
        )
        x, y = (torch.from_numpy(v).float().permute(2, 0, 1)[None] * 2 - 1 for v in (a, b))
        with torch.no_grad():
            assert row.lpips == pytest.approx(reference(x, y).item(), abs=1e-6)
        assert row.l1 == pytest.approx(np.abs(a - b).mean(), abs=1e-9)
        assert row.l2 == pytest.approx(np.sqrt(((a - b) ** 2).mean()), abs=1e-9)
    assert score.n_resampled == (n if pred_px != size_px else 0)


@pytest.mark.usefixtures("hub_with_standins")
def test_fid_is_pytorch_fids_to_1e_6_where_its_square_root_is_well_conditioned(
    scorer: Scorer, tmp_path: Path
) -> None:
    for name in ("pred", "target"):
        (tmp_path / name).mkdir()
    pairs = []
    for i in range(66):  # more images than the 64 features
        rng = np.random.default_rng(i)
        target = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pred = (255 * rng.random((4, 4, 3)) ** 1.5).astype(np.uint8)
        _write(tmp_path / "target" / f"{i}.png", target)
        _write(tmp_path / "pred" / f"{i}.png", pred)
        pairs.append((pred, target))
    paths = [str(tmp_path / name) for name in ("pred", "target")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fid = calculate_fid_given_paths(paths, 22, torch.device("cpu"), 64, num_workers=0)
        except TypeError:
            pytest.skip("this SciPy has no sqrtm(disp=) any more")
    first_block = scorer.inception.blocks[0]  # the others take nine tenths of the time
    sides = []
    for images in zip(*pairs, strict=True):
        unit = torch.cat([pixels.unit_from_float255(pixels.float255_from_stored(image)) for image in images])
        with torch.no_grad():
            features = first_block(scorer.inception.resized(unit))
        sides.append(features.mean(dim=(2, 3)).double().numpy())
    assert frechet_distance(*sides) == pytest.approx(float(fid), rel=1e-6)


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("a network ran before the files were checked")


@pytest.mark.parametrize(
    ("name", "spoil", "kind", "text"),
    [
        ("sixteen bits", lambda p: cv2.imwrite(str(p), np.zeros((32, 32), np.uint16)), ScoreError, "uint16"),
        ("transparency", lambda p: cv2.imwrite(str(p), np.zeros((32, 32, 4), np.uint8)), ScoreError, "not 4"),
        ("cut short", lambda p: p.write_bytes(p.read_bytes()[:-30]), ImageError, "cut short"),
        ("empty", lambda p: p.write_bytes(b""), ImageError, "cannot be read"),
        (
            "NaN",
            lambda p: (p.unlink(), _write(p.with_suffix(".tif"), np.full((32, 32), np.nan, np.float32))),
            ScoreError,
            "float32",
        ),
    ],
)
@pytest.mark.parametrize("side", ["pred", "target"])
def test_bad_headers_are_refused_before_the_networks_run(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, name, spoil, kind, text
) -> None:
    for folder in ("pred", "target"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            _write(tmp_path / folder / f"{i}.png", np.zeros((32, 32), np.uint8))
    spoil(tmp_path / side / "2.png")
    monkeypatch.setattr(scorer, "score_pairs", _fail)
    monkeypatch.setattr(scorer, "score_together", _fail)
    with pytest.raises(PbvsError) as caught:
        score_folder(scorer, "sar2eo", tmp_path / "pred", tmp_path / "target")
    assert isinstance(caught.value, kind)
    assert text in str(caught.value) and str(tmp_path / side / "2.") in str(caught.value)
