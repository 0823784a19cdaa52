"""Pix2PixHD with the winning solution's loss, as two named phases for the loop: G, then D.

Both phases see the image made before either step, as in the published code (NVIDIA/pix2pixHD
`train.py`): the generator's step does not change what the discriminator learns from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pbvs.losses.total import GeneratorLoss, LossWeights, discriminator_terms
from pbvs.models.layers import first_weights
from pbvs.models.pix2pixhd import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, stacked
from pbvs.score.weights import WeightsKind


@dataclass(frozen=True)
class Batch:
    """One batch in model floats: source and target `N,C,H,W` in [-1,1], mask `N,1,H,W` bool."""

    source: Tensor
    target: Tensor
    mask: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """One optimiser's part of a step: the terms whose sum it lowers, and the networks it changes."""

    name: str
    terms: Callable[[Batch], dict[str, Tensor]]


class Pix2PixHD:
    """Networks, optimisers and phases of the conditional GAN.

    `networks` and `optimizers` go by the names of the phases that change them.
    """

    def __init__(
        self,
        generator: GeneratorConfig,
        discriminator: DiscriminatorConfig,
        bands: tuple[int, int],
        losses: LossWeights,
        betas: tuple[float, float],
        seed: int,
        judges: WeightsKind,
    ):
        """`bands`: of source and target. The first weights are drawn from `seed`.

        Raises:
            WeightsError: a loss term's network has no weights of the kind `judges`.
        """
        draw = torch.Generator().manual_seed(seed)
        self.networks: dict[str, nn.Module] = {"G": Generator(generator, *bands)}
        if losses.adversarial:
            self.networks["D"] = Discriminator(discriminator, sum(bands))
        for network in self.networks.values():
            first_weights(network, draw)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), lr=0.0, betas=betas)
            for name, network in self.networks.items()
        }
        self.loss = GeneratorLoss(losses, judges)
        self._made: Tensor | None = None

    def setup(self, fabric: Fabric) -> None:
        """Moves everything to the device and wraps each network apart for distribution."""
        self._autocast = fabric.autocast
        self._plain_d = self.networks.get("D")
        self.loss = self.loss.to(fabric.device)
        for name in self.networks:
            self.networks[name], self.optimizers[name] = fabric.setup(
                self.networks[name], self.optimizers[name]
            )

    def phases(self) -> tuple[Phase, ...]:
        """The generator's phase, then the discriminator's if any term needs it."""
        generator = Phase("G", self._generator_terms)
        return (generator, Phase("D", self._discriminator_terms)) if "D" in self.networks else (generator,)

    def _generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        made = self.networks["G"](batch.source).float()
        # Where nothing is known of the target, the made image is made equal to it: no term sees a
        # difference there and no gradient comes from there.
        made = torch.where(batch.mask, made, batch.target)
        self._made = made.detach()
        with self._autocast():
            terms = self.loss.image_terms(made, batch.target, batch.mask)
            if self._plain_d is not None:
                terms |= self._adversarial_terms(self._plain_d, made, batch)
        return terms

    def _adversarial_terms(self, judge: nn.Module, made: Tensor, batch: Batch) -> dict[str, Tensor]:
        judge.requires_grad_(False)  # this phase changes only the generator
        with torch.no_grad():
            real = judge(stacked(batch.source, batch.target))
        terms = self.loss.adversarial_terms(judge(stacked(batch.source, made)), real)
        judge.requires_grad_(True)
        return terms

    def _discriminator_terms(self, batch: Batch) -> dict[str, Tensor]:
        assert self._made is not None, "the discriminator's phase follows the generator's"
        judge = self.networks["D"]
        made, real = stacked(batch.source, self._made), stacked(batch.source, batch.target)
        return discriminator_terms(made=judge(made), real=judge(real))
