"""The step itself: accumulation, clipping, scaling, the order of phases, and when it refuses."""

from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from small_runs import Pairs, config, one_cpu, small_model
from torch import nn

from pbvs.core.errors import TrainingError
from pbvs.core.fabric import in_precision
from pbvs.dataset.batches import model_batch
from pbvs.training.step import scalers_for, train_step
from pbvs.training.system import Phase, unwrap


def batch_of(*numbers):
    items = [Pairs()[n] for n in numbers]
    return model_batch(torch.utils.data.default_collate(items), torch.device("cpu"))


def ready(fabric=None, **options):
    model = small_model(**options)
    fabric = fabric or one_cpu()
    model.setup(fabric)
    return model, fabric


def weights(model):
    return {
        f"{n}.{k}": v.clone()
        for n, net in model.networks.items()
        for k, v in unwrap(net).state_dict().items()
    }


def largest_difference(a, b):
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def test_terms_are_those_of_the_phases_and_every_network_steps():
    model, fabric = ready()
    losses = {}
    for phase in model.phases():
        losses |= phase.losses(batch_of(0, 1))
    before = weights(model)
    told = train_step(model, batch_of(0, 1), fabric, 1e-3)
    assert {k: v.item() for k, v in told.items()} == {k: v.item() for k, v in losses.items()}
    after = weights(model)
    steps = {k: float((after[k] - before[k]).abs().max()) for k in before if k.endswith("weight")}
    assert all(step == pytest.approx(1e-3, rel=1e-2) for step in steps.values())  # Adam's first is its rate


def test_a_step_in_parts_is_the_step_at_once():
    batches = [batch_of(0, 2, 4, 1), batch_of(3, 5, 6, 8)]
    results = []
    for accumulate in (1, 2, 4):
        model, fabric = ready()
        told = [train_step(model, b, fabric, 1e-3, accumulate=accumulate, clip_norm=0.1) for b in batches]
        results.append((told[-1], model))
    for told, model in results[1:]:
        for name, value in results[0][0].items():
            assert float(told[name]) == pytest.approx(float(value), rel=1e-4), name
        # Weights in front of a norm's bias have gradients of rounding only, which Adam makes whole steps of.
        a, b = weights(results[0][1]), weights(model)
        kept = [k for k in a if k.endswith("weight")]
        assert largest_difference({k: a[k] for k in kept}, b) < 2e-5


def test_clipping_limits_each_phase_s_gradient_and_tells_its_length():
    model, fabric = ready()
    told = train_step(model, batch_of(0, 1), fabric, 1e-3, clip_norm=1e9)
    free = {n: [p.grad.clone() for p in net.parameters()] for n, net in model.networks.items()}
    for name in "GD":
        norm = torch.cat([g.flatten() for g in free[name]]).norm()
        assert float(told[f"gradient_norm_{name}"]) == pytest.approx(float(norm), rel=1e-5)
    again, fabric = ready()
    told_again = train_step(again, batch_of(0, 1), fabric, 1e-3, clip_norm=0.01)
    for name, net in again.networks.items():
        norm = float(told[f"gradient_norm_{name}"])
        assert float(told_again[f"gradient_norm_{name}"]) == pytest.approx(norm, rel=1e-5)
        for gradient, parameter in zip(free[name], net.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, gradient * 0.01 / norm, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("network", ["G", "D"])
def test_no_weight_changes_when_a_loss_of_any_phase_is_not_finite(network, monkeypatch):
    model, fabric = ready()
    phases = model.phases()
    spoilt = {"G": "l2", "D": "d_real"}[network]

    def terms_of(phase):
        def losses(batch):
            found = phase.losses(batch)
            bad = spoilt in found and "pair 3" in batch.names
            return found | ({spoilt: found[spoilt] * float("inf")} if bad else {})

        return losses

    wrong = tuple(replace(phase, losses=terms_of(phase)) for phase in phases)
    monkeypatch.setattr(model, "phases", lambda: wrong)
    before = weights(model)
    with pytest.raises(TrainingError, match=f"not finite: {spoilt}\n") as error:
        train_step(model, batch_of(1, 2, 3, 4), fabric, 1e-3, accumulate=2)
    assert "images pair 3, pair 4\n" in str(error.value)  # the part that it happened in
    assert largest_difference(weights(model), before) == 0.0
    train_step(model, batch_of(1, 2), fabric, 1e-3)
    assert largest_difference(weights(model), before) > 0.0


def test_with_clipping_a_gradient_that_is_not_finite_stops_too():
    model, fabric = ready()
    next(model.networks["D"].parameters()).register_hook(lambda gradient: gradient * float("nan"))
    before = weights(model)
    with pytest.raises(TrainingError, match="not finite: gradient_norm_D") as error:
        train_step(model, batch_of(1, 2), fabric, 1e-3, clip_norm=1.0)
    assert "pair 1, pair 2" in str(error.value)
    assert largest_difference(weights(model), before) == 0.0


def test_a_pair_of_which_nothing_is_known_has_no_image_loss():
    model, _ = ready(losses={"gan": 0, "feature_matching": 0, "lpips": 1, "l2": 1})
    (phase,) = model.phases()
    known = batch_of(0)
    unknown = replace(known, mask=torch.zeros_like(known.mask))
    assert all(value > 0 for value in phase.losses(known).values())
    assert {name: value.item() for name, value in phase.losses(unknown).items()} == {"lpips": 0.0, "l2": 0.0}


# ---- numbers of other precision


def test_float16_scales_each_network_by_its_own_scaler():
    fabric = Fabric(accelerator="cpu", devices=1, **in_precision("16-mixed", "cpu"))
    model, _ = ready(fabric)
    scalers = scalers_for(model, fabric)
    assert {name: scaler.is_enabled() for name, scaler in scalers.items()} == {"G": True, "D": True}
    for scaler in scalers.values():  # the usual 65536 is too much for these gradients
        scaler.load_state_dict(scaler.state_dict() | {"scale": 256.0})
    plain_model, plain_fabric = ready()
    told = train_step(model, batch_of(0, 1), fabric, 1e-3, clip_norm=1e9, scalers=scalers)
    expected = train_step(plain_model, batch_of(0, 1), plain_fabric, 1e-3, clip_norm=1e9)
    for name, value in expected.items():  # the losses and gradients told are unscaled
        assert float(told[name]) == pytest.approx(float(value), rel=2e-2), name
    # A gradient of D that overflows costs D a step and half its scale; G is not touched by it.
    next(model.networks["D"].parameters()).register_hook(lambda gradient: gradient * float("inf"))
    before, scale = weights(model), scalers["G"].get_scale()
    train_step(model, batch_of(2, 3), fabric, 1e-3, scalers=scalers)
    changed = {k for k, v in weights(model).items() if (v != before[k]).any()}
    assert {k[0] for k in changed} == {"G"}
    assert (scalers["G"].get_scale(), scalers["D"].get_scale()) == (scale, scale / 2)
    kept = scalers["D"].state_dict()
    other = scalers_for(model, fabric)["D"]
    other.load_state_dict(kept)
    assert other.state_dict() == kept


def test_bfloat16_follows_float32():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    (half, _), (full, plain_fabric) = ready(fabric), ready()
    told = train_step(half, batch_of(0, 1), fabric, 1e-3)
    expected = train_step(full, batch_of(0, 1), plain_fabric, 1e-3)
    for name, value in expected.items():
        assert float(told[name]) == pytest.approx(float(value), rel=5e-2), name
    assert {p.dtype for p in half.networks["G"].parameters()} == {torch.float32}


# ---- models other than pix2pixHD


class Toy:
    """Three networks and two phases: `ab` lowers what b makes of a's output, `c` follows c's own."""

    translating, ensemble_mean = "a", ("a", "b")

    def __init__(self, together=True, shared_graph=False):
        torch.manual_seed(0)
        self.networks = {name: nn.Conv2d(1, 1, 1) for name in "abc"}
        self.optimizers = {
            "ab": torch.optim.SGD([p for n in "ab" for p in self.networks[n].parameters()], lr=0.0),
            "c": torch.optim.SGD(self.networks["c"].parameters(), lr=0.0),
        }
        self.simultaneous, self.shared_graph = together, shared_graph

    def setup(self, fabric):
        for name in "abc":
            self.networks[name] = fabric.setup_module(self.networks[name])
        self.optimizers = {k: fabric.setup_optimizers(v) for k, v in self.optimizers.items()}

    def begin_step(self, epoch, epoch_before):
        pass

    def phases(self):
        return (
            Phase("ab", self._ab, frozen=(self.networks["b"].bias,), retain_graph=self.shared_graph),
            Phase("c", self._c),
        )

    def _ab(self, batch):
        self.made = self.networks["b"](self.networks["a"](batch.source))
        self.judged = self.networks["c"](self.made)
        return {"fit": (self.made - batch.target).square().mean(), "judged": self.judged.square().mean()}

    def _c(self, batch):
        judged = self.judged if self.shared_graph else self.networks["c"](self.made.detach())
        return {"c": (judged - 1).square().mean()}

    def state(self):
        return {}

    def load_state(self, state):
        pass


def expected_toy(together, rate):
    """The same step written out for it."""
    toy = Toy()
    a, b, c = (toy.networks[n] for n in "abc")
    batch = batch_of(0, 2)
    made = b(a(batch.source))
    total = (made - batch.target).square().mean() + c(made).square().mean()
    ours = [*a.parameters(), b.weight]
    gradients = dict(zip(ours, torch.autograd.grad(total, ours), strict=True))
    judged = (c(made.detach()) - 1).square().mean()
    if not together:  # c is not changed by the first phase, so the order changes nothing for it
        assert torch.equal(judged, (c(made.detach()) - 1).square().mean())
    gradients |= dict(zip(c.parameters(), torch.autograd.grad(judged, list(c.parameters())), strict=True))
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
    told = train_step(toy, batch_of(0, 2), fabric, 0.1)
    assert set(told) == {"fit", "judged", "c"}
    after, expected = weights(toy), expected_toy(together, 0.1)
    for name in before:
        torch.testing.assert_close(after[name], expected[name], msg=name)
    assert torch.equal(after["b.bias"], before["b.bias"])  # held


def test_phases_in_turn_see_the_weights_of_the_phase_before():
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


def test_the_loop_trains_and_resumes_any_model(tmp_path):
    from pbvs.training import checkpoint
    from pbvs.training.loop import Job, Trainer

    def run(folder, stages):
        folder.mkdir(exist_ok=True)
        settings = config(stages=stages, ema=0.9)
        return Trainer(Job(folder, {}, Toy(), settings, Pairs(), 6, None), one_cpu(), lambda *t: None).run()

    two, four = ([{"epochs": n, "learning_rate": 0.1}] for n in (2, 4))
    run(tmp_path / "whole", four)
    run(tmp_path / "parts", two)
    run(tmp_path / "parts", four)
    whole, parts = (tmp_path / n / checkpoint.LAST for n in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert set(checkpoint.load_weights(whole, "a")[1]) == {"weight", "bias"}
