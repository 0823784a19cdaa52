"""What stops a run: wrong batch sizes, weights that are not finite, no memory, no disk space."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pbvs.core.errors import CheckpointError, TrainingError, UsageError
from pbvs.networks.state_dicts import mismatch_error, mismatches
from pbvs.training.run_record import RunRecord
from pbvs.training.schedule import TrainingConfig

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def check_batches(config: TrainingConfig, images_per_epoch: int, processes: int) -> None:
    """Checks that an epoch fills a batch, and that the batch divides among processes and parts.

    Raises:
        UsageError: the processes and parts do not divide the batch.
        TrainingError: a batch is larger than an epoch: it would hold some pairs twice.
    """
    parts = processes * config.accumulate
    if config.batch_size % parts:
        in_parts = f" taken in {config.accumulate} parts" if config.accumulate > 1 else ""
        raise UsageError(
            f"a batch of {config.batch_size}{in_parts} cannot be shared by {processes} devices",
            where="training.batch_size",
            next_step=f"set a multiple of {parts}",
        )
    if config.batch_size > images_per_epoch:
        raise TrainingError(
            f"a batch of {config.batch_size} is larger than the data: an epoch has {images_per_epoch} images",
            where="training.batch_size",
            next_step="lower it, or raise data.draws_per_location",
        )


def check_networks(
    networks: Mapping[str, nn.Module], states: Mapping[str, Mapping[str, Tensor]], path: Path
) -> None:
    """Checks that a checkpoint's weights fit all networks.

    Raises:
        CheckpointError: they do not; every name and shape that differs is listed.
    """
    diffs = [
        f"{name}: this network is missing from the checkpoint" for name in networks if name not in states
    ]
    diffs += [f"{name}: this network is only in the checkpoint" for name in states if name not in networks]
    for name in networks:
        diffs += [f"{name}.{diff}" for diff in mismatches(networks[name], states.get(name, {}))]
    if diffs:
        raise mismatch_error(
            diffs, path, "resume with the settings it was begun with, or start over with --fresh"
        )


def check_finite(networks: Iterable[nn.Module], folder: Path) -> None:
    """Checks that all weights are finite: a gradient may overflow where the loss does not.

    Raises:
        TrainingError: a weight is not finite.
    """
    for network in networks:
        norm = get_total_norm([p.detach() for p in network.parameters()])
        if not torch.isfinite(norm):
            raise TrainingError(
                "weights are no longer finite, so they are not kept",
                where=folder,
                next_step="the last good checkpoint stays; lower the learning rate or set training.clip_norm",
            )


@contextmanager
def translate_errors(
    config: TrainingConfig, record: RunRecord, fabric: Fabric, folder: Path
) -> Iterator[None]:
    """Within the block, running out of memory or disk space becomes an error that says what to do.

    Raises:
        TrainingError: in place of torch's error of memory.
        CheckpointError: in place of the system's error of space.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the device's memory ran out: {str(error).splitlines()[0]}",
            where=folder,
            next_step=f"lower one of: {_what_to_lower(config, record, fabric)}; "
            "the same command then goes on from the last checkpoint (with --resume where settings changed)",
        ) from error
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise CheckpointError(
            f"no space is left: {error.strerror}",
            where=error.filename or folder,
            next_step="make room on the disk; the same command goes on from the last checkpoint",
        ) from error


def _what_to_lower(config: TrainingConfig, record: RunRecord, fabric: Fabric) -> str:
    size = "x".join(str(n) for n in record.size_px)
    options = [f"size_px (now {size})", f"training.crop_px (now {config.crop_px or 'the whole image'})"]
    if config.batch_size > config.accumulate:
        options.append(
            f"training.batch_size (now {config.batch_size}), or take it in more parts with "
            f"training.accumulate (now {config.accumulate})"
        )
    if not config.activation_checkpointing:
        options.append("stored activations, with training.activation_checkpointing=true")
    if getattr(fabric.strategy.precision, "precision", "") == "32-true":
        options.append("precision, with --precision bf16-mixed")
    return ", ".join(options)
