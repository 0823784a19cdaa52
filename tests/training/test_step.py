"""The step itself: accumulation, clipping, scaling, the order of phases, and when it refuses."""

from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from small_runs import Pairs, batch_of, config, largest_difference, one_cpu, small_system, weights
from torch import nn
from untrained import record_of

from pbvs.core.device import in_precision
from pbvs.core.errors import TrainingError
from pbvs.training.step import START, scalers_for, train_step
from pbvs.training.system import Phase, System, unwrap


def ready(fabric=None, **options):
    system = small_system(**options)
    fabric = fabric or one_cpu()
    system.setup(fabric)
    return system, fabric


def test_losses_are_those_of_the_phases_and_every_network_steps():
    system, fabric = ready()
    losses = {}
    for phase in system.phases(START):
        losses |= phase.losses(batch_of(0, 1))
    before = weights(system)
    means = train_step(system, batch_of(0, 1), fabric, 1e-3)
    assert {k: v.item() for k, v in means.items()} == {k: v.item() for k, v in losses.items()}
    after = weights(system)
    steps = {k: float((after[k] - before[k]).abs().max()) for k in before if k.endswith("weight")}
    assert all(step == pytest.approx(1e-3, rel=1e-2) for step in steps.values())  # Adam's first is its rate


def test_a_step_in_parts_is_the_step_at_once():
    batches = [batch_of(0, 2, 4, 1), batch_of(3, 5, 6, 8)]
    results = []
    for accumulate in (1, 2, 4):
        system, fabric = ready()
        losses = [train_step(system, b, fabric, 1e-3, accumulate=accumulate, clip_norm=0.1) for b in batches]
        results.append((losses[-1], system))
    for losses, system in results[1:]:
        for name, value in results[0][0].items():
            assert float(losses[name]) == pytest.approx(float(value), rel=1e-4), name
        # Weights in front of a norm's bias have gradients of rounding only, which Adam makes whole steps of.
        a, b = weights(results[0][1]), weights(system)
        kept = [k for k in a if k.endswith("weight")]
        assert largest_difference({k: a[k] for k in kept}, b) < 2e-5


def test_clipping_limits_each_phase_s_gradient_and_returns_its_norm():
    system, fabric = ready()
    losses = train_step(system, batch_of(0, 1), fabric, 1e-3, clip_norm=1e9)
    free = {n: [p.grad.clone() for p in net.parameters()] for n, net in system.networks.items()}
    for name in "GD":
        norm = torch.cat([g.flatten() for g in free[name]]).norm()
        assert float(losses[f"gradient_norm_{name}"]) == pytest.approx(float(norm), rel=1e-5)
    again, fabric = ready()
    clipped = train_step(again, batch_of(0, 1), fabric, 1e-3, clip_norm=0.01)
    for name, net in again.networks.items():
        norm = float(losses[f"gradient_norm_{name}"])
        assert float(clipped[f"gradient_norm_{name}"]) == pytest.approx(norm, rel=1e-5)
        for gradient, parameter in zip(free[name], net.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, gradient * 0.01 / norm, rtol=1e-4, atol=1e-9)


def test_each_phase_has_its_rate_and_betas_in_adam_s_closed_form():
    """Bias corrected, moments after two steps are (b1 g1 + g2) / (1 + b1) and (b2 g1^2 + g2^2) / (1 + b2)."""
    rates = {"G": 1e-3, "D": 4e-3}
    betas = {"G": (0.5, 0.999), "D": (0.0, 0.9)}
    system, fabric = ready(training=config(optimizers={"D": {"betas": betas["D"]}}))
    states, gradients = [weights(system)], []
    for numbers in ((0, 1), (2, 3)):
        train_step(system, batch_of(*numbers), fabric, rates)
        states.append(weights(system))
        networks = {name: unwrap(network) for name, network in system.networks.items()}
        named = [(f"{n}.{k}", p) for n, net in networks.items() for k, p in net.named_parameters()]
        gradients.append({name: parameter.grad.clone() for name, parameter in named})
    for name in (name for name in gradients[0] if name.endswith("weight")):
        (b1, b2), (first, second) = betas[name[0]], (step[name] for step in gradients)
        mean, square = (b1 * first + second) / (1 + b1), (b2 * first**2 + second**2) / (1 + b2)
        for n, step in enumerate((first / (first.abs() + 1e-8), mean / (square.sqrt() + 1e-8))):
            moved = (states[n + 1][name] - states[n][name]) / -rates[name[0]]
            torch.testing.assert_close(moved, step, rtol=1e-3, atol=1e-3, msg=f"{name}, step {n}")


@pytest.mark.parametrize("network", ["G", "D"])
def test_no_weight_changes_when_a_loss_of_any_phase_is_not_finite(network, monkeypatch):
    system, fabric = ready()
    phases = system.phases(START)
    spoilt = {"G": "l2", "D": "d_real"}[network]

    def losses_of(phase):
        def losses(batch):
            found = phase.losses(batch)
            bad = spoilt in found and "pair 3" in batch.names
            return found | ({spoilt: found[spoilt] * float("inf")} if bad else {})

        return losses

    wrong = tuple(replace(phase, losses=losses_of(phase)) for phase in phases)
    monkeypatch.setattr(system, "phases", lambda point: wrong)
    before = weights(system)
    with pytest.raises(TrainingError, match=f"not finite: {spoilt}\n") as error:
        train_step(system, batch_of(1, 2, 3, 4), fabric, 1e-3, accumulate=2)
    assert "images pair 3, pair 4\n" in str(error.value)  # the part that it happened in
    assert largest_difference(weights(system), before) == 0.0
    train_step(system, batch_of(1, 2), fabric, 1e-3)
    assert largest_difference(weights(system), before) > 0.0


def test_with_clipping_a_gradient_that_is_not_finite_stops_too():
    system, fabric = ready()
    next(system.networks["D"].parameters()).register_hook(lambda gradient: gradient * float("nan"))
    before = weights(system)
    with pytest.raises(TrainingError, match="not finite: gradient_norm_D") as error:
        train_step(system, batch_of(1, 2), fabric, 1e-3, clip_norm=1.0)
    assert "pair 1, pair 2" in str(error.value)
    assert largest_difference(weights(system), before) == 0.0


def test_a_pair_that_is_masked_altogether_has_no_image_loss():
    system, _ = ready(losses={"gan": 0, "feature_matching": 0, "lpips": 1, "l2": 1})
    (phase,) = system.phases(START)
    known = batch_of(0)
    unknown = replace(known, mask=torch.zeros_like(known.mask))
    assert all(value > 0 for value in phase.losses(known).values())
    assert {name: value.item() for name, value in phase.losses(unknown).items()} == {"lpips": 0.0, "l2": 0.0}


# ---- numbers of other precision


def test_float16_scales_each_network_by_its_own_scaler():
    fabric = Fabric(accelerator="cpu", devices=1, **in_precision("16-mixed", "cpu"))
    system, _ = ready(fabric)
    scalers = scalers_for(system, fabric)
    assert {name: scaler.is_enabled() for name, scaler in scalers.items()} == {"G": True, "D": True}
    for scaler in scalers.values():  # the usual 65536 is too much for these gradients
        scaler.load_state_dict(scaler.state_dict() | {"scale": 256.0})
    plain, plain_fabric = ready()
    losses = train_step(system, batch_of(0, 1), fabric, 1e-3, clip_norm=1e9, scalers=scalers)
    expected = train_step(plain, batch_of(0, 1), plain_fabric, 1e-3, clip_norm=1e9)
    for name, value in expected.items():  # losses and norms are unscaled
        assert float(losses[name]) == pytest.approx(float(value), rel=2e-2), name
    # A gradient of D that overflows costs D a step and half its scale; G is not touched by it.
    next(system.networks["D"].parameters()).register_hook(lambda gradient: gradient * float("inf"))
    before, scale = weights(system), scalers["G"].get_scale()
    train_step(system, batch_of(2, 3), fabric, 1e-3, scalers=scalers)
    changed = {k for k, v in weights(system).items() if (v != before[k]).any()}
    assert {k[0] for k in changed} == {"G"}
    assert (scalers["G"].get_scale(), scalers["D"].get_scale()) == (scale, scale / 2)
    kept = scalers["D"].state_dict()
    other = scalers_for(system, fabric)["D"]
    other.load_state_dict(kept)
    assert other.state_dict() == kept


def test_bfloat16_follows_float32():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    (half, _), (full, plain_fabric) = ready(fabric), ready()
    losses = train_step(half, batch_of(0, 1), fabric, 1e-3)
    expected = train_step(full, batch_of(0, 1), plain_fabric, 1e-3)
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(float(value), rel=5e-2), name
    assert {p.dtype for p in half.networks["G"].parameters()} == {torch.float32}


# ---- systems other than pix2pixHD


class Toy(System):
    """Three networks and two phases: `ab` fits b(a(source)) to the target, `c` trains c to call that 1."""

    translators = ("a", "b")

    def __init__(self, together=True, shared_graph=False):
        torch.manual_seed(0)
        self.networks = {name: nn.Conv2d(1, 1, 1) for name in "abc"}
        self.optimizers = {
            "ab": torch.optim.SGD([p for n in "ab" for p in self.networks[n].parameters()], lr=0.0),
            "c": torch.optim.SGD(self.networks["c"].parameters(), lr=0.0),
        }
        self.simultaneous, self.shared_graph = together, shared_graph

    @classmethod
    def inference_networks(cls, config, bands):
        return {name: nn.Conv2d(1, 1, 1) for name in "ab"}

    @classmethod
    def translate(cls, networks, source):
        return networks["b"](networks["a"](source))

    def phases(self, point):
        return (
            Phase("ab", self._ab, frozen=(self.networks["b"].bias,), retain_graph=self.shared_graph),
            Phase("c", self._c),
        )

    def _ab(self, batch):
        self.fake = self.translate(self.networks, batch.source)
        self.logits = self.networks["c"](self.fake)
        return {"fit": (self.fake - batch.target).square().mean(), "fool": self.logits.square().mean()}

    def _c(self, batch):
        logits = self.logits if self.shared_graph else self.networks["c"](self.fake.detach())
        return {"c": (logits - 1).square().mean()}


def expected_toy(rate):
    """Weights after the same step, written out."""
    toy = Toy()
    a, b, c = (toy.networks[n] for n in "abc")
    batch = batch_of(0, 2)
    fake = b(a(batch.source))
    total = (fake - batch.target).square().mean() + c(fake).square().mean()
    ours = [*a.parameters(), b.weight]
    gradients = dict(zip(ours, torch.autograd.grad(total, ours), strict=True))
    # Phase `ab` does not change c, so both orders give c the same gradient.
    loss_c = (c(fake.detach()) - 1).square().mean()
    gradients |= dict(zip(c.parameters(), torch.autograd.grad(loss_c, list(c.parameters())), strict=True))
    with torch.no_grad():
        for parameter, gradient in gradients.items():
            parameter -= rate * gradient
    return weights(toy)


# (A graph cannot be shared in turn: it is over weights that have stepped.)
@pytest.mark.parametrize(("together", "shared_graph"), [(True, False), (True, True), (False, False)])
def test_three_networks_in_two_phases(together, shared_graph):
    toy, fabric = Toy(together, shared_graph), one_cpu()
    toy.setup(fabric)
    before = weights(toy)
    losses = train_step(toy, batch_of(0, 2), fabric, 0.1)
    assert set(losses) == {"fit", "fool", "c"}
    after, expected = weights(toy), expected_toy(0.1)
    for name in before:
        torch.testing.assert_close(after[name], expected[name], msg=name)
    assert torch.equal(after["b.bias"], before["b.bias"])  # frozen


def test_phases_in_turn_use_the_weights_of_the_phase_before():
    class Chained(Toy):
        def _c(self, batch):
            return {"c": self.networks["c"](self.networks["a"](batch.source)).square().mean()}

    results = {}
    for together in (True, False):
        toy, fabric = Chained(together), one_cpu()
        toy.setup(fabric)
        results[together] = train_step(toy, batch_of(0, 2), fabric, 0.5)
    assert float(results[True]["fit"]) == float(results[False]["fit"])
    assert float(results[True]["c"]) != float(results[False]["c"])


def test_the_loop_trains_and_resumes_any_system(tmp_path):
    from pbvs.training import checkpoint
    from pbvs.training.loop import Job, Trainer

    def run(folder, stages):
        folder.mkdir(exist_ok=True)
        settings = config(stages=stages, ema=0.9)
        job = Job(folder, record_of(), Toy(), settings, Pairs(), 6, None)
        return Trainer(job, one_cpu(), lambda *progress: None).run()

    two, four = ([{"epochs": n, "learning_rate": 0.1}] for n in (2, 4))
    run(tmp_path / "whole", four)
    run(tmp_path / "parts", two)
    run(tmp_path / "parts", four)
    whole, parts = (tmp_path / n / checkpoint.LAST for n in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    for network in checkpoint.load_weights(whole)[1].values():
        assert set(network) == {"weight", "bias"}
