"""Every kind of node by the name a task file uses. A new kind is one file and one line here."""

from __future__ import annotations

from pbvs.graph.node import NodeKind
from pbvs.graph.nodes.blend import BLEND
from pbvs.graph.nodes.channel_mix import CHANNEL_MIX
from pbvs.graph.nodes.grayscale import GRAYSCALE, INTENSITY
from pbvs.graph.nodes.lut import LUT
from pbvs.graph.nodes.whole_task import WHOLE_TASK
from pbvs.graph.trained import PIX2PIXHD

NODE_KINDS: dict[str, NodeKind] = {
    "band_mix": CHANNEL_MIX,
    "blend": BLEND,
    "grayscale": GRAYSCALE,
    "intensity": INTENSITY,
    "pix2pixhd": PIX2PIXHD,
    "task": WHOLE_TASK,
    "tone_table": LUT,
}
