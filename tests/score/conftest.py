from __future__ import annotations

import pytest
import torch
from hub_fixtures import hub_with_standins, one_thread, standin_home

from pbvs.score.scorer import Scorer

__all__ = ["hub_with_standins", "one_thread", "standin_home"]


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    scorer = Scorer("standin", net="alex")  # AlexNet: a tenth of VGG's time
    run, cache = scorer.inception.of_resized, dict[bytes, dict[int, torch.Tensor]]()

    def cached(images: torch.Tensor) -> dict[int, torch.Tensor]:
        """The tests score the same few images many times."""
        rows = []
        for image in images.split(1):
            key = image.numpy().tobytes()
            if key not in cache:
                cache[key] = run(image)
            rows.append(cache[key])
        return {layer: torch.cat([row[layer] for row in rows]) for layer in rows[0]}

    scorer.inception.of_resized = cached  # type: ignore[method-assign]
    return scorer
