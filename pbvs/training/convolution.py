"""Convolutions of a training step on the CPU, in arrangements that are faster there than PyTorch's own.

Values are the same to rounding, which a test holds to 1e-10 in float64. What is arranged otherwise:

- wide 3x3 convolutions in float32, those of the residual blocks, by Winograd's minimal filtering: 16
  products where there were 36, over tiles of 2x2 outputs;
- what spreads an image out again, the transposed convolutions and the images' gradients of strided ones,
  as one matrix product whose columns are summed into place (`fold`);
- gradients of weights in bfloat16, and of very unequal numbers of channels, as one matrix product.

PyTorch's own come from oneDNN, which is fastest in all other cases. Only training on the CPU is concerned:
without gradients, on other devices, with other layouts and when compiled, the layers are PyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pbvs.training.winograd import Winograd


def rearrange(network: nn.Module) -> None:
    """Makes the convolutions of `network` compute as told above, in place; names and weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_simple(module):
            module.__class__ = RearrangedConv2d
        elif type(module) is nn.ConvTranspose2d and _is_simple(module):
            module.__class__ = RearrangedConvTranspose2d


def _is_simple(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Square, of one group and not dilated, padded with zeros: all that the networks have."""
    square = all(len(set(n)) == 1 for n in (layer.kernel_size, layer.stride, layer.padding))
    return square and layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"


class RearrangedConv2d(nn.Conv2d):
    """A convolution that trains faster on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        kind = _kind(x, self.weight)
        if kind is None:
            return super().forward(x)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        way: _Way = Gather(kernel, stride, padding)
        if kind != torch.bfloat16 and Winograd.fits(x, self.weight, stride, padding):
            way = Winograd(padding)
        return _convolved(x, self.weight, self.bias, way, kind)


class RearrangedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that trains faster on the CPU."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As `nn.ConvTranspose2d`."""
        kind = _kind(x, self.weight)
        if kind is None or output_size is not None:
            return super().forward(x, output_size)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        way = Spread(kernel, stride, padding, int(self.output_padding[0]))
        return _convolved(x, self.weight, self.bias, way, kind)


def _kind(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type to compute in; None where the layer is better left to PyTorch."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if not (weight.requires_grad and x.is_contiguous() and weight.is_contiguous()):
        return None
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return kind if kind in (torch.bfloat16, torch.float32, torch.float64) else None


class _Way(Protocol):
    """How a convolution and its gradients are computed; all tensors of one type."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output, and what the gradients want kept beside `x` and `weight`."""

    def image_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """With respect to `x`."""

    def weight_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """With respect to `weight`."""


@dataclass(frozen=True)
class Gather:
    """A convolution: PyTorch's own, but for gradients that a matrix product gives faster."""

    kernel: int
    stride: int
    padding: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `_Way`."""
        return F.conv2d(x, weight, bias, self.stride, self.padding), ()

    def image_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """See `_Way`."""
        if self.stride > 1:
            return spread(dy, weight, self.kernel, self.stride, self.padding, x.shape[2:])
        return nn.grad.conv2d_input(x.shape, weight, dy, self.stride, self.padding)

    def weight_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """See `_Way`."""
        if self.stride == 1 and 4 * dy.shape[1] <= x.shape[1]:
            return _products_of_few(dy, x, self.kernel, self.padding)
        if dy.dtype == torch.bfloat16:
            return _products(dy, x, self.kernel, self.stride, self.padding)
        return nn.grad.conv2d_weight(x, weight.shape, dy, self.stride, self.padding)


@dataclass(frozen=True)
class Spread:
    """A transposed convolution, in which the weight is `in,out,k,k`."""

    kernel: int
    stride: int
    padding: int
    output_padding: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `_Way`."""
        more = self.kernel - 2 * self.padding + self.output_padding
        height, width = ((side - 1) * self.stride + more for side in x.shape[2:])
        y = spread(x, weight, self.kernel, self.stride, self.padding, (height, width))
        return (y if bias is None else y.add_(bias[:, None, None])), ()

    def image_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """See `_Way`."""
        return F.conv2d(dy, weight, None, self.stride, self.padding)

    def weight_gradient(self, dy: Tensor, x: Tensor, weight: Tensor, kept: tuple[Tensor, ...]) -> Tensor:
        """See `_Way`."""
        return _products(x, dy, self.kernel, self.stride, self.padding)


def spread(
    few: Tensor, weight: Tensor, kernel: int, stride: int, padding: int, size_px: tuple[int, ...]
) -> Tensor:
    """Every pixel of `few` (`N,A,h,w`) times `weight` (`A,B,k,k`), summed where they lie in `N,B,*size_px`."""
    columns = weight.flatten(1).t() @ few.flatten(2)
    return F.fold(columns, list(size_px), kernel, padding=padding, stride=stride)


def _products(few: Tensor, many: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """`A,B,k,k`: of `few` (`N,A,h,w`) with what each of its pixels sees of `many` (`N,B,H,W`)."""
    seen = F.unfold(many, kernel, padding=padding, stride=stride)
    total = _summed_products(few.flatten(2), seen)
    return total.view(few.shape[1], many.shape[1], kernel, kernel)


def _products_of_few(dy: Tensor, x: Tensor, kernel: int, padding: int) -> Tensor:
    """As `_products(dy, x, kernel, 1, padding)`, where `dy` has few channels: those are unfolded, not `x`'s."""
    seen = F.unfold(dy, kernel, padding=kernel - 1 - padding)
    total = _summed_products(seen, x.flatten(2)).view(dy.shape[1], kernel, kernel, x.shape[1])
    return total.flip(1, 2).permute(0, 3, 1, 2)


def _summed_products(a: Tensor, b: Tensor) -> Tensor:
    """`N,P,L` and `N,Q,L` to `P,Q`."""
    total = a[0] @ b[0].t()
    for one, other in zip(a[1:], b[1:], strict=True):
        total = total.addmm(one, other.t())
    return total


@dataclass
class _Call:
    """One convolution of one image; its backward pass leaves here what the weight's gradient is made of."""

    way: _Way
    found: list[Any] = field(default_factory=list)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, way: _Way, kind: torch.dtype) -> Tensor:
    call = _Call(way)
    y: Tensor = _Convolution.apply(
        x.to(kind), _Weight.apply(weight, kind, call), None if bias is None else bias.to(kind), call
    )  # type: ignore[no-untyped-call]
    return y


class _Weight(torch.autograd.Function):
    """The weight in the type to compute in; its backward pass takes the weight's gradient.

    A node of its own, which is left out when nobody asks for this gradient: not so for the inputs of one
    node, as `needs_input_grad` knows nothing of `backward(inputs=...)`.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, kind: torch.dtype, call: _Call) -> Tensor:
        ctx.call, ctx.kind = call, weight.dtype
        return weight.to(kind) if weight.dtype != kind else weight.view_as(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, nothing: Tensor) -> tuple[Tensor, None, None]:
        gradient = ctx.call.way.weight_gradient(*ctx.call.found)
        ctx.call.found = []
        return gradient.to(ctx.kind).contiguous(), None, None


class _Convolution(torch.autograd.Function):
    """The convolution by `call.way`; gives the weight's node a stand-in of zeros that takes no memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: _Call) -> Tensor:
        ctx.call = call
        y, kept = call.way.forward(x, weight, bias)
        ctx.save_for_backward(x, weight, *kept)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight, *kept = ctx.saved_tensors
        given = (dy.contiguous(), x, weight, tuple(kept))
        ctx.call.found = list(given)
        dx = ctx.call.way.image_gradient(*given) if ctx.needs_input_grad[0] else None
        db = dy.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        return dx, dy.new_zeros(()).expand(weight.shape), db, None
