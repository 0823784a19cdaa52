"""Learning rates against the published rule, and when things are due."""

import pytest
from pydantic import ValidationError
from small_runs import IMAGES_PER_EPOCH, config

from pbvs.training.schedule import Stage, TrainingConfig


def official_rates(niter, niter_decay, lr):
    """The rate of each epoch in NVIDIA/pix2pixHD train.py: lowered after each epoch beyond `niter`."""
    rates, rate = [], lr
    for epoch in range(1, niter + niter_decay + 1):
        rates.append(rate)
        if epoch > niter:
            rate -= lr / niter_decay
    return rates


def test_linear_by_epoch_is_the_published_decay():
    stages = (
        Stage(epochs=100, learning_rate=2e-4),
        Stage(epochs=100, learning_rate=2e-4, decay="linear_by_epoch"),
    )
    settings = TrainingConfig(stages=stages)
    rates = [
        [settings.learning_rates(n, 10, ["G"])["G"] for n in range(10 * epoch, 10 * epoch + 10)]
        for epoch in range(200)
    ]
    assert [epoch[0] for epoch in rates] == pytest.approx(official_rates(100, 100, 2e-4), abs=1e-12)
    assert all(len(set(epoch)) == 1 for epoch in rates)
    by_image = TrainingConfig(stages=[stages[0], stages[1].model_copy(update={"decay": "linear"})])
    starts = [by_image.learning_rates(10 * epoch, 10, ["G"])["G"] for epoch in range(200)]
    assert starts == pytest.approx([epoch[0] for epoch in rates], abs=1e-12)
    assert by_image.learning_rates(1999, 10, ["G"])["G"] == pytest.approx(2e-4 / 1000)
    assert settings.learning_rates(1999, 10, ["G"])["G"] == pytest.approx(2e-4 / 100)


def test_the_winning_solution_s_thirty_and_ten_at_half():
    settings = TrainingConfig(
        stages=[{"epochs": 30, "learning_rate": 2e-4}, {"epochs": 10, "learning_rate": 1e-4}]
    )
    assert settings.epochs == 40
    assert [settings.learning_rates(n, 100, ["G"])["G"] for n in (0, 2999, 3000, 3999)] == [
        2e-4,
        2e-4,
        1e-4,
        1e-4,
    ]


def test_rates_within_and_beyond_the_stages():
    rates = [config().learning_rates(n, IMAGES_PER_EPOCH, ["G"])["G"] for n in (0, 11, 12, 18, 24, 1000)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 0.5e-3, 0.0, 0.0])


def test_validation_is_due_by_epochs_or_by_images():
    assert config(validate_every_epochs=3).validation_images(6) == 18
    assert config(validate_every_images=5, validate_every_epochs=3).validation_images(6) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 3, "accumulate": 2},
        {"ema": 1.0},
        {"clip_norm": 0.0},
        {"patience": 0},
        {"stages": []},
        {"stages": [{"epochs": 1, "learning_rate": 1e-3, "decay": "cosine"}]},
        {"accumulation": 2},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        config(**wrong)
