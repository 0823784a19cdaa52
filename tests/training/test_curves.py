"""Curves as a CSV that a resumed run continues exactly."""

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pbvs.training.curves import Curve, Curves


def test_rows_after_the_checkpoint_and_truncated_ones_are_dropped(tmp_path):
    path = tmp_path / "c.csv"
    curve = Curve(path, 0)
    for n in (10, 20, 30):
        curve.add(n, {"a": n / 3})
    whole = path.read_bytes()
    assert whole == b"images,a\n10,3.33333\n20,6.66667\n30,10\n"
    path.write_bytes(whole + b"4")  # of a row that began with 40
    again = Curve(path, 30)
    assert path.read_bytes() == whole
    again.add(40, {"a": 1.0})
    assert path.read_bytes() == whole + b"40,1\n"
    Curve(path, 15)
    assert path.read_bytes() == b"images,a\n10,3.33333\n"
    Curve(path, 5)
    assert not path.exists()


def test_a_new_column_and_a_missing_value(tmp_path):
    curve = Curve(tmp_path / "c.csv", 0)
    curve.add(1, {"a": 1.0})
    curve.add(2, {"b": 2.0})
    curve.add(3, {"a": 3.0})
    assert (tmp_path / "c.csv").read_text() == "images,a,b\n1,1,\n2,,2\n3,3,\n"


def test_tensorboard_has_the_same_numbers_and_the_pictures(tmp_path):
    with Curves(tmp_path, {}, 0) as curves:
        curves.add("training", 10, {"l2": 0.25})
        curves.add("validation", 10, {"score": 0.5})
        curves.add_picture(10, np.full((4, 12, 3), 9, np.uint8))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("training/l2")] == [(10, 0.25)]
    assert [(e.step, e.value) for e in board.Scalars("validation/score")] == [(10, 0.5)]
    assert [(e.step, e.width, e.height) for e in board.Images("validation/samples")] == [(10, 12, 4)]
    assert (tmp_path / "curves.csv").read_text() == "images,l2\n10,0.25\n"
    assert (tmp_path / "validation.csv").read_text() == "images,score\n10,0.5\n"
