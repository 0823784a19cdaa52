"""Every kind of node by the name a task file uses. A new kind is one file and one line here."""

from __future__ import annotations

from pbvs.modules.band_mix import BAND_MIX
from pbvs.modules.blend import BLEND
from pbvs.modules.grayscale import GRAYSCALE, INTENSITY
from pbvs.modules.node import NodeKind
from pbvs.modules.pix2pixhd import PIX2PIXHD
from pbvs.modules.tone_table import TONE_TABLE
from pbvs.modules.whole_task import WHOLE_TASK

NODE_KINDS: dict[str, NodeKind] = {
    "band_mix": BAND_MIX,
    "blend": BLEND,
    "grayscale": GRAYSCALE,
    "intensity": INTENSITY,
    "pix2pixhd": PIX2PIXHD,
    "task": WHOLE_TASK,
    "tone_table": TONE_TABLE,
}
