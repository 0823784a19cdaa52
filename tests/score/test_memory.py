"""What a judge remembers between scorings: the same numbers, only what is new is computed."""

import numpy as np
import pytest

from pbvs.score.memory import FileMemory, TargetFeatures, contents


def image(seed, size_px=(8, 8), bands=1):
    return np.random.default_rng(seed).integers(0, 256, (*size_px, bands), dtype=np.uint8)


class Counted:
    """Stands for the networks: counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def rows(self):
        self.asked += 1
        return {64: np.arange(64, dtype=np.float32) / 3, 192: np.full(192, 0.1, np.float32)}

    def distance(self):
        self.asked += 1
        return 1 / 3


@pytest.fixture
def networks():
    return Counted()


def test_what_is_remembered_is_bit_for_bit_what_was_computed(tmp_path, networks):
    for _ in range(2):
        memory = FileMemory("weights a", tmp_path)
        rows = memory.features(image(0), False, networks.rows)
        assert {layer: (row.dtype, row.tobytes()) for layer, row in rows.items()} == {
            layer: (row.dtype, row.tobytes()) for layer, row in Counted().rows().items()
        }
        assert memory.distance(image(0), image(1), networks.distance) == 1 / 3
        assert networks.asked == 2


def test_every_part_of_the_key_counts(tmp_path, networks):
    def ask(judge, made, real):
        FileMemory(judge, tmp_path).features(made, True, networks.rows)
        FileMemory(judge, tmp_path).distance(made, real, networks.distance)

    ask("weights a", image(0), image(1))
    for judge, made, real, new in (
        ("weights b", image(0), image(1), 2),  # other weights
        ("weights a", image(2), image(1), 2),  # another prediction
        ("weights a", image(0), image(3), 1),  # another target
        ("weights a", image(1), image(0), 2),  # the pair turned round
        ("weights a", image(0).reshape(4, 16, 1), image(1), 2),  # the same bytes in another shape
        ("weights a", image(0), image(1), 0),
    ):
        before = networks.asked
        ask(judge, made, real)
        assert networks.asked - before == new, (judge, new)


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"x" + b[41:], lambda b: b"foreign"]
)
def test_a_torn_or_foreign_file_is_made_anew(tmp_path, networks, spoil):
    memory = FileMemory("weights", tmp_path)
    memory.features(image(0), False, networks.rows)
    (path,) = tmp_path.rglob("*.npz")
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    rows = memory.features(image(0), False, networks.rows)
    assert networks.asked == 2
    assert rows[64][3] == 1.0
    assert path.read_bytes() == good
    memory.features(image(0), False, networks.rows)
    assert networks.asked == 2


def test_a_folder_that_cannot_be_written_to_is_told_of_once(tmp_path, networks, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    memory = FileMemory("weights", blocked)
    for _ in range(3):
        memory.features(image(0), False, networks.rows)
    assert networks.asked == 3
    (warning,) = caplog.records
    assert "nothing can be remembered" in warning.getMessage()


def test_validation_remembers_targets_alone(networks):
    memory = TargetFeatures()
    for _ in range(3):
        memory.features(image(0), True, networks.rows)
    assert networks.asked == 1
    for _ in range(3):
        memory.features(image(1), False, networks.rows)
        memory.distance(image(0), image(1), networks.distance)
    assert networks.asked == 7


def test_contents_tell_shape_and_order():
    base = image(0, (4, 6))
    told = {contents(x) for x in (base, base[::-1], base.reshape(6, 4, 1), base[:, ::-1], base.copy())}
    assert len(told) == 4
