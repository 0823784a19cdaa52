"""How a 16-bit test input becomes 8-bit: by the rule and the numbers of the network's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pbvs.core.errors import CheckpointError, ImageError
from pbvs.prepare.capture import value_histogram
from pbvs.prepare.stretch import FULL, PERCENT, Percent, Stretch, Uint16Rule, stretch_of_histogram
from pbvs.training.run_record import RunRecord


@dataclass(frozen=True)
class Uint16Scaling:
    """The rule for the source of a task, see `pbvs.prepare.stretch`.

    Attributes:
        rule: `full`, `percentile` or `percentile_image`.
        percent: low and high, for the latter two.
        numbers: of `percentile`; None when the training data held no 16-bit image of the source.
    """

    rule: Uint16Rule
    percent: Percent = PERCENT
    numbers: Stretch | None = None

    @classmethod
    def of_record(cls, record: RunRecord, source: str) -> Uint16Scaling | None:
        """The rule that a network was trained with, for a source modality; None for weights without one."""
        if record.uint16 is None:
            return None
        percent, numbers = record.uint16_percent or PERCENT, record.stretches.get(source)
        stretch = None if numbers is None else (float(numbers[0]), float(numbers[1]))
        return cls(cast(Uint16Rule, record.uint16), (float(percent[0]), float(percent[1])), stretch)

    def stretch_of(self, image: Path) -> Stretch:
        """The values of a 16-bit image that become 0 and 255.

        Raises:
            ImageError: the rule has no numbers for it, or the image cannot be read.
        """
        if self.rule == "full":
            return FULL
        if self.rule == "percentile_image":
            return stretch_of_histogram(value_histogram(image), self.percent)
        if self.numbers is None:
            raise ImageError(
                "the image has 16 bits, and the rule `percentile` has no numbers for it: they come with a "
                "network that was trained on 16-bit images of this kind",
                where=image,
                next_step='convert it to 8 bits, or use data.uint16 = "full" or "percentile_image"',
            )
        return self.numbers


def resolve_scaling(trained: Mapping[str, Uint16Scaling], otherwise: Uint16Scaling) -> Uint16Scaling:
    """The rule that all trained networks of a graph share, or `otherwise` where none has one.

    Args:
        trained: the rules of the networks, by their names.
        otherwise: the task's own rule.

    Raises:
        CheckpointError: two were trained with different rules or numbers, so no input fits both.
    """
    first: tuple[str, Uint16Scaling] | None = None
    for name, rule in sorted(trained.items()):
        if first is not None and rule != first[1]:
            raise CheckpointError(
                f"{first[0]} and {name} were trained on 16-bit images scaled with different numbers: "
                f"{first[1]} and {rule}",
                next_step="train both on data prepared by one rule, or convert the inputs to 8 bits",
            )
        first = first or (name, rule)
    return first[1] if first else otherwise
