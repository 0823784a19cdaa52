"""A generator over an image too large for memory: layer by layer, in strips of rows, the rest on disk.

Each layer runs once over the whole image before the next one begins, so instance norm has the statistics of
the whole image, not of a part, and there are no seams: values are those of the whole up to rounding. Memory
depends on a strip, not on the image; what lies between two layers is kept in a scratch file (256 bytes a
pixel of the image for 64 channels, two of these at a time) in the folder for temporary files (TMPDIR).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pbvs.core.device import is_out_of_memory
from pbvs.core.errors import DataError
from pbvs.networks.layers import ResidualBlock
from pbvs.systems.pix2pixhd.network import Generator, halved

_STRIP_VALUES = 1 << 22  # of a layer's larger side; 16 MB
_LEAST_ROWS = 8  # more than any margin, and even
_FLOAT_BYTES = 4

Layer = Callable[[Tensor], Tensor]


class Plane:
    """A feature map `C,H,W` on disk, row by row, and the pixelwise layers to be done when it is read."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self._file = tempfile.TemporaryFile(prefix="pbvs-strips-")  # noqa: SIM115 (closed by `close`)
        self._pixelwise: list[Layer] = []
        self._n, self._mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def write(self, strip: Tensor) -> None:
        """Appends rows `1,C,h,W`; to be called from the top down."""
        self._count(strip)
        rows = strip[0].permute(1, 0, 2).float().cpu().contiguous().numpy()
        try:
            self._file.write(rows.data)
        except OSError as error:
            raise DataError(
                f"the scratch file cannot be written: {error.strerror}",
                where=tempfile.gettempdir(),
                next_step="free some space, or name another folder with TMPDIR",
            ) from error

    def read(self, top: int, bottom: int, device: torch.device) -> Tensor:
        """Rows from `top` to before `bottom`, `1,C,h,W`."""
        row_bytes = self.channels * self.width * _FLOAT_BYTES
        self._file.seek(top * row_bytes)
        values = np.frombuffer(bytearray(self._file.read((bottom - top) * row_bytes)), np.float32)
        rows = torch.from_numpy(values).view(bottom - top, self.channels, self.width)
        strip = rows.permute(1, 0, 2)[None].contiguous().to(device)
        for layer in self._pixelwise:
            strip = layer(strip)
        return strip

    def then(self, layer: Layer) -> None:
        """Has a pixelwise layer done whenever rows are read."""
        self._pixelwise.append(layer)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of each channel as written, `C float64`."""
        return self._mean, self._squares / self._n

    def close(self) -> None:
        """Gives the disk back."""
        self._file.close()

    def _count(self, strip: Tensor) -> None:
        """Adds rows to mean and squared deviations (Chan, Golub and LeVeque 1979, equation 1.5)."""
        values = strip[0].flatten(1).double()
        n, mean = values.shape[1], values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        apart, whole = mean - self._mean.to(mean), self._n + n
        self._squares = self._squares.to(mean) + squares + apart.square() * (self._n * n / whole)
        self._mean = self._mean.to(mean) + apart * (n / whole)
        self._n = whole


@torch.inference_mode()
def run_in_strips(network: Generator, x: Tensor, strip_values: int = _STRIP_VALUES) -> Tensor:
    """As `network(x)`, one image after the other, on the network's device.

    Args:
        network: in evaluation mode.
        x: `N,C,H,W` in [-1,1].
        strip_values: how many values a strip may have; halved when memory runs out.

    Returns:
        `N,bands_out,H,W` float32 on the CPU.

    Raises:
        DataError: there is no room for scratch files.
    """
    return torch.cat([_Run(network, strip_values).image(image[None]) for image in x])


class _Run:
    def __init__(self, network: Generator, strip_values: int) -> None:
        self.network, self.strip_values = network, strip_values
        self.device = next(network.parameters()).device

    def image(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = self.network.padded(x)
        first = Plane(*padded.shape[1:])
        first.write(padded)
        out = self._generated(first)
        made = out.read(0, out.height, torch.device("cpu"))
        out.close()
        return made[..., :height, :width]

    def _generated(self, first: Plane) -> Plane:
        """As `Generator.forward` of a padded image."""
        network = self.network
        pyramid = [first]
        for _ in range(network.local_enhancers):
            pyramid.append(self._strips(halved, pyramid[-1], False, margin=2, shrinks=2))
        out = self._layers(network.model, pyramid[-1])
        for n in range(1, network.local_enhancers + 1):
            finer = self._layers(network.enhancer(n, 1), pyramid[network.local_enhancers - n])
            out = self._layers(network.enhancer(n, 2), self._added(finer, out))
        return out

    def _layers(self, layers: nn.Sequential, plane: Plane, *, keep: bool = False) -> Plane:
        """Sends a plane through layers; it is used up unless `keep`."""
        given, pad = plane, None
        for layer in layers:
            uses_up = plane is not given or not keep
            if isinstance(layer, nn.ReflectionPad2d):
                pad = layer
            elif isinstance(layer, nn.Conv2d):
                plane, pad = self._convolved(layer, pad, plane, uses_up), None
            elif isinstance(layer, nn.ConvTranspose2d):
                plane = self._strips(layer, plane, uses_up, margin=1, grows=2)
            elif isinstance(layer, ResidualBlock):
                plane = self._added(plane, self._layers(layer.conv_block, plane, keep=True))
            elif isinstance(layer, nn.InstanceNorm2d):
                plane.then(_instance_norm(layer, *plane.statistics()))
            else:  # ReLU, Tanh, and batch norm by its running averages: each pixel alone
                assert isinstance(layer, nn.ReLU | nn.Tanh | nn.BatchNorm2d), layer
                plane.then(layer)
        return plane

    def _convolved(self, layer: nn.Conv2d, pad: nn.Module | None, plane: Plane, uses_up: bool) -> Plane:
        if pad is not None:
            whole = nn.Sequential(pad, layer)
            return self._strips(whole, plane, uses_up, margin=layer.kernel_size[0] // 2)
        return self._strips(layer, plane, uses_up, margin=2, shrinks=layer.stride[0])

    def _added(self, a: Plane, b: Plane) -> Plane:
        """The sum of two planes, which are used up."""
        total = Plane(a.channels, a.height, a.width)
        rows = self._rows(a)
        for top in range(0, a.height, rows):
            bottom = min(top + rows, a.height)
            total.write(a.read(top, bottom, self.device) + b.read(top, bottom, self.device))
        a.close()
        b.close()
        return total

    def _rows(self, plane: Plane, channels_out: int = 0, grows: int = 1) -> int:
        """Rows of a strip by the larger of what goes in and what comes out: an even number."""
        channels = max(plane.channels, channels_out * grows**2)
        return max(_LEAST_ROWS, self.strip_values // (channels * plane.width) // 2 * 2)

    def _strips(
        self, layer: Layer, plane: Plane, uses_up: bool, *, margin: int, shrinks: int = 1, grows: int = 1
    ) -> Plane:
        """One layer over a plane.

        Args:
            margin: rows to read above and below a strip, whose results are dropped: the layer takes the
                strip's ends for the image's. A multiple of `shrinks`.
            shrinks, grows: how the layer changes the height.
        """
        out: Plane | None = None
        top = 0
        while top < plane.height:
            bottom = min(top + self._rows(plane, _channels_out(layer), grows), plane.height)
            above, below = min(top, margin), min(plane.height - bottom, margin)
            try:
                made = layer(plane.read(top - above, bottom + below, self.device))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or bottom - top <= _LEAST_ROWS:
                    raise
                self.strip_values //= 2
                continue
            made = made[:, :, above * grows // shrinks : made.shape[2] - below * grows // shrinks]
            out = out or Plane(made.shape[1], plane.height * grows // shrinks, made.shape[3])
            out.write(made)
            top = bottom
        if uses_up:
            plane.close()
        assert out is not None
        return out


def _channels_out(layer: Layer) -> int:
    """Of a convolution, or one behind its padding; 0 for what keeps its channels."""
    last = layer[-1] if isinstance(layer, nn.Sequential) else layer
    return int(last.out_channels) if isinstance(last, nn.Conv2d | nn.ConvTranspose2d) else 0


def _instance_norm(layer: nn.InstanceNorm2d, mean: Tensor, variance: Tensor) -> Layer:
    """The layer with the statistics of the whole image."""
    scale = (variance + layer.eps).rsqrt().float().view(1, -1, 1, 1)
    middle = mean.float().view(1, -1, 1, 1)
    return lambda x: (x - middle.to(x.device)) * scale.to(x.device)
