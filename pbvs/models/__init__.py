"""Where `from_official` lay in pbvs 0.1.0; it is `pbvs.systems.from_official(NAME, config, state)` now."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def from_official(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """As `pbvs.systems.from_official("pix2pixhd", config, state)`; goes with the next version."""
    from pbvs import systems

    message = 'pbvs.models.from_official is now pbvs.systems.from_official("pix2pixhd", ...)'
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return systems.from_official("pix2pixhd", config, state)
