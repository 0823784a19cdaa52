"""Validation hands the judge what translation would write, and keeps pictures."""

from types import SimpleNamespace

import numpy as np
import torch

from pbvs import pixels
from pbvs.training.validation import Validator

MASK = torch.ones(1, 8, 8, dtype=torch.bool)
MASK[:, :, 4:] = False


class Pairs(torch.utils.data.Dataset):
    def __getitem__(self, n):
        source = torch.full((1, 8, 8), 10 * (n + 1), dtype=torch.uint8)
        target = torch.full((3, 8, 8), 200, dtype=torch.uint8)
        return {"source": source, "target": target, "mask": MASK, "name": f"place {n}"}


class Inverse(torch.nn.Module):
    """Turns black into white; knows whether it was asked in training mode."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return (-x * self.weight).expand(-1, 3, -1, -1)


class Seen:
    """Stands for the judge: keeps the pairs."""

    def score_pairs(self, pairs):
        self.pairs = list(pairs)
        return SimpleNamespace(score=0.25, fid={64: 1.0, 2048: 2.0}, lpips=0.1, l1=0.2, l2=0.3)


def test_pairs_scores_and_pictures(tmp_path):
    judge, network = Seen(), Inverse()
    validator = Validator(Pairs(), 3, judge, tmp_path, n_samples=2)
    values = validator.score(network, 1200)
    assert values == {"score": 0.25, "fid64": 1.0, "lpips": 0.1, "l1": 0.2, "l2": 0.3}
    assert network.modes == [False, False, False]
    assert network.training
    assert [name for name, *_ in judge.pairs] == ["place 0", "place 1", "place 2"]
    for n, (_, made, target) in enumerate(judge.pairs):
        assert (made[:, :4] == 255 - 10 * (n + 1)).all()
        np.testing.assert_array_equal(made[:, 4:], target[:, 4:])  # what is not known counts in no term
    grid = pixels.read_image(tmp_path / "00001200.png")
    assert grid.shape == (2 * 8, 3 * 8, 3)
    assert (grid[8:, :8] == 20).all()
    assert (grid[:8, 8:12] == 245).all()
    assert (grid[:, 16:] == 200).all()
