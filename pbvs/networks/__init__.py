"""Building blocks that several systems use."""

from typing import Literal

NormName = Literal["instance", "batch"]
