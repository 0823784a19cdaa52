"""channels_last, compile and activation checkpointing: the same gradients, or an error before the run."""

from dataclasses import replace

import pytest
import torch
from small_runs import batch_of, config, largest_difference, one_cpu, small_system, train
from torch import nn

from pbvs.core.errors import TrainingError
from pbvs.networks.layers import norm_layer
from pbvs.training import checkpoint, memory_format
from pbvs.training.step import train_step

CPU = torch.device("cpu")


def test_channels_last_has_the_plain_path_s_gradients_at_batch_1_and_2():
    memory_format.check_gradients(CPU, channels_last=True, compiled=False)


def test_the_check_finds_the_wrong_gradient_of_torch_s_own_instance_norm(monkeypatch):
    """What `pbvs.networks.layers.InstanceNorm` works around; once torch is fixed, this test can go."""

    def torch_s(name, channels):
        return nn.InstanceNorm2d(channels) if name == "instance" else norm_layer(name, channels)

    monkeypatch.setattr(memory_format, "norm_layer", torch_s)
    with pytest.raises(TrainingError, match="channels_last gives wrong gradients on cpu"):
        memory_format.check_gradients(CPU, channels_last=True, compiled=False)


@pytest.mark.parametrize("numbers", [(1,), (0, 3)])
@pytest.mark.parametrize("switch", ["channels_last", "activation_checkpointing"])
def test_a_step_of_the_whole_system_in_float64(switch, numbers):
    """Weights after a step, with the gradients of the production networks and losses."""
    results = []
    for settings in (config(), config(**{switch: True})):
        system, fabric = small_system(settings, losses={"l1": 1.0}), one_cpu()
        for network in system.networks.values():
            network.double()
        memory_format.apply_memory_format(system, settings, fabric.device)
        system.setup(fabric)
        batch = batch_of(*numbers)
        batch = replace(batch, views={name: view.double() for name, view in batch.views.items()})
        train_step(system, batch, fabric, 1e-3)
        results.append([p.grad for net in system.networks.values() for p in net.parameters()])
    largest = max(float(g.abs().max()) for g in results[0])
    assert all(g.dtype == torch.float64 for g in results[0])
    for a, b in zip(*results, strict=True):
        assert float((a - b).abs().max()) < 1e-6 * largest


def test_the_switch_reaches_the_networks():
    settings = config(channels_last=True, activation_checkpointing=True)
    system = small_system(settings)
    memory_format.apply_memory_format(system, settings, CPU)
    weight = system.networks["G"].model[1].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert system.networks["G"].activation_checkpointing
    back = memory_format.in_plain_format(system.networks["G"])
    assert all(p.is_contiguous() for p in back.parameters())
    assert torch.equal(back.model[1].weight, weight)


def test_a_run_in_channels_last_ends_as_a_plain_one(tmp_path):
    train(tmp_path / "plain")
    train(tmp_path / "last", training={"channels_last": True}, validates=True)
    record, states = checkpoint.load_weights(tmp_path / "last" / checkpoint.LAST)
    plain_state = checkpoint.load_weights(tmp_path / "plain" / checkpoint.LAST)[1]["G"]
    assert record.images_seen == 24
    kept = {k: v for k, v in plain_state.items() if k.endswith("weight")}
    assert largest_difference(kept, states["G"]) < 1e-3
    assert all(v.is_contiguous() for v in states["G"].values())


def test_compiled_gradients_are_compared_too():
    """One small network: each costs seconds of compiling."""
    assert memory_format._error(CPU, "instance", 1, True, True) < 1e-9


def test_an_unchecked_device_is_refused():
    with pytest.raises(TrainingError, match="compile cannot be checked on mps"):
        memory_format.check_gradients(torch.device("mps"), channels_last=False, compiled=True)


def test_wrong_gradients_stop_a_run_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_format, "_error", lambda *args: float("nan"))
    with pytest.raises(TrainingError, match="compile gives wrong gradients"):
        train(tmp_path / "run", training={"compile": True})
    assert list((tmp_path / "run").iterdir()) == []
