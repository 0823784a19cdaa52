"""Pix2PixHD with the winning solution's loss, as two named phases for the loop: D, then G.

All losses are those before either step, as in the published code (NVIDIA/pix2pixHD `train.py`, BSD licence).
There the made image passes the discriminator twice: cut off from the generator for D's loss, and whole
for G's. Here one pass serves both: D's gradients are taken with respect to D's weights alone, and G's go
through the same graph to G's weights alone. The values are the same. D comes first because its part of
the graph is small to keep; G's is then freed while it is walked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pbvs.losses.adversarial import Features
from pbvs.networks.layers import init_weights, replay_bn_update, running_averages
from pbvs.perceptual.metric_weights import WeightsKind
from pbvs.systems.pix2pixhd.losses import GeneratorLoss, LossWeights, discriminator_terms
from pbvs.systems.pix2pixhd.network import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    stacked,
)
from pbvs.training.image_pool import ImagePool
from pbvs.training.system import Batch, Phase, unwrap


@dataclass(frozen=True)
class _Passes:
    """One batch after the networks, for both phases.

    Attributes:
        made: `N,C,H,W` in the target's type, with its graph into the generator; the target itself where the
            mask is false.
        judged_made: D's features of it, with their graph into D's weights and into `made`.
        judged_real: D's features of the target, with their graph into D's weights.
    """

    made: Tensor
    judged_made: Features
    judged_real: Features


class Pix2PixHD:
    """Networks, optimisers and phases of the conditional GAN; see `pbvs.training.system.TrainedModel`.

    `networks` and `optimizers` go by the names of the phases that change them.
    """

    simultaneous, translating, ensemble_mean = True, "G", ("G",)

    def __init__(
        self,
        generator: GeneratorConfig,
        discriminator: DiscriminatorConfig,
        bands: tuple[int, int],
        losses: LossWeights,
        betas: tuple[float, float],
        seed: int,
        metric_weights: WeightsKind,
        *,
        pool_size: int = 0,
        fix_global_epochs: int = 0,
    ):
        """Draws the first weights from `seed`.

        Args:
            bands: of source and target.
            pool_size: of the discriminator's pool of made images; 0: none.
            fix_global_epochs: epochs in which the outermost enhancer is trained alone. Its Adam then ends
                and one over the whole generator begins anew, as in the published code.

        Raises:
            WeightsError: a loss term's network has no weights of the kind `metric_weights`.
        """
        draw = torch.Generator().manual_seed(seed)
        self.networks: dict[str, nn.Module] = {"G": Generator(generator, *bands)}
        if losses.adversarial:
            self.networks["D"] = Discriminator(discriminator, sum(bands))
        for network in self.networks.values():
            init_weights(network, draw)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            # Fused: one pass over weights, gradients and moments, equal to rounding.
            name: torch.optim.Adam(network.parameters(), lr=0.0, betas=betas, fused=True)
            for name, network in self.networks.items()
        }
        self.loss = GeneratorLoss(losses, metric_weights)
        self.pool = ImagePool(pool_size, seed)
        self.fix_global_epochs, self._enhancers = fix_global_epochs, generator.local_enhancers
        self._held: tuple[nn.Parameter, ...] = ()
        self._passes: _Passes | None = None

    def setup(self, fabric: Fabric) -> None:
        """Moves everything to the device and wraps each network apart for distribution."""
        self._autocast, self._fabric = fabric.autocast, fabric
        self.loss = self.loss.to(fabric.device)
        for name in self.networks:
            self.networks[name], self.optimizers[name] = fabric.setup(
                self.networks[name], self.optimizers[name]
            )

    def begin_step(self, epoch: int, epoch_before: int) -> None:
        """Holds all but the outermost enhancer for the first epochs; its names are `model<n>_...`."""
        outer = f"model{self._enhancers}_"
        network, alone = unwrap(self.networks["G"]), epoch < self.fix_global_epochs
        frozen = [p for name, p in network.named_parameters() if alone and not name.startswith(outer)]
        self._held = tuple(frozen)
        if not alone and epoch_before < self.fix_global_epochs:
            self.optimizers["G"].state.clear()

    def state(self) -> dict[str, Any]:
        """The pool."""
        return {"pool": self.pool.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.pool.load_state(state["pool"])

    def phases(self) -> tuple[Phase, ...]:
        """The discriminator's phase if any term needs it, then the generator's."""
        generator = Phase("G", self._generator_terms, self._held)
        if "D" not in self.networks:
            return (generator,)
        return Phase("D", self._discriminator_terms, retain_graph=True), generator

    def _discriminator_terms(self, batch: Batch) -> dict[str, Tensor]:
        made, judge = self._make(batch), self.networks["D"]
        both = stacked(batch.source, made)
        if self.pool.size:  # then D may see another image than G's loss is about, in a pass of its own
            lowered = judge(self.pool.shared_query(both.detach(), self._fabric))
            judged_real = judge(stacked(batch.source, batch.target))
            judged_made = judge(both)
        else:
            before = running_averages(judge)
            lowered = judged_made = judge(both)
            after = running_averages(judge)
            judged_real = judge(stacked(batch.source, batch.target))
            replay_bn_update(judge, before, after)  # as by the published code's second pass
        self._passes = _Passes(made, judged_made, judged_real)
        return discriminator_terms(made=lowered, real=judged_real)

    def _generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        if "D" not in self.networks:
            return self._image_terms(self._make(batch), batch)
        assert self._passes is not None, "the generator's phase follows the discriminator's"
        passes, self._passes = self._passes, None  # nothing else may keep the graph alive
        adversarial = self.loss.adversarial_terms(passes.judged_made, passes.judged_real)
        return self._image_terms(passes.made, batch) | adversarial

    def _make(self, batch: Batch) -> Tensor:
        made = self.networks["G"](batch.source).to(batch.target.dtype)  # half under autocast
        # Where nothing is known of the target, the made image is made equal to it: no term sees a
        # difference there and no gradient comes from there.
        return torch.where(batch.mask, made, batch.target)

    def _image_terms(self, made: Tensor, batch: Batch) -> dict[str, Tensor]:
        with self._autocast():
            return self.loss.image_terms(made, batch.target, batch.mask)
