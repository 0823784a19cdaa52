from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pbvs.perceptual.metric_weights import write_standin
from pbvs.score.scorer import Scorer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The images are small: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="session")
def standin_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("torch_home")
    write_standin(home, ["inception", "alexnet", "squeezenet1_1"])
    return home


@pytest.fixture
def hub_with_standins(standin_home: Path) -> Iterator[Path]:
    """The reference packages find stand-in files under the official names."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(standin_home / "hub"))
    yield standin_home / "hub" / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture
def empty_hub(tmp_path: Path) -> Iterator[Path]:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)
