import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pbvs.prepare.validity import PackedMask, valid_around_zeros


def by_whole_labelling(zeros: np.ndarray, corners_only: bool) -> np.ndarray:
    labels, n = ndimage.label(zeros, structure=np.ones((3, 3)))
    border = np.zeros(zeros.shape, bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    if corners_only:
        border[:] = False
        border[np.ix_([0, -1], [0, -1])] = True
    outside = np.unique(labels[border & zeros])
    assert n >= len(outside)
    return ~np.isin(labels, outside[outside > 0])


def by_bands(zeros: np.ndarray, corners_only: bool, rows: int) -> np.ndarray:
    height, width = zeros.shape
    asked = []

    def read(top: int, n_rows: int) -> np.ndarray:
        asked.append((top, n_rows))
        return zeros[top : top + n_rows]

    mask = valid_around_zeros((height, width), read, corners_only=corners_only, band_px=rows * width)
    assert asked == [(top, min(rows, height - top)) for top in range(0, height, rows)]
    return mask.get(0, 0, height, width)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    st.sampled_from((0.2, 0.4, 0.55, 0.7, 1.0)),
    st.integers(1, 9),
    st.booleans(),
)
def test_bands_give_what_the_whole_gives(seed, shape, share, rows, corners_only):
    zeros = np.random.default_rng(seed).random(shape) < share
    found = by_bands(zeros, corners_only, rows)
    assert np.array_equal(found, by_whole_labelling(zeros, corners_only))


def spiral(n: int) -> np.ndarray:
    """A path of zeros, one pixel wide, from the upper left corner to the middle."""
    zeros = np.zeros((n, n), bool)
    top, left, bottom, right = 0, 0, n - 1, n - 1
    while top <= bottom and left <= right:
        zeros[top, max(0, left - 2) : right + 1] = True
        zeros[top : bottom + 1, right] = True
        zeros[bottom, left : right + 1] = True
        zeros[top + 2 : bottom + 1, left] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return zeros


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 41])
def test_a_spiral_is_one_piece_through_all_bands(rows):
    zeros = spiral(41)
    assert not by_bands(zeros, True, rows)[zeros].any()
    cut = zeros.copy()
    cut[2, 1] = False  # the inner turns reach no corner any more
    assert np.array_equal(by_bands(cut, True, rows), by_whole_labelling(cut, True))
    assert by_bands(cut, True, rows)[cut].any()


def test_zeros_count_where_they_reach_out():
    zeros = np.zeros((9, 9), bool)
    zeros[0:3, 0:3] = True  # at a corner
    zeros[5, 4:] = True  # from the border inwards, no corner
    zeros[7, 2] = True  # inside
    by_corner, by_border = (by_bands(zeros, corners_only, 2) for corners_only in (True, False))
    assert not by_corner[0:3, 0:3].any()
    assert (~by_corner).sum() == 9
    assert (~by_border).sum() == 9 + 5
    assert by_border[7, 2]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 20), st.integers(1, 40))
def test_packed_masks_give_back_any_part(data, height, width):
    mask = np.random.default_rng(height * 41 + width).random((height, width)) < 0.5
    packed = PackedMask(height, width)
    step = data.draw(st.integers(1, height))
    for top in range(0, height, step):
        packed.put_rows(top, mask[top : top + step])
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    part = packed.get(top, left, rows, columns)
    assert part.dtype == bool
    assert np.array_equal(part, mask[top : top + rows, left : left + columns])
