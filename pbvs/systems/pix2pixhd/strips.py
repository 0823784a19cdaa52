"""A generator over an image too large for memory: layer by layer, in strips of rows, the rest on disk.

Each layer runs over the whole image before the next one begins, so instance norm has the statistics of the
whole image and there are no seams: values equal those of the image at once, up to rounding. Memory depends on
a strip, not on the image. What passes between two layers is stored in a scratch file (256 bytes per pixel of
the image for 64 channels, two such files at a time) in the folder for temporary files (TMPDIR).
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

_STRIP_VALUES = 1 << 22  # of a layer's larger side: 16 MB
_MIN_ROWS = 8  # more than any margin, and even
_FLOAT_BYTES = 4

Layer = Callable[[Tensor], Tensor]


class Plane:
    """A feature map `C,H,W` on disk, row by row, with pixelwise layers that apply when it is read."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self._file = tempfile.TemporaryFile(prefix="pbvs-strips-")  # noqa: SIM115 (closed by `close`)
        self._pixelwise: list[Layer] = []
        self._n, self._mean, self._squares = 0, torch.zeros(()), torch.zeros(())

    def write(self, strip: Tensor) -> None:
        """Appends rows `1,C,h,W`, from the top down."""
        # Mean and squared deviations so far (Chan, Golub and LeVeque 1979, equation 1.5).
        values = strip[0].flatten(1).double()
        n, mean = values.shape[1], values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        difference, total = mean - self._mean.to(mean), self._n + n
        self._squares = self._squares.to(mean) + squares + difference.square() * (self._n * n / total)
        self._mean = self._mean.to(mean) + difference * (n / total)
        self._n = total
        rows = strip[0].permute(1, 0, 2).float().cpu().contiguous().numpy()
        try:
            self._file.write(rows.data)
        except OSError as error:
            raise DataError(
                f"the scratch file cannot be written: {error.strerror}",
                where=tempfile.gettempdir(),
                next_step="free some space, or set another folder in TMPDIR",
            ) from error

    def read(self, top: int, bottom: int, device: torch.device) -> Tensor:
        """Rows `top` to `bottom` (exclusive), `1,C,h,W`, after the pixelwise layers."""
        row_bytes = self.channels * self.width * _FLOAT_BYTES
        self._file.seek(top * row_bytes)
        values = np.frombuffer(bytearray(self._file.read((bottom - top) * row_bytes)), np.float32)
        rows = torch.from_numpy(values).view(bottom - top, self.channels, self.width)
        strip = rows.permute(1, 0, 2)[None].contiguous().to(device)
        for layer in self._pixelwise:
            strip = layer(strip)
        return strip

    def then(self, layer: Layer) -> None:
        """Adds a pixelwise layer that applies whenever rows are read."""
        self._pixelwise.append(layer)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of each channel as written, `C float64`."""
        return self._mean, self._squares / self._n

    def close(self) -> None:
        """Deletes the scratch file."""
        self._file.close()


@torch.inference_mode()
def run_in_strips(network: Generator, x: Tensor, strip_values: int = _STRIP_VALUES) -> Tensor:
    """As `network(x)`, one image at a time, on the network's device.

    Args:
        network: in evaluation mode.
        x: `N,C,H,W` in [-1,1].
        strip_values: the most values of a strip; halved when memory runs out.

    Returns:
        `N,bands_out,H,W` float32 on the CPU.

    Raises:
        DataError: no space for scratch files.
    """
    return torch.cat([_Run(network, strip_values).image(image[None]) for image in x])


class _Run:
    def __init__(self, network: Generator, strip_values: int) -> None:
        self.network, self.strip_values = network, strip_values
        self.device = next(network.parameters()).device

    def image(self, x: Tensor) -> Tensor:
        """As `Generator.forward`, of one image."""
        network, (height, width) = self.network, x.shape[-2:]
        padded = network.padded(x)
        pyramid = [Plane(*padded.shape[1:])]
        pyramid[0].write(padded)
        for _ in range(network.local_enhancers):
            pyramid.append(self._strips(halved, pyramid[-1], False, margin=2, shrinks=2))
        out = self._layers(network.model, pyramid[-1])
        for n in range(1, network.local_enhancers + 1):
            finer = self._layers(network.enhancer(n, 1), pyramid[network.local_enhancers - n])
            out = self._layers(network.enhancer(n, 2), self._added(finer, out))
        fake = out.read(0, out.height, torch.device("cpu"))
        out.close()
        return fake[..., :height, :width]

    def _layers(self, layers: nn.Sequential, plane: Plane, *, keep: bool = False) -> Plane:
        """A plane after some layers; it is closed unless `keep`."""
        given, pad = plane, None
        for layer in layers:
            close = plane is not given or not keep
            if isinstance(layer, nn.ReflectionPad2d):
                pad = layer
            elif isinstance(layer, nn.Conv2d) and pad is not None:
                padded_conv, pad = nn.Sequential(pad, layer), None
                plane = self._strips(padded_conv, plane, close, margin=layer.kernel_size[0] // 2)
            elif isinstance(layer, nn.Conv2d):
                plane = self._strips(layer, plane, close, margin=2, shrinks=layer.stride[0])
            elif isinstance(layer, nn.ConvTranspose2d):
                plane = self._strips(layer, plane, close, margin=1, grows=2)
            elif isinstance(layer, ResidualBlock):
                plane = self._added(plane, self._layers(layer.conv_block, plane, keep=True))
            elif isinstance(layer, nn.InstanceNorm2d):
                plane.then(_instance_norm(layer, *plane.statistics()))
            else:  # ReLU, Tanh, and batch norm by its running statistics: each pixel alone
                assert isinstance(layer, nn.ReLU | nn.Tanh | nn.BatchNorm2d), layer
                plane.then(layer)
        return plane

    def _added(self, a: Plane, b: Plane) -> Plane:
        """The sum of two planes, which are closed."""
        total = Plane(a.channels, a.height, a.width)
        rows = self._rows(a)
        for top in range(0, a.height, rows):
            bottom = min(top + rows, a.height)
            total.write(a.read(top, bottom, self.device) + b.read(top, bottom, self.device))
        a.close()
        b.close()
        return total

    def _rows(self, plane: Plane, channels_out: int = 0, grows: int = 1) -> int:
        """Rows of a strip, by the larger of its input and output: an even number."""
        channels = max(plane.channels, channels_out * grows**2)
        return max(_MIN_ROWS, self.strip_values // (channels * plane.width) // 2 * 2)

    def _strips(
        self, layer: Layer, plane: Plane, close: bool, *, margin: int, shrinks: int = 1, grows: int = 1
    ) -> Plane:
        """One layer over a plane.

        Args:
            close: whether to close `plane` afterwards.
            margin: rows to read above and below a strip, whose results are dropped, since the layer pads at
                the strip's ends. A multiple of `shrinks`.
            shrinks, grows: how the layer changes the height.
        """
        conv = layer[-1] if isinstance(layer, nn.Sequential) else layer  # after its padding
        channels_out = conv.out_channels if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) else 0
        out: Plane | None = None
        top = 0
        while top < plane.height:
            bottom = min(top + self._rows(plane, channels_out, grows), plane.height)
            above, below = min(top, margin), min(plane.height - bottom, margin)
            try:
                result = layer(plane.read(top - above, bottom + below, self.device))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or bottom - top <= _MIN_ROWS:
                    raise
                self.strip_values //= 2
                continue
            result = result[:, :, above * grows // shrinks : result.shape[2] - below * grows // shrinks]
            out = out or Plane(result.shape[1], plane.height * grows // shrinks, result.shape[3])
            out.write(result)
            top = bottom
        if close:
            plane.close()
        assert out is not None
        return out


def _instance_norm(layer: nn.InstanceNorm2d, mean: Tensor, variance: Tensor) -> Layer:
    """The layer with the statistics of the whole image."""
    scale = (variance + layer.eps).rsqrt().float().view(1, -1, 1, 1)
    center = mean.float().view(1, -1, 1, 1)
    return lambda x: (x - center.to(x.device)) * scale.to(x.device)
