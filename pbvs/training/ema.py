"""Moving averages of networks, as image synthesis evaluates them (Karras et al. 2018, section 4.1).

A step over B images takes `keep**B` of the average and the rest of the new weights. `keep` is
`min(decay, (1 + n) / (10 + n))` after n images, so that the first weights do not weigh on a young average
(the rule of TensorFlow's ExponentialMovingAverage with `num_updates`, Apache-2.0). `decay` counts images,
not steps: 0.999 halves a network's part in 693 images whatever the batch size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Averages of some networks, by the names of these.

    Args:
        networks: as they are now, without wrapping; the averages begin with their weights.
        decay: an image's part that is kept, in (0,1).
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float):
        self.decay = decay
        self._followed = dict(networks)
        self.networks = {name: _frozen_copy(network) for name, network in networks.items()}

    @torch.no_grad()
    def update(self, images_seen: int, images_now: int) -> None:
        """Follows the networks after a step over the last `images_now` of `images_seen` images."""
        keep = min(self.decay, (1 + images_seen) / (10 + images_seen)) ** images_now
        for name, average in self.networks.items():
            old, new = (list(net.parameters()) for net in (average, self._followed[name]))
            get_ema_multi_avg_fn(keep)(old, new, 0)  # type: ignore[no-untyped-call]
            for mine, theirs in zip(average.buffers(), self._followed[name].buffers(), strict=True):
                mine.copy_(theirs)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The averages' state dicts."""
        return {name: dict(network.state_dict()) for name, network in self.networks.items()}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes back what `state` gave; a network that had no average begins one with its weights of now."""
        for name, network in self.networks.items():
            network.load_state_dict(dict(state.get(name) or self._followed[name].state_dict()))


def _frozen_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False).eval()
