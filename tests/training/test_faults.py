"""What goes wrong says so, and the last good checkpoint stays."""

import os
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from small_runs import Fixed, small_system, train, trainer
from untrained import record_of

from pbvs.core.device import make_fabric
from pbvs.core.errors import CheckpointError, TrainingError, UsageError
from pbvs.training import checkpoint
from pbvs.training.interrupt import Interrupted


@pytest.fixture
def stopped(tmp_path):
    """A run with a checkpoint at 8 images."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(folder, signal_at=(7, signal.SIGINT))
    return folder


def test_memory_that_runs_out_says_what_to_lower(stopped, monkeypatch):
    def no_memory(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    before = (stopped / checkpoint.STATE).read_bytes()
    monkeypatch.setattr("pbvs.training.loop.train_step", no_memory)
    with pytest.raises(TrainingError, match=r"memory ran out: .* Tried to allocate 2.00 GiB\.\n") as error:
        train(stopped)
    for word in (
        "size_px (now 32x32)",
        "crop_px (now the whole image)",
        "batch_size (now 2)",
        "training.accumulate (now 1)",
        "activation_checkpointing=true",
        "--precision bf16-mixed",
        "last checkpoint",
    ):
        assert word in str(error.value), word
    assert "GPU 0 has" not in str(error.value)
    assert (stopped / checkpoint.STATE).read_bytes() == before
    with pytest.raises(TrainingError) as error:
        train(stopped, training={"activation_checkpointing": True, "crop_px": 32, "accumulate": 2})
    assert "activation_checkpointing=true" not in str(error.value)
    assert "crop_px (now 32)" in str(error.value)
    assert "batch_size" not in str(error.value)
    monkeypatch.undo()
    assert train(stopped).images_seen == 24


def test_no_space_for_the_state_leaves_the_one_before(stopped):
    """/dev/full is a disk without space; an atomic write goes to a temporary file first."""
    path = stopped / checkpoint.STATE
    before, state = path.read_bytes(), checkpoint.load_state(path)
    tmp_path = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_native_id()}.part{path.suffix}")
    tmp_path.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left on device; the one before it is still there"):
        checkpoint.save_state(path, state)
    assert path.read_bytes() == before
    assert not tmp_path.exists()
    assert checkpoint.load_state(path)["images_seen"] == 8


def test_weights_that_cannot_be_written_leave_those_before(tmp_path):
    """A limit on the size of files stands for a disk that is full."""
    path, system = tmp_path / "w.safetensors", small_system()
    checkpoint.save_weights(path, system.networks, record_of())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written: .*File too large") as error:
            checkpoint.save_weights(path, system.networks, record_of(images_seen=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "make room on the disk" in str(error.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_no_space_for_curves_says_so(stopped, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", "curves.csv")

    monkeypatch.setattr("pbvs.training.curves.Curve.add", full)
    with pytest.raises(CheckpointError, match=r"no space is left(.|\n)*curves.csv(.|\n)*make room"):
        train(stopped)
    monkeypatch.setattr("pbvs.training.curves.Curve.add", lambda *a: Path("/none/there").read_text())
    with pytest.raises(FileNotFoundError):  # other errors of the system stay as they are
        train(stopped)


def test_a_checkpoint_of_other_networks_lists_every_difference(stopped):
    before = (stopped / checkpoint.STATE).read_bytes()
    with pytest.raises(CheckpointError, match="are of another network") as error:
        trainer(stopped, generator={"channels": 6, "blocks": 0}, losses={"gan": 0, "feature_matching": 0})
    mine = small_system(generator={"channels": 6, "blocks": 0}).networks["G"].state_dict()
    theirs = small_system().networks["G"].state_dict()
    message = str(error.value)
    for name in mine.keys() | theirs.keys():
        same = name in mine and name in theirs and mine[name].shape == theirs[name].shape
        assert (f"G.{name}:" in message) != same, name
    assert "D: this network is only in the checkpoint" in message
    assert "--fresh" in message
    assert (stopped / checkpoint.STATE).read_bytes() == before


def test_truncated_files_say_so(tmp_path):
    folder = tmp_path / "run"
    train(folder)
    best, state = folder / checkpoint.BEST, folder / checkpoint.STATE
    for path in (best, state):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="truncated, corrupt"):
        checkpoint.load_weights(best)
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        train(folder)
    assert "kept aside" in str(error.value)
    with pytest.raises(CheckpointError, match="no trained weights"):
        checkpoint.load_weights(folder / "none.safetensors")
    torch.save({"images_seen": 3}, state)
    with pytest.raises(CheckpointError, match="another version"):
        checkpoint.load_state(state)
    assert UsageError.exit_code == 2
    assert CheckpointError.exit_code == 1


def test_a_batch_larger_than_the_data_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="a batch of 7 is larger than the data: an epoch has 6 images"):
        train(tmp_path / "run", training={"batch_size": 7})
    assert list((tmp_path / "run").iterdir()) == []


def test_images_of_unequal_sizes_are_named(tmp_path):
    from pbvs.core.errors import ImageError

    class Unequal(torch.utils.data.Dataset):
        def __getitem__(self, n):
            raise ImageError(
                "source and target of place differ in size: (32, 32) and (16, 16)", where="x.png"
            )

    for data_workers in (0, 1):  # a worker's error comes as it was raised there
        with pytest.raises(ImageError, match="differ in size") as error:
            train(tmp_path / "run", dataset=Unequal(), data_workers=data_workers)
        assert error.value.where == "x.png"
        assert "Traceback" not in str(error.value)


def test_a_worker_that_dies_says_what_may_help(tmp_path):
    class Dying(torch.utils.data.Dataset):
        def __getitem__(self, n):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"process that loads images died(.|\n)*lower --data-workers"):
        train(tmp_path / "run", dataset=Dying(), data_workers=1)


def test_float16_without_a_gpu_says_what_to_use():
    with pytest.raises(UsageError, match="float16 is for CUDA devices") as error:
        make_fabric("cpu", precision="16-mixed")
    assert "bf16-mixed" in str(error.value)


def test_a_second_signal_stops_at_once_but_a_launcher_s_echo_does_not(monkeypatch):
    from pbvs.training.interrupt import StopRequest

    now = [100.0]
    monkeypatch.setattr("pbvs.training.interrupt.time.monotonic", lambda: now[0])
    request = StopRequest()
    assert request.agreed() is None
    request.receive(signal.SIGINT, None)
    now[0] = 101.0
    request.receive(signal.SIGTERM, None)
    assert request.agreed() == signal.SIGINT
    now[0] = 103.0
    with pytest.raises(Interrupted, match="SIGTERM; the last checkpoint stays"):
        request.receive(signal.SIGTERM, None)


def test_a_validation_that_fails_loses_nothing(tmp_path):
    class Failing(Fixed):
        def score(self, translation, images_seen):
            if images_seen == 12:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().score(translation, images_seen)

    with pytest.raises(TrainingError, match="memory ran out"):
        train(tmp_path / "run", validator=Failing(0.5, 0.4))
    state = checkpoint.load_state(tmp_path / "run" / checkpoint.STATE)
    assert (state["images_seen"], state["validated_at"], state["best_score"]) == (12, 6, 0.5)
    validator = Fixed(0.3, 0.2, 0.1)
    assert train(tmp_path / "run", validator=validator).images_now == 12
    assert validator.validated == [12, 18, 24]
