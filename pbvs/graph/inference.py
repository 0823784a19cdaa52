"""Averages of several translations of one image: by several checkpoints, and of the image turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pbvs.graph.node import Params

# Levels `N,C,H,W`, and whether they are transposed, to levels of the same size.
Translate = Callable[[Tensor, bool], Tensor]


class InferenceParams(Params):
    """How a trained network is put to use; has no part in its training.

    Attributes:
        checkpoints: whose images are averaged: `best`, `last`, or weights files of this node; `:plain` behind
            one takes the network itself in place of its moving average.
        weights: of the checkpoints in the average, relative to each other; none: all alike.
        turns: how many ways round each image is translated, turned back and averaged: 2: also mirrored left
            to right; 4: also up-down; 8: also transposed.
    """

    checkpoints: tuple[str, ...] = Field(default=("best",), min_length=1)
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    turns: Literal[1, 2, 4, 8] = 1

    @model_validator(mode="after")
    def _fit(self) -> InferenceParams:
        if self.weights is not None and len(self.weights) != len(self.checkpoints):
            raise ValueError(f"{len(self.checkpoints)} checkpoints have {len(self.weights)} weights")
        if self.weights is not None and not sum(self.weights):
            raise ValueError("every one of weights is 0")
        return self


def ensemble_mean(members: Sequence[Translate], params: InferenceParams) -> Callable[[Tensor], Tensor]:
    """The weighted mean of what `members` make of an image turned in each way; not rounded."""
    weights = params.weights or (1.0,) * len(members)
    if len(members) == params.turns == 1:
        only = members[0]
        return lambda levels: only(levels, False)

    def mean(levels: Tensor) -> Tensor:
        total = torch.zeros(())
        for translate, weight in zip(members, weights, strict=True):
            for turn in range(params.turns):
                made = undo(translate(turned(levels, turn), bool(turn & 4)), turn)
                total = total + made * (weight / sum(weights) / params.turns)
        return total

    return mean


def turned(images: Tensor, turn: int) -> Tensor:
    """`N,C,H,W` in one of the eight ways round: bit 0 mirrors left to right, 1 up-down, 2 transposes."""
    if turn & 1:
        images = images.flip(-1)
    if turn & 2:
        images = images.flip(-2)
    return images.transpose(-1, -2) if turn & 4 else images


def undo(images: Tensor, turn: int) -> Tensor:
    """Undoes `turned`."""
    if turn & 4:
        images = images.transpose(-1, -2)
    if turn & 2:
        images = images.flip(-2)
    return images.flip(-1) if turn & 1 else images
