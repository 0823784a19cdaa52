"""It learns: four pairs of synthetic scenes by heart. And a curve that guards every later change."""

import numpy as np
import pytest
import torch
from small_runs import Pairs, one_cpu, small_system, trainer

from pbvs.core import pixels
from pbvs.dataset.batches import model_batch
from pbvs.perceptual.pixel_errors import l2
from pbvs.scenes.synth import make_archives
from pbvs.training.step import train_step
from pbvs.training.system import unwrap

SIDE_PX = 64


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Scenes(torch.utils.data.Dataset):
    """Four SAR and EO tiles of the synthetic archives, small."""

    def __init__(self, root):
        make_archives(root, locations=0, tiles=4, test_images=0, seed=1, threads=1)
        folders = [folder for folder in sorted(root.rglob("*")) if folder.name in ("EO", "SAR")]
        self.eo, self.sar = ([self.read(p) for p in sorted(f.rglob("*.png"))] for f in folders)
        assert len(self.eo) == len(self.sar) == 4

    @staticmethod
    def read(path):
        small = pixels.resize(pixels.read_image(path), (SIDE_PX, SIDE_PX))
        return torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))

    def __getitem__(self, n):
        mask = torch.ones(1, SIDE_PX, SIDE_PX, dtype=torch.bool)
        return {"source": self.sar[n % 4], "target": self.eo[n % 4], "mask": mask, "name": str(n % 4)}


def test_four_pairs_are_learnt_by_heart(tmp_path):
    scenes = Scenes(tmp_path / "scenes")
    stages = [
        {"epochs": 60, "learning_rate": 2e-3},
        {"epochs": 30, "learning_rate": 2e-3, "decay": "linear"},
    ]
    run = trainer(
        tmp_path / "run",
        dataset=scenes,
        training={"stages": stages, "batch_size": 4},
        generator={"channels": 16, "n_downsample": 2, "blocks": 2},
        losses={"l2": 10.0},
        images_per_epoch=4,
    )

    def error():
        item = torch.utils.data.default_collate([scenes[n] for n in range(4)])
        batch = model_batch(item, torch.device("cpu"))
        with torch.no_grad():
            fake = unwrap(run.job.system.networks["G"])(batch.source)
        return float(l2(pixels.unit_from_model(fake), pixels.unit_from_model(batch.target)).mean())

    before = error()
    run.run()
    assert error() < before / 5  # a thirteenth when this was written


# Five steps of two images, every term on, stand-in weights, torch 2.15 on a CPU. Another version of torch may
# draw other initial weights or sum in another order: then take new values, from a commit known to be right.
GOLDEN = {
    "vgg": [3.0511, 3.27624, 3.27271, 3.03511, 2.98462],
    "lpips": [0.0813912, 0.0836683, 0.0792882, 0.0778844, 0.0774749],
    "l2": [0.30211, 0.306046, 0.299678, 0.294395, 0.295638],
    "l1": [0.254584, 0.258028, 0.254843, 0.25088, 0.248518],
    "gan": [2.10659, 1.98518, 1.87124, 1.76125, 1.65624],
    "feature_matching": [4.09403, 3.83584, 3.77774, 3.74584, 3.40767],
    "d_real": [1.05339, 0.991764, 0.933548, 0.878739, 0.822185],
    "d_fake": [0.0114567, 0.0105502, 0.0113546, 0.0153896, 0.0206401],
}


def test_five_steps_follow_the_golden_curve():
    system, fabric = small_system(losses={"vgg": 10.0, "lpips": 1.0, "l1": 1.0}), one_cpu()
    system.setup(fabric)
    curve = {}
    for step in range(5):
        items = [Pairs()[2 * step], Pairs()[2 * step + 1]]
        batch = model_batch(torch.utils.data.default_collate(items), torch.device("cpu"))
        for name, value in train_step(system, batch, fabric, 1e-3).items():
            curve.setdefault(name, []).append(float(value))
    assert curve.keys() == GOLDEN.keys()
    for name, values in GOLDEN.items():
        assert curve[name] == pytest.approx(values, rel=5e-4), name
