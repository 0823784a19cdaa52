"""The loop: a run that was stopped ends as one that was not; bad losses stop it; schedules hold."""

import csv
import os
import signal
from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric

from pbvs.errors import CheckpointError, TrainingError, UsageError
from pbvs.losses.total import GeneratorLoss, LossWeights
from pbvs.models.pix2pixhd import DiscriminatorConfig, GeneratorConfig
from pbvs.training import checkpoint
from pbvs.training.gan import Pix2PixHD
from pbvs.training.interrupt import Interrupted
from pbvs.training.loop import Job, Trainer, model_batch
from pbvs.training.schedule import Stage, TrainingConfig

IMAGES_PER_EPOCH = 6


class Pairs(torch.utils.data.Dataset):
    """A pair that follows from its number; half of each image is masked."""

    def __getitem__(self, n):
        draw = torch.Generator().manual_seed(n)
        source = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8, generator=draw)
        mask = torch.ones(1, 32, 32, dtype=torch.bool)
        mask[:, :, 16:] = n % 2 == 0
        return {"source": source, "target": 255 - source, "mask": mask, "name": f"pair {n}"}


class Fixed:
    """Stands for a validator: scores that are given."""

    def __init__(self, scores):
        self.scores = list(scores)

    def score(self, network, images_seen):
        return {"score": self.scores[images_seen // IMAGES_PER_EPOCH - 1]}


def config(batch_size=2):
    stages = (Stage(epochs=2, learning_rate=1e-3), Stage(epochs=2, learning_rate=1e-3, decay="linear"))
    return TrainingConfig(stages=stages, batch_size=batch_size)


def trainer(folder, dataset=None, validator=None, batch_size=2):
    model = Pix2PixHD(
        GeneratorConfig(channels=4, downsamplings=1, blocks=1),
        DiscriminatorConfig(channels=4, layers=1, scales=2),
        (1, 1), LossWeights(vgg=0, lpips=0), (0.5, 0.999), seed=3, judges="standin",
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    job = Job(
        folder, {"task": "t"}, model, config(batch_size), dataset or Pairs(), IMAGES_PER_EPOCH, validator
    )
    return Trainer(job, Fabric(accelerator="cpu", devices=1), lambda *told: None)


def train(folder, *args, **options):
    return trainer(folder, *args, **options).run()


def weights(folder, name=checkpoint.LAST):
    return {
        **checkpoint.load_weights(folder / name, "G")[1],
        **checkpoint.load_weights(folder / name, "D")[1],
    }


class StopAt(Pairs):
    """Sends this process a signal while pair `n` is being read."""

    def __init__(self, n, signal_number):
        self.n, self.signal_number = n, signal_number

    def __getitem__(self, n):
        if n == self.n:
            os.kill(os.getpid(), self.signal_number)
        return super().__getitem__(n)


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_ends_with_the_same_files_bit_for_bit(tmp_path, signal_number, code):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    outcome = train(whole)
    with pytest.raises(Interrupted) as stopped:
        train(parts, StopAt(13, signal_number))
    assert stopped.value.exit_code == code
    assert checkpoint.load_state(parts / checkpoint.STATE)["images_seen"] == 14
    assert not (parts / checkpoint.LAST).exists()
    assert train(parts).images_seen == outcome.images_seen == 24
    for name in (checkpoint.LAST, checkpoint.BEST, "curves.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_training_changes_the_weights_and_writes_every_curve(tmp_path):
    train(tmp_path / "run")
    with (tmp_path / "run" / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(rows[0]) == {"images", "learning_rate", "gan", "feature_matching", "l2", "d_real", "d_made"}
    assert rows[-1]["images"] == "24"
    assert float(rows[-1]["learning_rate"]) == 0.0
    first, last = tmp_path / "first", weights(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(first, StopAt(1, signal.SIGINT))
    before = checkpoint.load_state(first / checkpoint.STATE)["networks"]["G"]
    assert any((last[k] != v).any() for k, v in before.items())


def test_masked_pixels_have_no_influence():
    class Spoilt(Pairs):
        def __getitem__(self, n):
            item = super().__getitem__(n)
            item["target"] = torch.where(
                item["mask"], item["target"], torch.tensor(n % 256, dtype=torch.uint8)
            )
            return item

    def image_terms(dataset):
        item = torch.utils.data.default_collate([dataset[1], dataset[3]])
        batch = model_batch(item, torch.device("cpu"))
        made = torch.where(batch.mask, batch.source, batch.target).requires_grad_()
        loss = GeneratorLoss(LossWeights(vgg=0, lpips=0, l1=1), "standin")
        total = sum(loss.image_terms(made, batch.target, batch.mask).values())
        total.backward()
        return total.item(), made.grad * ~batch.mask

    plain, spoilt = image_terms(Pairs()), image_terms(Spoilt())
    assert plain[0] == spoilt[0]
    assert not plain[1].any()
    assert not spoilt[1].any()


def test_a_pair_of_which_nothing_is_known_has_no_image_loss():
    model = Pix2PixHD(
        GeneratorConfig(channels=4, downsamplings=1, blocks=1),
        DiscriminatorConfig(channels=4),
        (1, 1),
        LossWeights(gan=0, feature_matching=0, vgg=0, lpips=1, l2=1),
        (0.5, 0.999),
        seed=3,
        judges="standin",
    )
    model.setup(Fabric(accelerator="cpu", devices=1))
    (phase,) = model.phases()
    known = model_batch(torch.utils.data.default_collate([Pairs()[0]]), torch.device("cpu"))
    unknown = replace(known, mask=torch.zeros_like(known.mask))
    assert all(value > 0 for value in phase.terms(known).values())
    assert {name: value.item() for name, value in phase.terms(unknown).items()} == {"lpips": 0.0, "l2": 0.0}


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_harmed(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(folder, StopAt(5, signal.SIGINT))
    before = (folder / checkpoint.STATE).read_bytes()
    resumed = trainer(folder)
    next(iter(resumed.job.model.networks["G"].parameters())).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite: l2, gan, feature_matching") as error:
        resumed.run()
    assert "pair 6, pair 7" in str(error.value)
    assert (folder / checkpoint.STATE).read_bytes() == before


def test_best_is_the_lowest_score_and_last_the_end(tmp_path):
    outcome = train(tmp_path / "run", validator=Fixed([0.5, 0.3, 0.4, 0.6]))
    assert outcome.best_score == 0.3
    header = checkpoint.read_header(tmp_path / "run" / checkpoint.BEST)
    assert (header["images_seen"], header["best_score"]) == (12, 0.3)
    assert checkpoint.read_header(tmp_path / "run" / checkpoint.LAST)["images_seen"] == 24


def test_learning_rate_follows_the_stages_by_the_image():
    rates = [config().learning_rate(n, IMAGES_PER_EPOCH) for n in (0, 11, 12, 18, 24)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 0.5e-3, 0.0])


def test_a_batch_larger_than_all_images_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="do not fill one batch of 100"):
        train(tmp_path / "run", batch_size=100)


def test_torn_files_say_so(tmp_path):
    folder = tmp_path / "run"
    train(folder)
    best, state = folder / checkpoint.BEST, folder / checkpoint.STATE
    for path in (best, state):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="torn"):
        checkpoint.load_weights(best, "G")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load_state(state)
    with pytest.raises(CheckpointError, match="no trained weights"):
        checkpoint.load_weights(folder / "none.safetensors", "G")
    assert UsageError.exit_code == 2
    assert CheckpointError.exit_code == 1
