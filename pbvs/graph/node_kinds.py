"""Every kind of node that a task file may name after `use`: the untrained ones, and the trained systems."""

from __future__ import annotations

from pbvs.graph.node import NodeKind
from pbvs.graph.nodes.blend import BLEND
from pbvs.graph.nodes.channel_mix import CHANNEL_MIX
from pbvs.graph.nodes.grayscale import GRAYSCALE, INTENSITY
from pbvs.graph.nodes.lut import LUT
from pbvs.graph.nodes.whole_task import WHOLE_TASK
from pbvs.graph.trained import trained_kind
from pbvs.systems.registry import SYSTEMS, find_system, installed_systems

UNTRAINED: dict[str, NodeKind] = {
    "blend": BLEND,
    "channel_mix": CHANNEL_MIX,
    "grayscale": GRAYSCALE,
    "intensity": INTENSITY,
    "lut": LUT,
    "task": WHOLE_TASK,
}
RENAMED = {"band_mix": "channel_mix", "tone_table": "lut"}  # kinds by their names in 0.1.0


def find_kind(use: str) -> NodeKind | None:
    """The kind of this name; None where there is none."""
    if use in UNTRAINED:
        return UNTRAINED[use]
    system = find_system(use)
    return None if system is None else trained_kind(system)


def known_kinds() -> list[str]:
    """All names, sorted."""
    return sorted({*UNTRAINED, *SYSTEMS, *installed_systems()})
