"""Validation scores what translation would write, keeps pictures, and measures two signs of trouble."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pbvs.core import pixels
from pbvs.graph.trained import run
from pbvs.pipeline.validation import Validator, checkerboard, saturated
from pbvs.score.feature_cache import TargetFeatures
from pbvs.score.scorer import Scorer
from pbvs.systems.pix2pixhd.network import Generator, GeneratorConfig
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training.system import Translation

MASK = torch.ones(1, 8, 8, dtype=torch.bool)
MASK[:, :, 4:] = False


class Pairs(torch.utils.data.Dataset):
    def __getitem__(self, n):
        source = torch.full((1, 8, 8), 10 * (n + 1), dtype=torch.uint8)
        target = torch.full((3, 8, 8), 200, dtype=torch.uint8)
        return {"source": source, "target": target, "mask": MASK, "name": f"place {n}"}


class Inverse(torch.nn.Module):
    """Turns black into white; records whether it ran in training mode."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return (-x * self.weight).expand(-1, 3, -1, -1)


class KeepsPairs:
    """In place of a scorer."""

    def score_pairs(self, pairs):
        self.pairs = list(pairs)
        return SimpleNamespace(score=0.25, fid={64: 1.0, 2048: 2.0}, lpips=0.1, l1=0.2, l2=0.3)


def translation(network):
    return Translation(Pix2PixHD, {"G": network})


def test_pairs_scores_and_pictures(tmp_path):
    scorer, network = KeepsPairs(), Inverse()
    validator = Validator(Pairs(), 3, scorer, tmp_path, n_samples=2)
    found = validator.score(translation(network), 1200)
    scores = {k: found.values[k] for k in ("score", "fid64", "lpips", "l1", "l2")}
    assert scores == {"score": 0.25, "fid64": 1.0, "lpips": 0.1, "l1": 0.2, "l2": 0.3}
    assert network.modes == [False, False, False]
    assert network.training
    assert [name for name, *_ in scorer.pairs] == ["place 0", "place 1", "place 2"]
    for n, (_, pred, target) in enumerate(scorer.pairs):
        assert (pred[:, :4] == 255 - 10 * (n + 1)).all()
        np.testing.assert_array_equal(pred[:, 4:], target[:, 4:])  # what is not known counts in no term
    grid = pixels.read_image(tmp_path / "00001200.png")
    np.testing.assert_array_equal(grid, found.grid)
    assert grid.shape == (2 * 8, 3 * 8, 3)
    assert (grid[8:, :8] == 20).all()
    assert (grid[:8, 8:12] == 245).all()
    assert (grid[:, 16:] == 200).all()


def test_a_sample_equals_what_translation_writes(tmp_path):
    """Whatever precision the network is trained in, both run it alike."""

    class Noise(torch.utils.data.Dataset):
        def __getitem__(self, n):
            rng = torch.Generator().manual_seed(n)
            image = torch.randint(0, 256, (1, 40, 48), dtype=torch.uint8, generator=rng)
            everywhere = torch.ones(1, 40, 48, dtype=torch.bool)
            return {"source": image, "target": image, "mask": everywhere, "name": str(n)}

    network = Generator(GeneratorConfig(channels=4, n_downsample=2, blocks=1), 1, 1)
    network.train()
    found = Validator(Noise(), 2, KeepsPairs(), tmp_path).score(translation(network), 1)
    for n in range(2):
        source = pixels.float255_from_stored(np.asarray(Noise()[n]["source"]).transpose(1, 2, 0))
        written = pixels.stored_from_float255(run(translation(network).eval(), source))
        np.testing.assert_array_equal(found.grid[40 * n : 40 * (n + 1), 48:96], written.repeat(3, axis=2))
    assert len(np.unique(written)) > 20


def test_targets_pass_the_feature_network_once(tmp_path):
    """And the score is the same as with features taken anew."""
    scorer = Scorer("standin", net="alex")
    of_resized, passed = scorer.inception.of_resized, []

    def counted(images):
        passed.extend(images)
        return of_resized(images)

    scorer.inception.of_resized = counted
    validator = Validator(Scenes(), 3, scorer, tmp_path)
    network = Inverse()
    first = validator.score(translation(network), 1).values
    assert len(passed) == 6
    torch.nn.init.constant_(network.weight, 0.5)
    second = validator.score(translation(network), 2).values
    assert len(passed) == 9
    scorer.memory = TargetFeatures()  # which knows nothing yet
    assert second == Validator(Scenes(), 3, scorer, tmp_path).score(translation(network), 2).values
    assert first["fid64"] != second["fid64"]


class Scenes(torch.utils.data.Dataset):
    def __getitem__(self, n):
        rng = torch.Generator().manual_seed(n)
        image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=rng)
        image = image.repeat_interleave(8, 1).repeat_interleave(8, 2)
        everywhere = torch.ones(1, 64, 64, dtype=torch.bool)
        return {"source": image[:1], "target": image, "mask": everywhere, "name": str(n)}


# ---- signs of trouble


def test_saturated_counts_black_and_white():
    image = np.full((10, 10, 1), 128, np.uint8)
    image[0, :3], image[1, :2], image[2] = 0, 255, 254
    assert saturated(image) == pytest.approx(5 / 100)


def board(rows, columns, amplitude, side=64):
    """0.5 +- amplitude in turn along rows, columns or both."""
    y, x = np.mgrid[:side, :side]
    signs = (-1.0) ** (rows * y + columns * x)
    return np.rint(255 * (0.5 + amplitude * signs)).astype(np.uint8)[:, :, None]


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 0), (1, 1)])
def test_a_checkerboard_has_its_amplitude(rows, columns):
    assert checkerboard(board(rows, columns, 0.2)) == pytest.approx(0.2, abs=0.002)


def test_period_2_is_distinguished_from_everything_else():
    x = np.tile(np.arange(64), (64, 1))
    for period in (4, 8, 64):
        wave = (127 + 100 * np.cos(2 * np.pi * x / period)).astype(np.uint8)[:, :, None]
        assert checkerboard(wave) < 0.002, period
    noise = np.random.default_rng(0).normal(0.5, 0.1, (256, 256, 3))
    assert checkerboard(np.rint(255 * noise).astype(np.uint8)) == pytest.approx(0.1 / 9.24, rel=0.05)
    # A board whose phase changes half way through does not cancel out.
    half = board(1, 1, 0.2)
    half[:, 32:] = 255 - half[:, 32:]
    assert checkerboard(half) == pytest.approx(0.2, abs=0.01)


def test_any_size_has_a_number():
    for shape in ((4, 4, 1), (33, 17, 3), (8, 100, 1)):
        assert checkerboard(np.full(shape, 77, np.uint8)) == pytest.approx(0.0, abs=1e-12)


def test_the_signs_come_with_those_of_the_targets(tmp_path):
    class White(Inverse):
        def forward(self, x):
            return super().forward(x) * 0 + 1

    values = Validator(Pairs(), 2, KeepsPairs(), tmp_path).score(translation(White()), 1).values
    assert values["saturated"] == 0.5  # the half that is known
    assert values["saturated_in_targets"] == 0.0
    assert values["checkerboard_in_targets"] == pytest.approx(0.0, abs=1e-12)
    assert 0.0 < values["checkerboard"] < 0.02  # the edge of that half
