"""What the benchmarks ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Number and model of the cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} x {named or platform.processor()}"
