"""Pix2PixHD as a node: its settings in a task file, and its trained generator at work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from pbvs.core import pixels
from pbvs.graph.inference import InferenceParams, Translate, ensemble_mean
from pbvs.graph.node import InferenceOptions, NodeContext, NodeKind, Operator, Params
from pbvs.systems.pix2pixhd.adapt import BandRule
from pbvs.systems.pix2pixhd.losses import LossWeights
from pbvs.systems.pix2pixhd.network import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from pbvs.systems.pix2pixhd.strips import is_out_of_memory, run_in_strips
from pbvs.training.schedule import TrainingConfig

_LOG = logging.getLogger(__name__)
DEFAULT = InferenceOptions()


def _height_and_width(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


SizePx = Annotated[
    tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]], BeforeValidator(_height_and_width)
]


class InitFrom(Params):
    """Where a network's first weights come from: the node of another task, or files of the published code."""

    task: str | None = Field(default=None, description="trained before, by `pbvs train`")
    node: str | None = Field(default=None, description="of that task; none: the node of the same name")
    official: Path | None = Field(
        default=None,
        description="a `*_net_G.pth`; the `*_net_D.pth` beside it is taken too, where there is one",
    )
    bands: BandRule = Field(
        default="mean", description="how old bands become new ones, see pbvs.systems.pix2pixhd.adapt"
    )

    @model_validator(mode="after")
    def _one(self) -> InitFrom:
        if (self.task is None) == (self.official is None) or (self.official is not None and self.node):
            raise ValueError("give either task (and node), or official")
        return self


class Pix2PixHDParams(Params):
    """Network, losses and schedule of one Pix2PixHD.

    `size_px` (height, width; one number for a square) is the size the network works at; images come to
    it and leave it by `pixels.resize`. None is the task's own size.
    """

    size_px: SizePx | None = None
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: LossWeights = LossWeights()
    training: TrainingConfig
    init_weights: InitFrom | None = None
    inference: InferenceParams = InferenceParams()

    @property
    def of_training(self) -> dict[str, Any]:
        """All that decides the trained weights, JSON-like."""
        return self.model_dump(mode="json", exclude={"inference"})

    @model_validator(mode="after")
    def _agree(self) -> Pix2PixHDParams:
        if self.training.fix_global_epochs and self.generator.kind != "local":
            raise ValueError('training.fix_global_epochs is for generator.kind = "local"')
        if self.training.pool_size and not self.losses.adversarial:
            raise ValueError("training.pool_size is for a discriminator; both of its losses are 0")
        if not any(self.losses.model_dump().values()):
            raise ValueError("every one of losses is 0: there is nothing to learn")
        return self


def trained_generator(header: dict[str, Any], state: Mapping[str, Tensor]) -> Generator:
    """The generator of a checkpoint, by the checkpoint's own settings, on the CPU."""
    network = Generator(GeneratorConfig(**header["params"]["generator"]), *header["bands"])
    network.load_state_dict(dict(state), strict=True)
    return network


def trained_discriminator(header: dict[str, Any], state: Mapping[str, Tensor]) -> Discriminator:
    """The discriminator of a checkpoint, as `trained_generator`."""
    config = DiscriminatorConfig(**header["params"]["discriminator"])
    network = Discriminator(config, sum(header["bands"]))
    network.load_state_dict(dict(state), strict=True)
    return network


def _prepare(params: Pix2PixHDParams, around: NodeContext) -> Operator:
    """The operator follows each checkpoint's own settings, not the task file's of today."""

    def member(which: str) -> Translate:
        header, state = around.trained("G", which)
        network = trained_generator(header, state).to(around.device).eval()
        height, width = (int(side) for side in header["size_px"])

        def translate(levels: Tensor, is_transposed: bool) -> Tensor:
            size_px = (width, height) if is_transposed else (height, width)
            return translated(network, levels, size_px, around.computing)

        return translate

    average = ensemble_mean([member(which) for which in params.inference.checkpoints], params.inference)
    return lambda images: average(images[0])


@torch.inference_mode()
def translated(
    network: Generator, levels: Tensor, size_px: tuple[int, int], computing: InferenceOptions = DEFAULT
) -> Tensor:
    """Levels `N,C,H,W` through a trained generator at `size_px`, back at the size they came in."""
    own_size = (levels.shape[2], levels.shape[3])
    device = next(network.parameters()).device
    model = pixels.normalize(pixels.resize_float255(levels, size_px)).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=computing.precision == "bf16-mixed"):
        made = run_in_strips(network, model) if computing.in_strips else _whole(network, model)
    return pixels.resize_float255(pixels.denormalize(made.cpu()), own_size)


def _whole(network: Generator, model: Tensor) -> Tensor:
    """The network over whole images; where memory runs out, in strips."""
    try:
        made: Tensor = network(model)
        return made
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = f"{model.shape[2]} x {model.shape[3]}"
        _LOG.warning("not enough memory for %d image(s) of %s at once: in strips", len(model), size)
    return run_in_strips(network, model)


def _bands(params: Pix2PixHDParams, bands: list[int], target: int) -> int:
    return target


PIX2PIXHD = NodeKind(Pix2PixHDParams, (1, 1), _bands, _prepare, trainable=True)
