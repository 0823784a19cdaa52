"""Where an image of any size holds data, kept at a bit a pixel and found band of rows by band of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pbvs.core.types import Mask

_BAND_PX = 1 << 22  # pixels that are labelled at once: an image of the usual size is one band


class PackedMask:
    """An `H,W` bool image at a bit a pixel: 50 MB for 20,000 x 20,000. All False at first."""

    def __init__(self, height_px: int, width_px: int) -> None:
        self.height_px, self.width_px = height_px, width_px
        self._bits: NDArray[np.uint8] = np.zeros((height_px, (width_px + 7) // 8), np.uint8)

    def put_rows(self, top: int, mask: Mask) -> None:
        """Stores whole rows, `h,W` bool, from row `top` on."""
        self._bits[top : top + len(mask)] = np.packbits(mask, axis=1)

    def get(self, top: int, left: int, height: int, width: int) -> Mask:
        """`height,width` bool, a part of the image."""
        first = left // 8
        bits = self._bits[top : top + height, first : (left + width + 7) // 8]
        mask: Mask = np.unpackbits(bits, axis=1).view(bool)[:, left - 8 * first :][:, :width]
        return mask


def valid_around_zeros(
    size_px: tuple[int, int],
    read_zeros: Callable[[int, int], Mask],
    *,
    corners_only: bool,
    band_px: int = _BAND_PX,
) -> PackedMask:
    """The whole image but what is zero and joined (8 ways) to its border, or to one of its corners.

    The same as labelling the connected zeros of the whole image at once, but in memory for one band of rows
    and two bits a pixel: the zeros of each band are labelled by themselves, and pieces that meet at the seam
    of two bands are one.

    Args:
        size_px: height and width.
        read_zeros: called with (top row, rows), from the top down, each band once; gives `rows,W` bool, True
            where the image is zero in all bands.
        corners_only: just what is joined to a corner counts as outside: the footprint of a capture is
            convex, so each piece around it holds a corner, while a lake cut by the border rarely does.
        band_px: about how many pixels are labelled at once.

    Returns:
        False where a zero is outside, True elsewhere.
    """
    height, width = size_px
    rows = max(1, band_px // width)
    mask = PackedMask(height, width)
    seams = _Seams()
    for top in range(0, height, rows):
        zeros = read_zeros(top, min(rows, height - top))
        mask.put_rows(top, zeros)
        labels = _labels(zeros)
        seams.add(labels, _outside(labels, top, height, corners_only))
    for top, ends in zip(range(0, height, rows), seams.outside_ends(), strict=True):
        zeros = mask.get(top, 0, min(rows, height - top), width)
        if not zeros.any():
            mask.put_rows(top, ~zeros)
            continue
        labels = _labels(zeros)
        outside = _outside(labels, top, height, corners_only)
        outside[labels[[0, -1]][ends]] = True
        outside[0] = False
        mask.put_rows(top, ~outside[labels])
    return mask


def _labels(zeros: Mask) -> NDArray[np.int32]:
    """`h,W` int32: 0 where not zero, else the number of the piece."""
    if not zeros.any():
        return np.zeros(zeros.shape, np.int32)
    return np.asarray(cv2.connectedComponents(zeros.view(np.uint8), connectivity=8)[1], np.int32)


def _outside(labels: NDArray[np.int32], top: int, height: int, corners_only: bool) -> Mask:
    """For each label of a band, whether it is at the image's border (or a corner of it)."""
    outside = np.zeros(int(labels.max()) + 1, bool)
    columns = [0, -1] if corners_only else slice(None)
    if top == 0:
        outside[labels[0, columns]] = True
    if top + len(labels) == height:
        outside[labels[-1, columns]] = True
    if not corners_only:
        outside[labels[:, [0, -1]]] = True
    outside[0] = False
    return outside


@dataclass(frozen=True)
class _Ends:
    """The pieces that reach the first or last row of one band."""

    nodes: NDArray[np.int32]  # `2,W`: the piece of each pixel of these rows, numbered from 1 on; 0 is none
    outside: Mask  # for each piece, whether it is at the image's border


class _Seams:
    """Which pieces of neighbouring bands are one; only pieces that reach a band's first or last row count."""

    def __init__(self) -> None:
        self._bands: list[_Ends] = []

    def add(self, labels: NDArray[np.int32], outside: Mask) -> None:
        """Notes the band below those before: its labels, and for each label whether it is outside."""
        found, nodes = np.unique(labels[[0, -1]], return_inverse=True)
        missing = int(found[0] != 0)  # node 0 is "no piece", also where all of both rows is zeros
        of_pixels = (nodes.reshape(2, -1) + missing).astype(np.int32)
        self._bands.append(_Ends(of_pixels, outside[found[found != 0]]))

    def outside_ends(self) -> Iterator[Mask]:
        """For each band `2,W` bool: whether the pixel of its first and last row is in a piece outside."""
        starts = np.cumsum([0, *(len(band.outside) for band in self._bands)])
        outside = self._outside_nodes(starts)
        for band, start, end in zip(self._bands, starts[:-1], starts[1:], strict=True):
            yield np.concatenate([[False], outside[start:end]])[band.nodes]

    def _outside_nodes(self, starts: NDArray[np.int64]) -> Mask:
        """Whether each node of all bands is joined to one at the border."""
        at_border: Mask = np.concatenate([band.outside for band in self._bands])
        above, below = np.concatenate(
            [
                np.empty((2, 0), np.int64),
                *(
                    _touching(self._bands[n].nodes[1], self._bands[n + 1].nodes[0])
                    + (starts[n : n + 2, None] - 1)
                    for n in range(len(self._bands) - 1)
                ),
            ],
            axis=1,
        )
        n_nodes = len(at_border)
        graph = coo_array((np.ones(len(above), bool), (above, below)), shape=(n_nodes, n_nodes))
        n_pieces, piece = connected_components(graph, directed=False)
        outside = np.zeros(n_pieces, bool)
        outside[piece[at_border]] = True
        of_nodes: Mask = outside[piece]
        return of_nodes


def _touching(above: NDArray[np.int32], below: NDArray[np.int32]) -> NDArray[np.int64]:
    """`2,n` nodes that touch across a seam, straight or diagonally, each pair once."""
    met = np.concatenate(
        [[above, below], [above[1:], below[:-1]], [above[:-1], below[1:]]], axis=1, dtype=np.int64
    )
    return np.unique(met[:, (met != 0).all(axis=0)], axis=1)
