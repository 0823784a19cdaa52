"""What a kind of node tells the graph, and what the graph gives a node to run with. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pbvs.core.config import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pbvs.graph.picture import Picture
    from pbvs.training.run_record import RunRecord

# A node at work: the pictures of its inputs to one image, float255 `N,C,H,W` of any size.
Operator = Callable[[list["Picture"]], "Tensor"]


@dataclass(frozen=True)
class InferenceOptions:
    """How networks compute while they translate.

    Attributes:
        precision: `32-true`, or `bf16-mixed` (autocast): faster where the device can; values of the untrained
            published network then lie 1.2 of 255 off on average and 11 at most.
        in_strips: go layer by layer in strips of rows with the rest on disk, for images too large for
            memory; else that is done where memory runs out and the system can.
    """

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    in_strips: bool = False


class NodeContext(Protocol):
    """What a node may ask for when it is prepared to run."""

    @property
    def options(self) -> InferenceOptions:
        """How the node's network computes."""

    @property
    def device(self) -> torch.device:
        """Where the node's network runs."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the task's images."""

    def trained(self, which: str = "best") -> tuple[RunRecord, dict[str, dict[str, Tensor]]]:
        """Record and weights of this node, by network: its `best`, its `last`, or a file."""

    def translator(self, task: str) -> Operator:
        """The whole of another task, which writes whole numbers."""


@dataclass(frozen=True)
class NodeKind:
    """One kind of node.

    Attributes:
        params: the model of its settings.
        n_inputs: fewest and most inputs.
        bands: its bands out, from (params, bands of the inputs); raises ValueError with a message for the
            user when the inputs do not fit. None where only the graph knows: trained nodes, whole tasks.
        prepare: makes the operator.
        trained: whether it has weights of its own to train.
        reads: what one pixel of its image depends on: `area`, many pixels of its inputs; `pixel`, that one
            pixel of its only input; `sum`, no more of that pixel than the sum of its three bands.
    """

    params: type[Config]
    n_inputs: tuple[int, int]
    bands: Callable[[Any, list[int]], int] | None
    prepare: Callable[[Any, NodeContext], Operator]
    trained: bool = False
    reads: Literal["area", "pixel", "sum"] = "area"


def at_task_size(run: Callable[[list[Tensor]], Tensor], context: NodeContext) -> Operator:
    """`run` as an operator that is given its inputs as float255 at the task's size, not rounded."""
    return lambda pictures: run([picture.float255(context.size_px) for picture in pictures])
