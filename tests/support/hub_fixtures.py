"""Fixtures of the metric weights: torch hub folders, empty or with stand-in files, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pbvs.perceptual.metric_weights import write_standin


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The images are small: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def standin_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("torch_home")
    write_standin(home, ["inception", "alexnet", "squeezenet1_1"])
    return home


@contextmanager
def hub_at(folder: Path) -> Iterator[Path]:
    """torch's hub in `folder`; yields where its checkpoints are."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    yield folder / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture
def hub_with_standins(standin_home: Path) -> Iterator[Path]:
    """The reference packages find stand-in files under the official names."""
    with hub_at(standin_home / "hub") as checkpoints:
        yield checkpoints


@pytest.fixture
def empty_hub(tmp_path: Path) -> Iterator[Path]:
    with hub_at(tmp_path / "hub") as checkpoints:
        yield checkpoints
