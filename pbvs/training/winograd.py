"""Winograd's minimal filtering F(2x2, 3x3): a 3x3 convolution with 16 products for each 2x2 outputs, not 36.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1 and equations 8 to
12: Y = A^T [(G g G^T) * (B^T d B)] A for each tile, where the products of all tiles and channels become 16
matrix products. The gradients are the same maps turned round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Below this many channels on either side the products are too small to pay for the transforms.
_LEAST_CHANNELS = 512

_A_T = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
_B_T = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
# The same for tiles laid out as vectors: rows and columns at once.
_TO_OUTPUTS, _TO_TILES, _TO_FILTERS = (torch.kron(m, m) for m in (_A_T, _B_T, _G))


@dataclass(frozen=True)
class Winograd:
    """A 3x3 convolution of stride 1; see `pbvs.training.convolution` for the arguments."""

    padding: int

    @staticmethod
    def fits(x: Tensor, weight: Tensor, stride: int, padding: int) -> bool:
        """Whether this way is open to `x` (`N,C,H,W`) and `weight`, and worth it."""
        wide = min(weight.shape[:2]) >= _LEAST_CHANNELS
        even = all((side + 2 * padding) % 2 == 0 for side in x.shape[2:])
        return wide and even and stride == 1 and weight.shape[2:] == (3, 3)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output, and the transformed weight and tiles."""
        filters = _filters(weight)
        tiles = _tiles(F.pad(x, [self.padding] * 4) if self.padding else x)
        y = _outputs(filters @ tiles, self._out_shape(x, weight))
        return (y if bias is None else y.add_(bias[:, None, None])), (filters, tiles)

    def image_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """With respect to `x`."""
        tiles = kept[0].transpose(1, 2) @ _outputs_back(dy)
        return _tiles_back(tiles, x.shape, self.padding)

    def weight_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """With respect to `weight`."""
        return _filters_back(_outputs_back(dy) @ kept[1].transpose(1, 2))

    def _out_shape(self, x: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
        height, width = (side + 2 * self.padding - 2 for side in x.shape[2:])
        return len(x), len(weight), height, width


def _filters(weight: Tensor) -> Tensor:
    """G g G^T: `out,in,3,3` to `16,out,in`."""
    flat: Tensor = _TO_FILTERS.to(weight) @ weight.reshape(-1, 9).t()
    return flat.view(16, *weight.shape[:2])


def _filters_back(filters: Tensor) -> Tensor:
    flat = filters.flatten(1).t() @ _TO_FILTERS.to(filters)
    return flat.view(*filters.shape[1:], 3, 3)


def _tiles(x: Tensor) -> Tensor:
    """B^T d B for the 4x4 tiles, two apart: `N,C,H,W` to `16,C,N * tiles`."""
    tiles = x.unfold(2, 4, 2).unfold(3, 4, 2).permute(4, 5, 1, 0, 2, 3)  # 4,4,C,N,rows,columns
    return (_TO_TILES.to(x) @ tiles.reshape(16, -1)).view(16, x.shape[1], -1)


def _tiles_back(tiles: Tensor, shape: torch.Size, padding: int) -> Tensor:
    n, channels, height, width = shape
    flat = (_TO_TILES.to(tiles).t() @ tiles.flatten(1)).view(16, channels, n, -1)
    columns = flat.permute(2, 1, 0, 3).reshape(n, channels * 16, -1)
    return F.fold(columns, [height, width], 4, padding=padding, stride=2)


def _outputs(products: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """A^T m A: `16,C,N * tiles` to `N,C,H,W`."""
    n, channels, height, width = shape
    flat = (_TO_OUTPUTS.to(products) @ products.flatten(1)).view(2, 2, channels, n, height // 2, width // 2)
    return flat.permute(3, 2, 4, 0, 5, 1).reshape(shape)


def _outputs_back(dy: Tensor) -> Tensor:
    n, channels, height, width = dy.shape
    pairs = dy.view(n, channels, height // 2, 2, width // 2, 2).permute(3, 5, 1, 0, 2, 4).reshape(4, -1)
    return (_TO_OUTPUTS.to(dy).t() @ pairs).view(16, channels, -1)
