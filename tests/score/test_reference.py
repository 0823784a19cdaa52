"""The score of folders beside the reference packages, unchanged, on the same weights and the same files."""

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


def _pair(seed: int, bands: int, size_px: int, made_px: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target, `H,W` or `H,W,3`; smooth, so that the features of a set vary."""
    draw = np.random.default_rng(seed)
    rough = draw.integers(0, 256, (draw.integers(3, 9), 5, bands), dtype=np.uint8)
    real = resize(rough, (size_px, size_px))
    made = resize(cv2.GaussianBlur(real, (0, 0), 2.0).reshape(real.shape), (made_px, made_px))
    made = np.clip(made + draw.normal(0, 12, made.shape), 0, 255).astype(np.uint8)
    return (made[:, :, 0], real[:, :, 0]) if bands == 1 else (made, real)


# What pytorch-fid takes of its own accord: PNG and TIFF, gray and RGB, in sets of one size.
SETS = {
    "rgb png 256": (3, ".png", 256, 256),
    "gray tiff 256": (1, ".tiff", 256, 256),
    "gray png resampled": (1, ".png", 256, 200),
    "rgb tiff 1024": (3, ".tiff", 1024, 1024),
}


@pytest.mark.parametrize(("bands", "suffix", "size_px", "made_px"), SETS.values(), ids=SETS.keys())
@pytest.mark.usefixtures("hub_with_standins")
def test_the_scores_of_folders_are_those_of_the_reference_packages(
    judge: Scorer, tmp_path: Path, bands: int, suffix: str, size_px: int, made_px: int
) -> None:
    made_dir, real_dir, seen_dir = (tmp_path / name for name in ("made", "real", "seen"))
    for folder in (made_dir, real_dir, seen_dir):
        folder.mkdir()
    n = 3
    for i in range(n):
        made, real = _pair(i, bands, size_px, made_px)
        _write(made_dir / f"{i}{suffix}", made)
        _write(real_dir / f"{i}{suffix}", real)
        at_size = made if made_px == size_px else resize(made[:, :, None], (size_px, size_px))[:, :, 0]
        _write(seen_dir / f"{i}{suffix}", at_size)  # what the reference packages are given

    score = score_folder(judge, "sar2eo", made_dir, real_dir).tasks["sar2eo"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy 1.17, of `disp=`; torchvision, of `pretrained=`
        reference = lpips.LPIPS(net="alex", verbose=False)
        # At 2048 SciPy takes half a minute for a square root: once is enough.
        for dims in (64, 192, 768, 2048)[: 4 if suffix == ".png" and bands == 3 else 3]:
            try:
                paths = [str(seen_dir), str(real_dir)]
                fid = calculate_fid_given_paths(paths, 2, torch.device("cpu"), dims, num_workers=0)
            except TypeError:
                pytest.skip("this SciPy has no sqrtm(disp=) any more")
            # With fewer images than features pytorch-fid adds 1e-6 to singular covariances.
            assert score.fid[dims] == pytest.approx(float(fid), rel=1e-4), dims
    for i, row in enumerate(score.per_image):
        a, b = (
            np.asarray(Image.open(folder / f"{i}{suffix}").convert("RGB"), np.float64) / 255
            for folder in (seen_dir, real_dir)
        )
        x, y = (torch.from_numpy(v).float().permute(2, 0, 1)[None] * 2 - 1 for v in (a, b))
        with torch.no_grad():
            assert row.lpips == pytest.approx(reference(x, y).item(), abs=1e-6)
        assert row.l1 == pytest.approx(np.abs(a - b).mean(), abs=1e-9)
        assert row.l2 == pytest.approx(np.sqrt(((a - b) ** 2).mean()), abs=1e-9)
    assert score.n_resampled == (n if made_px != size_px else 0)


@pytest.mark.usefixtures("hub_with_standins")
def test_fid_is_pytorch_fids_to_1e_6_where_its_square_root_is_well_conditioned(
    judge: Scorer, tmp_path: Path
) -> None:
    for name in ("made", "real"):
        (tmp_path / name).mkdir()
    pairs = []
    for i in range(66):  # more images than the 64 features
        draw = np.random.default_rng(i)
        real = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        made = (255 * draw.random((4, 4, 3)) ** 1.5).astype(np.uint8)
        _write(tmp_path / "real" / f"{i}.png", real)
        _write(tmp_path / "made" / f"{i}.png", made)
        pairs.append((made, real))
    paths = [str(tmp_path / name) for name in ("made", "real")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fid = calculate_fid_given_paths(paths, 22, torch.device("cpu"), 64, num_workers=0)
        except TypeError:
            pytest.skip("this SciPy has no sqrtm(disp=) any more")
    first_block = judge.inception.blocks[0]  # the others take nine tenths of the time
    sides = []
    for images in zip(*pairs, strict=True):
        unit = torch.cat([pixels.unit_from_float255(pixels.float255_from_stored(image)) for image in images])
        with torch.no_grad():
            features = first_block(judge.inception.resized(unit))
        sides.append(features.mean(dim=(2, 3)).double().numpy())
    assert frechet_distance(*sides) == pytest.approx(float(fid), rel=1e-6)


def _nothing_is_computed(*_: object, **__: object) -> None:
    raise AssertionError("a network ran before the files were looked at")


@pytest.mark.parametrize(
    ("name", "spoil", "kind", "words"),
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
@pytest.mark.parametrize("side", ["made", "real"])
def test_what_headers_tell_is_refused_before_the_networks_run(
    judge: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, name, spoil, kind, words
) -> None:
    for folder in ("made", "real"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            _write(tmp_path / folder / f"{i}.png", np.zeros((32, 32), np.uint8))
    spoil(tmp_path / side / "2.png")
    monkeypatch.setattr(judge, "score_pairs", _nothing_is_computed)
    monkeypatch.setattr(judge, "score_together", _nothing_is_computed)
    with pytest.raises(PbvsError) as caught:
        score_folder(judge, "sar2eo", tmp_path / "made", tmp_path / "real")
    assert isinstance(caught.value, kind)
    assert words in str(caught.value) and str(tmp_path / side / "2.") in str(caught.value)
