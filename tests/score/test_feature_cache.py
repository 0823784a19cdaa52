"""What a judge remembers between scorings: the same numbers, only what is new is computed."""

import numpy as np
import pytest
import torch

from pbvs.score.feature_cache import FileMemory, TargetFeatures, contents
from pbvs.score.scorer import Scorer

ROWS = {64: np.arange(64, dtype=np.float32) / 3, 192: np.full(192, 0.1, np.float32)}


def image(seed, size_px=(8, 8), bands=1):
    return np.random.default_rng(seed).integers(0, 256, (*size_px, bands), dtype=np.uint8)


A, B = contents(image(0)), contents(image(1))


def same(rows):
    return {k: (v.dtype, v.tobytes()) for k, v in rows.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in ROWS.items()
    }


def test_what_is_remembered_is_bit_for_bit_what_was_kept(tmp_path):
    memory = FileMemory("weights", tmp_path)
    assert (memory.features(A), memory.distance(A, B)) == (None, None)
    memory.keep_features(A, ROWS, is_target=False)
    memory.keep_distance(A, B, 1 / 3)
    again = FileMemory("weights", tmp_path)
    assert same(again.features(A))
    assert again.distance(A, B) == 1 / 3


def test_every_part_of_the_key_counts(tmp_path):
    memory = FileMemory("weights", tmp_path)
    memory.keep_features(A, ROWS, is_target=False)
    memory.keep_distance(A, B, 0.5)
    assert memory.features(B) is None
    assert memory.distance(B, A) is None
    other = FileMemory("other weights", tmp_path)
    assert (other.features(A), other.distance(A, B)) == (None, None)


def test_contents_tell_shape_and_order():
    base = image(0, (4, 6))
    told = {contents(x) for x in (base, base[::-1], base.reshape(6, 4, 1), base[:, ::-1], base.copy())}
    assert len(told) == 4


@pytest.mark.parametrize("spoil", [b"", b"foreign", "shorter", "flipped"])
def test_a_torn_or_foreign_file_counts_as_none_and_is_written_anew(tmp_path, spoil):
    memory = FileMemory("weights", tmp_path)
    memory.keep_features(A, ROWS, is_target=False)
    (path,) = tmp_path.rglob("*.npz")
    good = path.read_bytes()
    flipped = good[:40] + bytes([good[40] ^ 1]) + good[41:]
    path.write_bytes({"shorter": good[:-1], "flipped": flipped}.get(spoil, spoil))
    assert memory.features(A) is None
    memory.keep_features(A, ROWS, is_target=False)
    assert same(memory.features(A))


def test_a_folder_that_cannot_be_written_to_is_told_of_once(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    memory = FileMemory("weights", tmp_path / "file")
    for _ in range(3):
        memory.keep_features(A, ROWS, is_target=False)
        assert memory.features(A) is None
    (warning,) = caplog.records
    assert "nothing can be remembered" in warning.getMessage()


def test_by_default_targets_alone_are_remembered():
    memory = TargetFeatures()
    memory.keep_features(A, ROWS, is_target=True)
    memory.keep_features(B, ROWS, is_target=False)
    memory.keep_distance(A, B, 0.5)
    assert same(memory.features(A))
    assert (memory.features(B), memory.distance(A, B)) == (None, None)


class Request:
    """Counts what a judge's networks are asked for."""

    def __init__(self, judge, monkeypatch):
        self.images = self.pairs = 0
        features, lpips = judge.inception.of_resized, judge.lpips.forward

        def of_resized(images):
            self.images += len(images)
            return features(images)

        def forward(a, b):
            self.pairs += 1
            return lpips(a, b)

        monkeypatch.setattr(judge.inception, "of_resized", of_resized)
        monkeypatch.setattr(judge.lpips, "forward", forward)


def test_rescoring_pays_for_what_is_new_and_gives_the_same_score(judge, tmp_path, monkeypatch):
    pairs = [(str(n), image(n, (40, 48)), image(100 + n, (40, 48))) for n in range(11)]
    fresh = judge.score_pairs(pairs)
    asked = Request(judge, monkeypatch)
    monkeypatch.setattr(judge, "memory", FileMemory(judge.identity, tmp_path))
    assert judge.score_pairs(pairs) == fresh
    assert (asked.images, asked.pairs) == (22, 11)
    monkeypatch.setattr(judge, "memory", FileMemory(judge.identity, tmp_path))
    assert judge.score_pairs(pairs) == fresh
    assert (asked.images, asked.pairs) == (22, 11)
    pairs[4] = ("4", image(50, (40, 48)), pairs[4][2])
    changed = judge.score_pairs(pairs)
    assert (asked.images, asked.pairs) == (23, 12)
    monkeypatch.setattr(judge, "memory", TargetFeatures())
    assert judge.score_pairs(pairs) == changed != fresh


def test_groups_of_images_have_the_features_of_each_alone():
    inception = Scorer("standin", net="alex").inception
    unit = torch.rand(8, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    together = inception(unit)
    for n in range(8):
        for layer, row in inception(unit[n : n + 1]).items():
            torch.testing.assert_close(together[layer][n : n + 1], row, rtol=1e-6, atol=1e-7)


def test_a_scoring_that_failed_leaves_nothing_to_the_next(judge):
    good = [(str(n), image(n, (40, 48)), image(100 + n, (40, 48))) for n in range(3)]

    def failing():
        yield good[0]
        raise OSError

    with pytest.raises(OSError):
        judge.score_pairs(failing())
    assert judge.score_pairs(good) == judge.score_pairs(good[::-1])
