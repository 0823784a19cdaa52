"""Two processes (gloo) with one image each: the steps, the files and the stop of one process with two."""

import csv
import signal
import socket

import pytest
from small_runs import child, networks, train

from pbvs.core.errors import UsageError
from pbvs.training import checkpoint
from pbvs.training.faults import check_batches
from pbvs.training.schedule import TrainingConfig

TRAINING = {
    "stages": [{"epochs": 7, "learning_rate": 1e-4}],
    "batch_size": 4,
    "clip_norm": 0.5,
    "ema": 0.9,
    "checkpoint_every_images": 1000,
}
LOCAL = {"kind": "local", "enhancer_blocks": 1}
SYSTEM = {"pool_size": 3, "fix_global_epochs": 2}
OPTIONS = {
    "images_per_epoch": 4,
    "validates": True,
    "log_every_steps": 2,
    "generator": LOCAL,
    "system": SYSTEM,
}


def two(folder, signalled=None, **options):
    """Both processes as torchrun starts them; `signalled` sends the second and its workers a SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in ("0", "1"):
        environment = {
            "RANK": rank, "LOCAL_RANK": rank, "ROLE_RANK": rank, "GROUP_RANK": "0",
            "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ROLE_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
        signal_at = (signalled, signal.SIGTERM, True) if signalled and rank == "1" else None
        started.append(child(folder, environment, devices=2, signal_at=signal_at, **options))
    errors = [process.communicate()[1] for process in started]
    return [process.returncode for process in started], "\n".join(errors)


def rows_of(path):
    with path.open() as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_two_processes_take_the_steps_of_one_and_stop_together(tmp_path):
    """Seven steps of four images, at once in one process; or one by one, five steps or more in two processes.

    A run that several processes began may go on in one. (The worker reads two steps ahead of the stop.)
    """
    train(tmp_path / "one", training=TRAINING, **OPTIONS)
    folder, training = tmp_path / "two", TRAINING | {"accumulate": 2}
    codes, errors = two(folder, signalled=25, training=training, data_workers=1, **OPTIONS)
    assert codes == [143, 143], errors
    seen = checkpoint.load_state(folder / checkpoint.STATE)["images_seen"]
    assert seen in (20, 24)
    assert [row["images"] for row in rows_of(folder / "curves.csv")] == list(range(8, seen + 1, 8))
    train(folder, training=training, **OPTIONS)

    one, both = networks(tmp_path / "one"), networks(folder)
    assert set(one) == set(both)
    for name, value in one.items():
        # A bias in front of a norm has a gradient of nothing but rounding, which Adam makes steps of.
        limit = 1e-5 if name.endswith("weight") else 7 * 2 * 1e-4
        assert (value - both[name]).abs().max() < limit, name
    for name in ("curves.csv", "validation.csv"):
        for a, b in zip(rows_of(tmp_path / "one" / name), rows_of(folder / name), strict=True):
            assert a == pytest.approx(b, rel=1e-4), name  # the log has all processes' means
    assert [row["images"] for row in rows_of(folder / "validation.csv")] == [4, 8, 12, 16, 20, 24, 28]
    alone = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert sorted(p.name for p in folder.iterdir()) == alone


def test_a_batch_that_the_devices_do_not_divide_is_an_error():
    settings = TrainingConfig(stages=[{"epochs": 1, "learning_rate": 1e-3}], batch_size=2)
    check_batches(settings, 100, 2)
    with pytest.raises(UsageError, match="a batch of 2 cannot be shared by 4 devices"):
        check_batches(settings, 100, 4)
    in_parts = TrainingConfig(**(settings.model_dump() | {"batch_size": 4, "accumulate": 4}))
    with pytest.raises(UsageError, match="4 taken in 4 parts cannot be shared by 2 devices") as error:
        check_batches(in_parts, 100, 2)
    assert "a multiple of 8" in str(error.value)
