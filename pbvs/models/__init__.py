"""Where the published pix2pixHD's files were read and written in pbvs 0.1.0; goes with the next version.

`from_official(config, state)` is `pbvs.systems.from_official("pix2pixhd", config, state)` now; the others are
in `pbvs.systems.pix2pixhd.official`.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

_MOVED = ("from_official", "load_official", "to_official", "write_official")


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module 'pbvs.models' has no attribute {name!r}")
    now = "pbvs.systems.pix2pixhd.official"
    warnings.warn(f"pbvs.models.{name} is now {now}.{name}", DeprecationWarning, stacklevel=2)
    return getattr(import_module(now), name)
