"""Learning rates against the published rule, and when things are due."""

import pytest
from pydantic import ValidationError
from small_runs import IMAGES_PER_EPOCH, config, small_system

from pbvs.training.schedule import Stage, TrainingConfig


def rate(settings, images_seen, images_per_epoch):
    """The one rate of all phases."""
    (rate,) = set(settings.learning_rates(images_seen, images_per_epoch, ["G", "D"]).values())
    return rate


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
    rates = [[rate(settings, n, 10) for n in range(10 * epoch, 10 * epoch + 10)] for epoch in range(200)]
    assert [epoch[0] for epoch in rates] == pytest.approx(official_rates(100, 100, 2e-4), abs=1e-12)
    assert all(len(set(epoch)) == 1 for epoch in rates)
    by_image = TrainingConfig(stages=[stages[0], stages[1].model_copy(update={"decay": "linear"})])
    starts = [rate(by_image, 10 * epoch, 10) for epoch in range(200)]
    assert starts == pytest.approx([epoch[0] for epoch in rates], abs=1e-12)
    assert rate(by_image, 1999, 10) == pytest.approx(2e-4 / 1000)
    assert rate(settings, 1999, 10) == pytest.approx(2e-4 / 100)


def test_the_winning_solution_s_thirty_and_ten_at_half():
    settings = TrainingConfig(
        stages=[{"epochs": 30, "learning_rate": 2e-4}, {"epochs": 10, "learning_rate": 1e-4}]
    )
    assert settings.epochs == 40
    assert [rate(settings, n, 100) for n in (0, 2999, 3000, 3999)] == [
        2e-4,
        2e-4,
        1e-4,
        1e-4,
    ]


def test_rates_within_and_beyond_the_stages():
    rates = [rate(config(), n, IMAGES_PER_EPOCH) for n in (0, 11, 12, 18, 24, 1000)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 0.5e-3, 0.0, 0.0])


STAGES = (
    {"name": "warm", "epochs": 2, "learning_rate": {"D": 4e-4, "G": 1e-4}},
    {"name": "fine", "epochs": 4, "learning_rate": {"G": 2e-4, "D": 8e-4}, "decay": "linear"},
    {"name": "last", "epochs": 2, "learning_rate": 1e-5, "decay": "linear_by_epoch"},
)


def test_named_stages_have_a_rate_per_phase():
    settings = config(stages=STAGES)
    assert settings.epochs == 8
    for n in range(48):
        stage, images = settings.stage_at(n, 6)
        rates = settings.learning_rates(n, 6, ["G", "D"])
        if n < 12:
            expected = ("warm", n, {"G": 1e-4, "D": 4e-4})
        elif n < 36:
            factor = 1 - (n - 12) / 24
            expected = ("fine", n - 12, {"G": 2e-4 * factor, "D": 8e-4 * factor})
        else:
            rate = 1e-5 if n < 42 else 0.5e-5
            expected = ("last", n - 36, {"G": rate, "D": rate})
        assert (stage.name, images) == expected[:2]
        assert rates == pytest.approx(expected[2], rel=1e-12)


def test_betas_of_one_phase_take_the_place_of_the_others():
    settings = config(betas=(0.5, 0.9), optimizers={"D": {"betas": (0.0, 0.99)}, "E": {}})
    assert [settings.betas_of(phase) for phase in "GDE"] == [(0.5, 0.9), (0.0, 0.99), (0.5, 0.9)]
    system = small_system(settings)
    betas = {name: optimizer.param_groups[0]["betas"] for name, optimizer in system.optimizers.items()}
    assert betas == {"G": (0.5, 0.9), "D": (0.0, 0.99)}


def test_settings_of_a_phase_that_does_not_exist_are_refused():
    config(stages=STAGES, optimizers={"D": {}}).check_phases(("D", "G"))
    with pytest.raises(ValueError, match="optimizers: no phase 'd'; known: D, G"):
        config(optimizers={"d": {}}).check_phases(("D", "G"))
    with pytest.raises(ValueError, match=r"stages \(warm\): learning_rate has D, G; the phases are G"):
        config(stages=STAGES).check_phases(("G",))
    with pytest.raises(ValueError, match="the phases are D, E, G"):
        config(stages=STAGES).check_phases(("D", "E", "G"))


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
        {"stages": [{"epochs": 1, "learning_rate": {"G": 0.0}}]},
        {"stages": [{"epochs": 0, "learning_rate": 1e-3}]},
        {"optimizers": {"D": {"beta": 0.5}}},
        {"stages": [{"epochs": 1, "learning_rate": 1e-3, "decay": "cosine"}]},
        {"accumulation": 2},
    ],
)
def test_invalid_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        config(**wrong)
