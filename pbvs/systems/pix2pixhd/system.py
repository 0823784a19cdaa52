"""Pix2PixHD with the winning solution's loss, as two named phases for the loop: D, then G.

All losses are those before either step, as in the published code (NVIDIA/pix2pixHD `train.py`, BSD licence).
There the fake image passes the discriminator twice: detached from the generator for D's loss, and attached
for G's. Here one pass serves both: D's gradients are taken with respect to D's weights alone, and G's go
through the same graph to G's weights alone. The values are the same. D comes first because its part of
the graph is small to keep; G's is then freed while it is walked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pbvs.core.errors import UsageError
from pbvs.dataset.batches import Batch
from pbvs.losses.adversarial import Features
from pbvs.networks.layers import init_weights, replay_bn_update, running_averages
from pbvs.systems.config import BandRule
from pbvs.systems.pix2pixhd import official
from pbvs.systems.pix2pixhd.adapt import adapt_discriminator, adapt_generator, generator_bands
from pbvs.systems.pix2pixhd.config import Pix2PixHDConfig
from pbvs.systems.pix2pixhd.losses import GeneratorLoss, discriminator_losses
from pbvs.systems.pix2pixhd.network import Discriminator, Generator, stacked
from pbvs.systems.pix2pixhd.strips import run_in_strips
from pbvs.training.image_pool import ImagePool
from pbvs.training.system import Phase, SchedulePoint, System, SystemContext, unwrap


@dataclass(frozen=True)
class _Passes:
    """One batch after the networks, for both phases.

    Attributes:
        fake: `N,C,H,W` in the target's type, with its graph into the generator; the target itself where the
            mask is false.
        fake_features: D's features of it, with their graph into D's weights and into `fake`.
        real_features: D's features of the target, with their graph into D's weights.
    """

    fake: Tensor
    fake_features: Features
    real_features: Features


class Pix2PixHD(System):
    """The conditional GAN; networks and optimisers go by the names of the phases that change them.

    In the first `fix_global_epochs` epochs the outermost enhancer is trained alone. Its Adam then ends and
    one over the whole generator begins anew, as in the published code.

    Raises:
        WeightsError: a loss term's network has no weights of the context's kind.
    """

    translators = ("G",)
    simultaneous = True

    def __init__(self, config: Pix2PixHDConfig, context: SystemContext) -> None:
        rng = torch.Generator().manual_seed(context.seed)
        bands = context.bands["source"], context.bands["target"]
        self.networks: dict[str, nn.Module] = {"G": Generator(config.generator, *bands)}
        if config.losses.adversarial:
            self.networks["D"] = Discriminator(config.discriminator, sum(bands))
        for network in self.networks.values():
            init_weights(network, rng)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            # Fused: one pass over weights, gradients and moments, equal to rounding.
            name: torch.optim.Adam(
                network.parameters(), lr=0.0, betas=config.training.betas_of(name), fused=True
            )
            for name, network in self.networks.items()
        }
        self.loss = GeneratorLoss(config.losses, context.metric_weights)
        self.pool = ImagePool(config.pool_size, context.seed)
        self.fix_global_epochs = config.fix_global_epochs
        self._outer_enhancer = f"model{config.generator.local_enhancers}_"  # its parameters' names begin so
        self._frozen: tuple[nn.Parameter, ...] = ()
        self._passes: _Passes | None = None

    def setup(self, fabric: Fabric) -> None:
        """Moves everything to the device and wraps each network apart for distribution."""
        self._autocast, self._fabric = fabric.autocast, fabric
        self.loss = self.loss.to(fabric.device)
        super().setup(fabric)

    def begin_step(self, point: SchedulePoint) -> None:
        """Freezes all but the outermost enhancer for the first epochs."""
        alone = point.epoch < self.fix_global_epochs
        named = unwrap(self.networks["G"]).named_parameters()
        self._frozen = tuple(p for name, p in named if alone and not name.startswith(self._outer_enhancer))
        if not alone and point.previous_epoch < self.fix_global_epochs:
            self.optimizers["G"].state.clear()

    def state(self) -> dict[str, Any]:
        """The pool."""
        return {"pool": self.pool.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the pool."""
        self.pool.load_state(state["pool"])

    def phases(self, point: SchedulePoint) -> tuple[Phase, ...]:
        """The discriminator's phase if any term needs it, then the generator's."""
        generator = Phase("G", self._generator_losses, self._frozen)
        if "D" not in self.networks:
            return (generator,)
        return Phase("D", self._discriminator_losses, retain_graph=True), generator

    def _discriminator_losses(self, batch: Batch) -> dict[str, Tensor]:
        fake, discriminator = self._fake(batch), self.networks["D"]
        pair = stacked(batch.source, fake)
        if self.pool.size:  # then D may see another image than G's loss is about, in a pass of its own
            lowered = discriminator(self.pool.shared_query(pair.detach(), self._fabric))
            real_features = discriminator(stacked(batch.source, batch.target))
            fake_features = discriminator(pair)
        else:
            before = running_averages(discriminator)
            lowered = fake_features = discriminator(pair)
            after = running_averages(discriminator)
            real_features = discriminator(stacked(batch.source, batch.target))
            replay_bn_update(discriminator, before, after)  # as by the published code's second pass
        self._passes = _Passes(fake, fake_features, real_features)
        return discriminator_losses(fake=lowered, real=real_features)

    def _generator_losses(self, batch: Batch) -> dict[str, Tensor]:
        if "D" not in self.networks:
            return self._image_losses(self._fake(batch), batch)
        assert self._passes is not None, "the generator's phase follows the discriminator's"
        passes, self._passes = self._passes, None  # nothing else may keep the graph alive
        adversarial = self.loss.adversarial(passes.fake_features, passes.real_features)
        return self._image_losses(passes.fake, batch) | adversarial

    def _fake(self, batch: Batch) -> Tensor:
        fake = self.networks["G"](batch.source).to(batch.target.dtype)  # half under autocast
        # Where the target is unknown, the fake image is set to it: no loss sees a difference there and no
        # gradient comes from there.
        return torch.where(batch.mask, fake, batch.target)

    def _image_losses(self, fake: Tensor, batch: Batch) -> dict[str, Tensor]:
        with self._autocast():
            return self.loss.image(fake, batch.target, batch.mask)

    # ---- inference

    @classmethod
    def inference_networks(cls, config: Pix2PixHDConfig, bands: Mapping[str, int]) -> dict[str, nn.Module]:
        """The generator."""
        return {"G": Generator(config.generator, bands["source"], bands["target"])}

    @classmethod
    def translate(cls, networks: Mapping[str, nn.Module], source: Tensor) -> Tensor:
        """One pass of the generator; the same size."""
        fake: Tensor = networks["G"](source)
        return fake

    @classmethod
    def translate_in_strips(cls, networks: Mapping[str, nn.Module], source: Tensor) -> Tensor:
        """Layer by layer in strips of rows, see `pbvs.systems.pix2pixhd.strips`."""
        generator = networks["G"]
        assert isinstance(generator, Generator)
        return run_in_strips(generator, source)

    # ---- weights from elsewhere, and for others

    def load_pretrained(
        self, states: Mapping[str, Mapping[str, Tensor]], rule: BandRule, bands: Mapping[str, int] | None
    ) -> dict[str, Any]:
        """Loads weights of other bands, fewer enhancers or scales too; see `pbvs.systems.pix2pixhd.adapt`."""
        generator, discriminator = self.networks["G"], self.networks.get("D")
        assert isinstance(generator, Generator)
        adapted = {"generator": adapt_generator(generator, states["G"], rule)}
        if isinstance(discriminator, Discriminator) and states.get("D"):
            adapted["discriminator"] = adapt_discriminator(
                discriminator, states["D"], generator_bands(states["G"])[0], generator.bands_in, rule
            )
        return {
            name: {**adaptation.as_dict(), "summary": f"{name} {adaptation.summary()}"}
            for name, adaptation in adapted.items()
        }

    @classmethod
    def read_official(cls, path: Path) -> dict[str, Mapping[str, Tensor]]:
        """A `*_net_G.pth`, and the `*_net_D.pth` beside it where there is one."""
        states: dict[str, Mapping[str, Tensor]] = {"G": official.read_official(path)}
        discriminator_file = path.with_name(path.name.replace("_net_G", "_net_D"))
        if discriminator_file != path and discriminator_file.is_file():
            states["D"] = official.read_official(discriminator_file)
        return states

    @classmethod
    def from_official(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
        """See `pbvs.systems.pix2pixhd.official.from_official`."""
        return official.from_official(config, state)

    @classmethod
    def export(
        cls,
        config: Pix2PixHDConfig,
        bands: Mapping[str, int],
        states: Mapping[str, Mapping[str, Tensor]],
        folder: Path,
        *,
        overwrite: bool,
    ) -> dict[Path, str]:
        """`latest_net_G.pth` and, where there is a discriminator, `latest_net_D.pth`."""
        networks: dict[str, Generator | Discriminator] = {
            "G": Generator(config.generator, bands["source"], bands["target"])
        }
        if states.get("D"):
            networks["D"] = Discriminator(config.discriminator, bands["source"] + bands["target"])
        existing = [path for name in networks if (path := official.official_path(folder, name)).exists()]
        if existing and not overwrite:
            raise UsageError("the file exists", where=existing[0], next_step="add --overwrite")
        for name, network in networks.items():
            network.load_state_dict(dict(states[name]), strict=True)
        paths = official.write_official(folder, networks)
        return {
            path: str(official.to_official(network)[0])
            for path, network in zip(paths, networks.values(), strict=True)
        }
