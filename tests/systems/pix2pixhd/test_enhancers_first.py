"""The outermost local enhancer alone for the first epochs, then everything with a new Adam."""

import signal

import pytest
import torch
from small_runs import batch_of, one_cpu, small_system, train, weights

from pbvs.systems.pix2pixhd.config import Pix2PixHDConfig
from pbvs.training import checkpoint
from pbvs.training.interrupt import Interrupted
from pbvs.training.schedule import TrainingConfig
from pbvs.training.step import START, train_step
from pbvs.training.system import SchedulePoint

LOCAL = {"kind": "local", "local_enhancers": 2, "enhancer_blocks": 1, "channels": 2}
TRAINING = {"stages": [{"epochs": 4, "learning_rate": 1e-3}]}
FIX_2 = {"fix_global_epochs": 2}


def ready(**system):
    pix2pixhd, fabric = small_system(TrainingConfig(**TRAINING), generator=LOCAL, **system), one_cpu()
    pix2pixhd.setup(fabric)
    return pix2pixhd, fabric


def at(step):
    """Two steps per epoch: two epochs are four steps."""
    return SchedulePoint("main", step // 2, max(0, step - 1) // 2)


def published_order(steps_alone, steps_all):
    """NVIDIA/pix2pixHD `create_optimizers` and `update_fixed_params`, written plainly over our losses."""
    system, _ = ready()
    generator, discriminator = (system.networks[name].module for name in "GD")
    outer = [p for n, p in generator.named_parameters() if n.startswith(("model2_1.", "model2_2."))]
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    adam_g = torch.optim.Adam(outer, lr=1e-3, betas=(0.5, 0.999))
    for step in range(steps_alone + steps_all):
        if step == steps_alone:
            adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
        phase_d, phase_g = system.phases(START)  # they share one graph
        loss_d = sum(phase_d.losses(batch_of(step)).values())
        loss_g = sum(phase_g.losses(batch_of(step)).values())
        generator.zero_grad()
        discriminator.zero_grad()
        loss_d.backward(inputs=list(discriminator.parameters()), retain_graph=True)
        loss_g.backward(inputs=list(generator.parameters()))
        adam_g.step()
        adam_d.step()
    return weights(system)


def test_the_steps_are_those_of_the_published_code():
    system, fabric = ready(**FIX_2)
    before = weights(system)
    for step in range(3):
        system.begin_step(at(step))
        train_step(system, batch_of(step), fabric, 1e-3, point=at(step))
    alone = weights(system)
    changed = {k for k in before if k.endswith("weight") and (alone[k] != before[k]).any()}
    assert changed == {k for k in before if k.endswith("weight") and k.startswith(("D.", "G.model2_"))}
    for step in range(3, 6):
        system.begin_step(at(step))
        train_step(system, batch_of(step), fabric, 1e-3, point=at(step))
    after, expected = weights(system), published_order(4, 2)
    assert (after["G.model.1.weight"] != before["G.model.1.weight"]).any()
    for name in after:
        if name.endswith("weight"):
            torch.testing.assert_close(after[name], expected[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("stopped_after", [10, 12, 14])
def test_a_run_stopped_about_the_change_resumes_bit_for_bit(tmp_path, stopped_after):
    """Two epochs of six images are twelve; the checkpoint at twelve is before the new Adam."""
    options = {"training": TRAINING, "generator": LOCAL, "system": FIX_2}
    train(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", signal_at=(stopped_after - 1, signal.SIGINT), **options)
    state = checkpoint.load_state(tmp_path / "parts" / checkpoint.STATE)
    assert state["images_seen"] == stopped_after
    train(tmp_path / "parts", **options)
    whole, parts = (tmp_path / name / checkpoint.LAST for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_settings_that_do_not_go_together_are_refused():
    Pix2PixHDConfig(training=TRAINING)
    Pix2PixHDConfig(training=TRAINING, generator={"kind": "local"}, **FIX_2)
    with pytest.raises(ValueError, match="fix_global_epochs is for generator"):
        Pix2PixHDConfig(training=TRAINING, **FIX_2)
    nothing = {"gan": 0, "feature_matching": 0, "vgg": 0, "lpips": 0, "l2": 0}
    with pytest.raises(ValueError, match="nothing to learn"):
        Pix2PixHDConfig(training=TRAINING, losses=nothing)
    with pytest.raises(ValueError, match="pool_size is for a discriminator"):
        Pix2PixHDConfig(training=TRAINING, pool_size=5, losses={"gan": 0, "feature_matching": 0})
