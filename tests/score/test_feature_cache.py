"""The caches of a scorer: the same numbers, and only new images are computed."""

import numpy as np
import pytest
import torch

from pbvs.score.feature_cache import DiskCache, TargetFeatures, contents
from pbvs.score.scorer import Scorer

ROWS = {64: np.arange(64, dtype=np.float32) / 3, 192: np.full(192, 0.1, np.float32)}


def image(seed, size_px=(8, 8), bands=1):
    return np.random.default_rng(seed).integers(0, 256, (*size_px, bands), dtype=np.uint8)


A, B = contents(image(0)), contents(image(1))


def same(rows):
    return {k: (v.dtype, v.tobytes()) for k, v in rows.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in ROWS.items()
    }


def test_cached_values_equal_the_stored_ones_bit_for_bit(tmp_path):
    cache = DiskCache("weights", tmp_path)
    assert (cache.features(A), cache.distance(A, B)) == (None, None)
    cache.keep_features(A, ROWS, is_target=False)
    cache.keep_distance(A, B, 1 / 3)
    again = DiskCache("weights", tmp_path)
    assert same(again.features(A))
    assert again.distance(A, B) == 1 / 3


def test_every_part_of_the_key_counts(tmp_path):
    cache = DiskCache("weights", tmp_path)
    cache.keep_features(A, ROWS, is_target=False)
    cache.keep_distance(A, B, 0.5)
    assert cache.features(B) is None
    assert cache.distance(B, A) is None
    other = DiskCache("other weights", tmp_path)
    assert (other.features(A), other.distance(A, B)) == (None, None)


def test_contents_depend_on_shape_and_order():
    base = image(0, (4, 6))
    digests = {contents(x) for x in (base, base[::-1], base.reshape(6, 4, 1), base[:, ::-1], base.copy())}
    assert len(digests) == 4


@pytest.mark.parametrize("spoil", [b"", b"foreign", "shorter", "flipped"])
def test_a_corrupt_or_foreign_file_is_ignored_and_rewritten(tmp_path, spoil):
    cache = DiskCache("weights", tmp_path)
    cache.keep_features(A, ROWS, is_target=False)
    (path,) = tmp_path.rglob("*.npz")
    good = path.read_bytes()
    flipped = good[:40] + bytes([good[40] ^ 1]) + good[41:]
    path.write_bytes({"shorter": good[:-1], "flipped": flipped}.get(spoil, spoil))
    assert cache.features(A) is None
    cache.keep_features(A, ROWS, is_target=False)
    assert same(cache.features(A))


def test_a_folder_that_is_not_writable_is_warned_of_once(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = DiskCache("weights", tmp_path / "file")
    for _ in range(3):
        cache.keep_features(A, ROWS, is_target=False)
        assert cache.features(A) is None
    (warning,) = caplog.records
    assert "the cache is not writable" in warning.getMessage()


def test_by_default_only_targets_are_cached():
    cache = TargetFeatures()
    cache.keep_features(A, ROWS, is_target=True)
    cache.keep_features(B, ROWS, is_target=False)
    cache.keep_distance(A, B, 0.5)
    assert same(cache.features(A))
    assert (cache.features(B), cache.distance(A, B)) == (None, None)


class Calls:
    """Counts the images and pairs that go through a scorer's networks."""

    def __init__(self, scorer, monkeypatch):
        self.images = self.pairs = 0
        features, lpips = scorer.inception.of_resized, scorer.lpips.forward

        def of_resized(images):
            self.images += len(images)
            return features(images)

        def forward(a, b):
            self.pairs += 1
            return lpips(a, b)

        monkeypatch.setattr(scorer.inception, "of_resized", of_resized)
        monkeypatch.setattr(scorer.lpips, "forward", forward)


def test_rescoring_computes_only_new_images_and_the_score_is_the_same(scorer, tmp_path, monkeypatch):
    pairs = [(str(n), image(n, (40, 48)), image(100 + n, (40, 48))) for n in range(11)]
    fresh = scorer.score_pairs(pairs)
    calls = Calls(scorer, monkeypatch)
    monkeypatch.setattr(scorer, "memory", DiskCache(scorer.identity, tmp_path))
    assert scorer.score_pairs(pairs) == fresh
    assert (calls.images, calls.pairs) == (22, 11)
    monkeypatch.setattr(scorer, "memory", DiskCache(scorer.identity, tmp_path))
    assert scorer.score_pairs(pairs) == fresh
    assert (calls.images, calls.pairs) == (22, 11)
    pairs[4] = ("4", image(50, (40, 48)), pairs[4][2])
    changed = scorer.score_pairs(pairs)
    assert (calls.images, calls.pairs) == (23, 12)
    monkeypatch.setattr(scorer, "memory", TargetFeatures())
    assert scorer.score_pairs(pairs) == changed != fresh


def test_features_of_a_group_equal_those_of_single_images():
    inception = Scorer("standin", net="alex").inception
    unit = torch.rand(8, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    together = inception(unit)
    for n in range(8):
        for layer, row in inception(unit[n : n + 1]).items():
            torch.testing.assert_close(together[layer][n : n + 1], row, rtol=1e-6, atol=1e-7)


def test_a_failed_scoring_does_not_affect_the_next(scorer):
    good = [(str(n), image(n, (40, 48)), image(100 + n, (40, 48))) for n in range(3)]

    def failing():
        yield good[0]
        raise OSError

    with pytest.raises(OSError):
        scorer.score_pairs(failing())
    assert scorer.score_pairs(good) == scorer.score_pairs(good[::-1])
