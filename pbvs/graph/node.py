"""What a kind of node must tell the graph, and what the graph gives a node to run with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

# A node at work: the images of its inputs, each levels `N,C,H,W float64 in [0,255]`, to one such image.
Operator = Callable[[list[Tensor]], Tensor]


class Params(BaseModel):
    """A node's settings in the task file; closed, so a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class InferenceOptions:
    """How networks compute while they translate.

    Attributes:
        precision: `32-true`, or `bf16-mixed` (autocast): faster where the device can; levels of the untrained
            published network then lie 1.2 of 255 off on average and 11 at most.
        in_strips: go layer by layer in strips of rows with the rest on disk, for images too large for
            memory; else that is done where memory runs out. See `pbvs.systems.pix2pixhd.strips`.
    """

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    in_strips: bool = False


class NodeContext(Protocol):
    """What a node may ask for when it is made ready to run."""

    @property
    def computing(self) -> InferenceOptions:
        """How the node's network is to compute."""

    @property
    def device(self) -> torch.device:
        """Where the node's network runs."""

    def trained(self, network: str, which: str = "best") -> tuple[dict[str, Any], Mapping[str, Tensor]]:
        """Header and weights of this node's trained network (`G`): its `best`, its `last`, or a file."""

    def translator(self, task: str) -> Operator:
        """The whole of another task, source levels in, stored levels (whole numbers) out."""


@dataclass(frozen=True)
class NodeKind:
    """One kind of node.

    Attributes:
        params: the model of its settings.
        n_inputs: fewest and most inputs.
        bands: its bands out, from (params, bands of the inputs, bands of the task's target);
            raises ValueError with words for the user when the inputs do not fit.
        prepare: makes the operator.
        trainable: whether it has weights of its own to train.
        reads: what one pixel of its image depends on: `area`, many pixels of its inputs; `pixel`, that one
            pixel of its only input; `sum`, no more of that pixel than the sum of its three bands.
    """

    params: type[Params]
    n_inputs: tuple[int, int]
    bands: Callable[[Any, list[int], int], int]
    prepare: Callable[[Any, NodeContext], Operator]
    trainable: bool = False
    reads: Literal["area", "pixel", "sum"] = "area"
