"""A trained node at work, whatever its system: checkpoints and orientations averaged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pbvs.core.errors import CheckpointError, UsageError
from pbvs.dataset.views import SOURCE
from pbvs.graph.node import InferenceOptions, NodeContext, NodeKind, Operator
from pbvs.systems.config import InferenceConfig, TrainedConfig
from pbvs.systems.registry import SystemRecord, system_named

if TYPE_CHECKING:
    from torch import Tensor

    from pbvs.graph.picture import Picture
    from pbvs.training.run_record import RunRecord
    from pbvs.training.system import Translation

_LOG = logging.getLogger(__name__)
DEFAULT = InferenceOptions()

# A picture and one of eight orientations to the translated float255 image, the orientation undone.
Member = Callable[["Picture", int], "Tensor"]


def trained_kind(system: SystemRecord) -> NodeKind:
    """The kind of node that is trained by a system."""
    return NodeKind(system.config, (1, 1), None, prepare_trained, trained=True)


def prepare_trained(config: TrainedConfig, context: NodeContext) -> Operator:
    """The operator of a trained node; it follows each checkpoint's own settings, not today's task file.

    Raises:
        CheckpointError: weights are missing, or were trained by another version of the system.
    """
    members = [_member(*context.trained(which), context) for which in config.inference.checkpoints]
    return ensemble_mean(members, config.inference, context.size_px)


def _member(record: RunRecord, states: dict[str, dict[str, Tensor]], context: NodeContext) -> Member:
    import torch

    from pbvs.core import pixels

    translation, system = load_translation(record, states), system_named(record.system)
    for network in translation.networks.values():
        network.to(context.device)
    config = system.config.model_validate(record.config)
    view = system.views_of(config)[SOURCE]
    read_px = (record.size_px[0] // view.read_low, record.size_px[1] // view.read_low)

    def translate(picture: Picture, orientation: int) -> Tensor:
        images = [view.plain(image) for image in picture.stored(read_px)]
        whole = torch.cat([pixels.float255_from_stored(image) for image in images])
        return undo(run(translation, turn(whole, orientation), context.options), orientation)

    return translate


def load_translation(record: RunRecord, states: dict[str, dict[str, Tensor]]) -> Translation:
    """The networks of a checkpoint that translate, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: another version of the system trained them, or they do not fit.
    """
    from pbvs.networks.state_dicts import load_strictly
    from pbvs.training.system import Translation

    system = system_named(record.system)
    if record.version != system.version:
        raise CheckpointError(
            f"the weights of {record.task}.{record.node} were trained by version {record.version} of "
            f"{record.system}; this is version {system.version}",
            next_step="retrain, or translate with the version of pbvs that trained them",
        )
    code = system.load()
    networks = code.inference_networks(system.config.model_validate(record.config), record.bands)
    for name, network in networks.items():
        load_strictly(network, states.get(name, {}), where=f"{record.task}.{record.node}: {name}")
    return Translation(code, networks).eval()


def run(translation: Translation, images: Tensor, options: InferenceOptions = DEFAULT) -> Tensor:
    """float255 `N,C,H,W` through a system's networks to float255 on the CPU, not rounded."""
    import torch

    from pbvs.core import pixels
    from pbvs.core.device import is_out_of_memory

    source = pixels.normalize(images).to(translation.device)
    bf16 = options.precision == "bf16-mixed"
    with torch.inference_mode(), torch.autocast(translation.device.type, torch.bfloat16, enabled=bf16):
        if options.in_strips:
            return pixels.denormalize(translation.in_strips(source))
        try:
            return pixels.denormalize(translation(source).cpu())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = f"{source.shape[2]} x {source.shape[3]}"
            _LOG.warning("not enough memory for %d image(s) of %s at once: in strips", len(source), size)
            try:
                return pixels.denormalize(translation.in_strips(source))
            except UsageError:
                raise error from None  # the system has no such way


def ensemble_mean(members: Sequence[Member], config: InferenceConfig, size_px: tuple[int, int]) -> Operator:
    """The weighted mean of what `members` make of an image in each orientation; not rounded.

    A single member's image keeps its own size; several are averaged at the task's `size_px`.
    """
    from pbvs.core import pixels

    weights = config.weights or (1.0,) * len(members)

    def mean(pictures: list[Picture]) -> Tensor:
        parts = []
        for member, weight in zip(members, weights, strict=True):
            for orientation in range(config.tta):
                image = member(pictures[0], orientation)
                image = image if len(members) == 1 else pixels.resize_float255(image, size_px)
                parts.append(image * (weight / sum(weights) / config.tta))
        return sum(parts[1:], parts[0])

    return mean


def turn(images: Tensor, orientation: int) -> Tensor:
    """`N,C,H,W` in one of eight orientations: bit 0 mirrors left to right, 1 up-down, 2 transposes."""
    if orientation & 1:
        images = images.flip(-1)
    if orientation & 2:
        images = images.flip(-2)
    return images.transpose(-1, -2) if orientation & 4 else images


def undo(images: Tensor, orientation: int) -> Tensor:
    """Undoes `turn`."""
    if orientation & 4:
        images = images.transpose(-1, -2)
    if orientation & 2:
        images = images.flip(-2)
    return images.flip(-1) if orientation & 1 else images
