"""The loop: a run that was stopped ends as one that was not; bad losses stop it; its ends and files."""

import csv
import signal

import pytest
import torch
from small_runs import (
    Fixed,
    Pairs,
    SignalAt,
    assert_last_is_the_state,
    config,
    networks,
    one_cpu,
    small_system,
    train,
    trainer,
)
from torch import nn
from untrained import record_of

from pbvs.core.errors import TrainingError
from pbvs.dataset.batches import BatchSampler, model_batch
from pbvs.systems.pix2pixhd.config import LossWeights
from pbvs.systems.pix2pixhd.losses import GeneratorLoss
from pbvs.training import checkpoint
from pbvs.training.interrupt import Interrupted
from pbvs.training.loop import Job, Trainer
from pbvs.training.system import Phase, SchedulePoint, System


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed_ends_with_the_same_files_bit_for_bit(tmp_path, signal_number, code):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    outcome = train(whole)
    with pytest.raises(Interrupted) as stopped:
        train(parts, signal_at=(13, signal_number))
    assert stopped.value.exit_code == code
    assert_last_is_the_state(parts, 14)
    assert train(parts).images_seen == outcome.images_seen == 24
    for name in (checkpoint.LAST, checkpoint.BEST, "curves.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_a_signal_before_a_validation_leaves_it_to_the_resumed_run(tmp_path):
    """Schedulers give little time between SIGTERM and SIGKILL."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, validates=True)
    with pytest.raises(Interrupted):
        train(parts, validates=True, signal_at=(11, signal.SIGTERM))
    assert not (parts / "validation.csv").exists() or len(rows_of(parts / "validation.csv")) == 1
    train(parts, validates=True)
    for name in (checkpoint.LAST, checkpoint.BEST, "curves.csv", "validation.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    assert [row["images"] for row in rows_of(parts / "validation.csv")] == ["6", "12", "18", "24"]


def test_training_changes_the_weights_and_writes_every_curve(tmp_path):
    train(tmp_path / "run", training={"clip_norm": 5.0})
    rows = rows_of(tmp_path / "run" / "curves.csv")
    losses = {"gan", "feature_matching", "l2", "d_real", "d_fake"}
    norms = {"gradient_norm_G", "gradient_norm_D"}
    assert set(rows[0]) == {"images", "learning_rate"} | losses | norms
    assert rows[-1]["images"] == "24"
    assert float(rows[-1]["learning_rate"]) == 0.0
    assert all(float(rows[-1][name]) > 0 for name in losses | norms)
    times = rows_of(tmp_path / "run" / "times.csv")[-1]
    data, step = float(times["data_seconds_per_image"]), float(times["step_seconds_per_image"])
    assert 0 < data < step
    assert float(times["images_per_second"]) == pytest.approx(1 / (data + step), rel=1e-4)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    first = small_system().networks["G"].state_dict()
    last = networks(tmp_path / "run")
    assert all((last[f"G.{k}"] != v).any() for k, v in first.items() if k.endswith("weight"))


def test_masked_pixels_have_no_influence():
    class Spoilt(Pairs):
        def __getitem__(self, n):
            item = super().__getitem__(n)
            item["target"] = torch.where(
                item["mask"], item["target"], torch.tensor(n % 256, dtype=torch.uint8)
            )
            return item

    def image_losses(dataset):
        item = torch.utils.data.default_collate([dataset[1], dataset[3]])
        batch = model_batch(item, torch.device("cpu"))
        fake = torch.where(batch.mask, batch.source, batch.target).requires_grad_()
        loss = GeneratorLoss(LossWeights(vgg=0, lpips=0, l1=1), "standin")
        total = sum(loss.image(fake, batch.target, batch.mask).values())
        total.backward()
        return total.item(), fake.grad * ~batch.mask

    clean, spoilt = image_losses(Pairs()), image_losses(Spoilt())
    assert clean[0] == spoilt[0]
    assert not clean[1].any()
    assert not spoilt[1].any()


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_checkpoint(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(folder, signal_at=(5, signal.SIGINT))
    before = (folder / checkpoint.STATE).read_bytes()
    resumed = trainer(folder)
    next(iter(resumed.job.system.networks["G"].parameters())).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite: ") as error:
        resumed.run()
    names = str(error.value).splitlines()[0].removeprefix("not finite: ")
    assert set(names.split(", ")) == {"l2", "gan", "feature_matching", "d_fake"}
    assert "pair 6, pair 7" in str(error.value)
    assert (folder / checkpoint.STATE).read_bytes() == before
    assert train(folder).images_seen == 24


def test_weights_spoilt_by_a_gradient_are_never_written(tmp_path):
    """A loss may be finite and its gradient not."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(folder, signal_at=(5, signal.SIGINT))
    before = (folder / checkpoint.STATE).read_bytes()
    resumed = trainer(folder, training={"checkpoint_every_images": 2})
    weight = next(iter(resumed.job.system.networks["G"].parameters()))
    weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match="no longer finite"):
        resumed.run()
    assert (folder / checkpoint.STATE).read_bytes() == before


def test_best_is_the_lowest_score_and_last_the_end(tmp_path):
    outcome = train(tmp_path / "run", validator=Fixed(0.5, 0.3, 0.4, 0.6))
    assert (outcome.best_score, outcome.ended_early) == (0.3, False)
    record = checkpoint.read_record(tmp_path / "run" / checkpoint.BEST)
    assert (record.images_seen, record.best_score) == (12, 0.3)
    assert checkpoint.read_record(tmp_path / "run" / checkpoint.LAST).images_seen == 24


def test_patience_ends_a_run_and_a_larger_one_extends_it(tmp_path):
    folder = tmp_path / "run"
    outcome = train(folder, validator=Fixed(0.5, 0.6, 0.7, 0.1), training={"patience": 2})
    assert (outcome.images_seen, outcome.best_score, outcome.ended_early) == (18, 0.5, True)
    assert checkpoint.read_record(folder / checkpoint.LAST).images_seen == 18
    again = train(folder, validator=Fixed(), training={"patience": 2})
    assert (again.images_now, again.ended_early) == (0, True)
    extended = train(folder, validator=Fixed(0.1), training={"patience": 3})
    assert (extended.images_now, extended.best_score, extended.ended_early) == (6, 0.1, False)


def test_a_finished_run_is_extended_by_more_epochs(tmp_path):
    folder = tmp_path / "run"
    short = [{"epochs": 2, "learning_rate": 1e-3}]
    assert train(folder, training={"stages": short}).images_now == 12
    assert train(folder, training={"stages": short}).images_now == 0
    assert train(folder).images_now == 12
    train(tmp_path / "whole")
    assert (folder / checkpoint.LAST).read_bytes() == (tmp_path / "whole" / checkpoint.LAST).read_bytes()


def test_validation_every_so_many_images(tmp_path):
    validator = Fixed(*[0.5] * 9)
    train(tmp_path / "run", validator=validator, training={"validate_every_images": 5})
    assert validator.validated == [6, 10, 16, 20, 24]


def test_one_image_trains_and_has_no_score(tmp_path):
    outcome = train(tmp_path / "run", images_per_epoch=1, training={"batch_size": 1})
    assert (outcome.images_seen, outcome.best_score) == (4, None)


def test_progress_reports_and_a_warning_where_data_is_slow(tmp_path, monkeypatch):
    monkeypatch.setattr("pbvs.training.meter._WARN_AFTER_STEPS", 4)
    reports, warned = [], []
    options = {"warn": warned.append, "log_every_steps": 4}
    run = trainer(tmp_path / "run", report=lambda *r: reports.append(r), **options)
    run.batches.waiting_seconds = 1e6
    outcome = run.run()
    assert [done for done, _, _ in reports] == [8, 16, 24]
    assert reports[0][1] == 24
    assert reports[0][2]["minutes left"] > 0 == reports[-1][2]["minutes left"]
    assert {"images/s", "l2", "d_fake"} <= set(reports[0][2])
    assert len(warned) == 1
    assert "100% of the time" in warned[0]
    assert outcome.waiting_share > 0.99
    train(tmp_path / "quick", **options)
    assert len(warned) == 1


def test_every_position_is_taken_once_however_a_step_is_divided():
    starts = range(0, 24, 8)
    whole = [sorted(p) for p in BatchSampler(starts, 8)]
    assert whole == [list(range(s, s + 8)) for s in starts]
    divided = [list(BatchSampler(starts, 8, parts=2, rank=rank, processes=2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*divided, strict=True)] == whole
    # A part over all processes is a part of one process.
    assert divided[0][0] == [0, 1, 4, 5]
    assert divided[1][0] == [2, 3, 6, 7]


# ---- named stages


class Ramp(System):
    """Two numbers p and q with a phase each, whose gradient is 1; it is -1 in the stage `up`."""

    translators = ("p",)

    def __init__(self):
        self.networks = {name: nn.Conv2d(1, 1, 1, bias=False) for name in "pq"}
        for network in self.networks.values():
            nn.init.zeros_(network.weight)
        self.optimizers = {n: torch.optim.SGD(net.parameters(), lr=0.0) for n, net in self.networks.items()}
        self.points = []

    def begin_step(self, point):
        self.points.append(point)

    def phases(self, point):
        sign, one = -1.0 if point.stage == "up" else 1.0, torch.ones(1, 1, 1, 1)
        return tuple(Phase(n, lambda _, n=n: {n: sign * self.networks[n](one).mean()}) for n in "pq")

    @classmethod
    def inference_networks(cls, config, bands):
        raise NotImplementedError

    @classmethod
    def translate(cls, networks, source):
        raise NotImplementedError


RAMP = [
    {"name": "down", "epochs": 2, "learning_rate": {"p": 0.5, "q": 0.25}},
    {"name": "up", "epochs": 1, "learning_rate": {"q": 1.0, "p": 0.25}, "decay": "linear"},
]


@pytest.mark.parametrize("stopped_at", [None, 9, 15])
def test_each_phase_follows_its_rates_through_named_stages(tmp_path, monkeypatch, stopped_at):
    """SGD sums up the rates: six steps down; three steps up, at 1, 2/3 and 1/3 of the rate."""
    monkeypatch.setattr("pbvs.training.loop._LOG_EVERY_STEPS", 1)
    points = []

    def run(dataset):
        system = Ramp()
        job = Job(tmp_path, record_of(), system, config(stages=RAMP), dataset, 6, None)
        try:
            Trainer(job, one_cpu(), lambda *progress: None).run()
        finally:
            points.extend(system.points)

    if stopped_at:
        with pytest.raises(Interrupted):
            run(SignalAt(stopped_at, signal.SIGTERM))
    run(Pairs())
    assert networks(tmp_path)["p.weight"].item() == pytest.approx(-6 * 0.5 + 2 * 0.25, abs=1e-6)
    assert networks(tmp_path)["q.weight"].item() == pytest.approx(-6 * 0.25 + 2 * 1.0, abs=1e-6)
    assert points == [
        *(SchedulePoint("down", epoch, before) for epoch, before in ((0, 0), (0, 0), (0, 0), (1, 0))),
        *(SchedulePoint("down", 1, 1), SchedulePoint("down", 1, 1)),
        *(SchedulePoint("up", epoch, before) for epoch, before in ((2, 1), (2, 2), (2, 2))),
    ]
    # The rate of a row is that of the next step.
    rows = rows_of(tmp_path / "curves.csv")
    rates = [(float(row["learning_rate_p"]), float(row["learning_rate_q"])) for row in rows]
    up = [(0.25 * part, 1.0 * part) for part in (1, 2 / 3, 1 / 3, 0)]
    assert rates == [pytest.approx(rate, rel=1e-5) for rate in [(0.5, 0.25)] * 5 + up]
