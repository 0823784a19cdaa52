"""Killed without warning and started again by the same command: the same weights, bit for bit."""

import signal

import pytest
import torch
from small_runs import ALL_ON, POOL, assert_last_is_the_state, child, train

from pbvs.training import checkpoint
from pbvs.training.interrupt import Interrupted

OPTIONS = {"validates": True, "training": ALL_ON | {"checkpoint_every_images": 4}, "system": POOL}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, **OPTIONS)
    return folder


def test_killed_twice_and_repeated_ends_with_the_same_weights_bit_for_bit(tmp_path, whole):
    """Killed while it reads by itself, then while two workers read for it."""
    folder, seen = tmp_path / "run", 0
    for killed_at, data_workers in ((9, 0), (23, 2)):
        killed = child(folder, signal_at=(killed_at, signal.SIGKILL), data_workers=data_workers, **OPTIONS)
        _, errors = killed.communicate()
        assert killed.returncode == -signal.SIGKILL, errors
        before, seen = seen, checkpoint.load_state(folder / checkpoint.STATE)["images_seen"]
        assert before < seen <= killed_at
        if data_workers:  # a worker reads ahead: the kill may fall between the two files of a checkpoint
            record, _ = checkpoint.load_weights(folder / checkpoint.LAST)
            assert before <= record.images_seen <= seen
        else:
            assert_last_is_the_state(folder, seen)
    assert train(folder, data_workers=2, **OPTIONS).images_now == 24 - seen
    for name in (checkpoint.LAST, checkpoint.BEST, "curves.csv", "validation.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_every_part_of_the_state_matters(tmp_path, whole):
    """Each part, spoilt, changes the end: none of them is written for nothing."""
    stopped = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        train(stopped, signal_at=(13, signal.SIGTERM), **OPTIONS)
    state = checkpoint.load_state(stopped / checkpoint.STATE)
    spoilt = {
        "networks": {n: {k: v + 1e-3 for k, v in s.items()} for n, s in state["networks"].items()},
        "averages": {n: {k: v + 1e-3 for k, v in s.items()} for n, s in state["averages"].items()},
        "optimizers": {n: s | {"state": {}} for n, s in state["optimizers"].items()},
        "model": {"pool": state["model"]["pool"] | {"n_asked": 0}},
        "images_seen": state["images_seen"] + 2,
        "best_score": 1e-6,
    }
    for part, value in spoilt.items():
        folder = tmp_path / part
        folder.mkdir()
        checkpoint.save_state(folder / checkpoint.STATE, state | {part: value})
        train(folder, **OPTIONS)
        ended, expected = (f / checkpoint.LAST for f in (folder, whole))
        assert ended.read_bytes() != expected.read_bytes(), part
