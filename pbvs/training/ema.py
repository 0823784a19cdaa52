"""Moving averages of networks, as image synthesis evaluates them (Karras et al. 2018, section 4.1).

A step over B images weighs the average by `keep**B` and the new weights by the rest. `keep` is
`min(decay, (1 + n) / (10 + n))` after n images, so that the initial weights fade quickly (the rule of
TensorFlow's ExponentialMovingAverage with `num_updates`, Apache-2.0). `decay` counts images, not steps: 0.999
halves a network's weight in 693 images at any batch size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Averages of some networks, by their names.

    Args:
        networks: without wrapping; the averages start from their current weights.
        decay: the fraction kept per image, in (0,1).
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float):
        self.decay = decay
        self._followed = dict(networks)
        self.networks = {
            name: copy.deepcopy(network).requires_grad_(False).eval() for name, network in networks.items()
        }

    @torch.no_grad()
    def update(self, images_seen: int, images_now: int) -> None:
        """Follows the networks after a step over the last `images_now` of `images_seen` images."""
        keep = min(self.decay, (1 + images_seen) / (10 + images_seen)) ** images_now
        for name, average in self.networks.items():
            old, new = (list(net.parameters()) for net in (average, self._followed[name]))
            get_ema_multi_avg_fn(keep)(old, new, 0)  # type: ignore[no-untyped-call]
            for buffer, current in zip(average.buffers(), self._followed[name].buffers(), strict=True):
                buffer.copy_(current)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The averages' state dicts."""
        return {name: dict(network.state_dict()) for name, network in self.networks.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores `state`; a network that had no average starts one from its current weights."""
        for name, network in self.networks.items():
            network.load_state_dict(dict(state.get(name) or self._followed[name].state_dict()))
