"""A generator in strips of rows returns what it returns at once, for any strips."""

import logging
import tempfile

import pytest
import torch

from pbvs.core.device import is_out_of_memory
from pbvs.core.errors import DataError
from pbvs.graph.node import InferenceOptions
from pbvs.graph.trained import run
from pbvs.systems.pix2pixhd import strips
from pbvs.systems.pix2pixhd.config import GeneratorConfig
from pbvs.systems.pix2pixhd.network import Generator
from pbvs.systems.pix2pixhd.strips import run_in_strips
from pbvs.systems.pix2pixhd.system import Pix2PixHD
from pbvs.training.system import Translation

SHAPES = {
    "global": GeneratorConfig(channels=4, n_downsample=2, blocks=2),
    "deeper": GeneratorConfig(channels=4, n_downsample=3, blocks=1),
    "local": GeneratorConfig(kind="local", channels=4, n_downsample=1, blocks=1, enhancer_blocks=2),
    "two enhancers": GeneratorConfig(
        kind="local", channels=2, n_downsample=1, blocks=1, local_enhancers=2, enhancer_blocks=1
    ),
    "batch norm": GeneratorConfig(channels=4, n_downsample=2, blocks=2, norm="batch"),
}


def network(config, bands_in=1, bands_out=3):
    torch.manual_seed(2)
    generator = Generator(config, bands_in, bands_out)
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return generator.eval()


def translation(generator):
    return Translation(Pix2PixHD, {"G": generator})


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize("size", [(64, 48), (75, 53), (9, 130)])
@pytest.mark.parametrize("shape", SHAPES)
def test_strips_equal_the_whole(shape, size):
    net, x = network(SHAPES[shape]), images(2, 1, *size)
    with torch.inference_mode():
        whole = net(x)
    for values in (1, 8000):  # the fewest rows, and some more
        torch.testing.assert_close(run_in_strips(net, x, values), whole, rtol=0, atol=2e-5)


def test_instance_norm_without_the_whole_would_show(monkeypatch):
    """A strip's own statistics are another brightness: the test above sees it."""
    net, x = network(SHAPES["global"]), images(1, 1, 64, 48)
    monkeypatch.setattr(strips, "_instance_norm", lambda layer, *_: layer)
    with torch.inference_mode():
        assert (run_in_strips(net, x, 1) - net(x)).abs().max() > 0.01


def test_what_passes_through_a_layer_does_not_grow_with_the_image():
    largest = {}
    for height in (128, 512):
        seen = []
        net = network(SHAPES["global"])
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.register_forward_hook(
                    lambda _, x, y, seen=seen: seen.append(max(x[0].numel(), y.numel()))
                )
        run_in_strips(net, images(1, 1, height, 48), 4000)
        largest[height] = max(seen)
    # A strip and its margins: of 8 rows at the least, with 6 more around it.
    assert largest[512] == largest[128] < 12_000


def test_strips_are_halved_when_memory_runs_out():
    net, x = network(SHAPES["global"]), images(1, 1, 128, 48)
    with torch.inference_mode():
        whole = net(x)
    refused = []

    def refuse(module, inputs):
        if inputs[0].shape[2] > 20:
            refused.append(inputs[0].shape[2])
            raise torch.OutOfMemoryError("CUDA out of memory.")

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(refuse)
    torch.testing.assert_close(run_in_strips(net, x, 1 << 16), whole, rtol=0, atol=2e-5)
    assert refused


def test_translation_goes_on_in_strips_when_memory_runs_out_and_says_so(caplog, monkeypatch):
    net = network(SHAPES["global"])
    float255 = (images(1, 1, 64, 64) + 1) * 127.5
    expected = run(translation(net), float255)

    def no_memory(x):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(net, "forward", no_memory)
    with caplog.at_level(logging.WARNING):
        fake = run(translation(net), float255)
    assert "64 x 64" in caplog.text and "strips" in caplog.text
    torch.testing.assert_close(fake, expected, rtol=0, atol=255 * 1e-5)
    assert torch.equal(run(translation(net), float255, InferenceOptions(in_strips=True)), fake)


def test_other_errors_are_not_mistaken_for_lack_of_memory(monkeypatch):
    assert not is_out_of_memory(RuntimeError("size mismatch")) and is_out_of_memory(MemoryError())
    net = network(SHAPES["global"])

    def fails(x):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(net, "forward", fails)
    with pytest.raises(RuntimeError, match="size mismatch"):
        run(translation(net), images(1, 1, 64, 64))


def test_a_full_disk_is_an_error_that_names_the_folder(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(strips.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match="No space left") as caught:
        run_in_strips(network(SHAPES["global"]), images(1, 1, 64, 48))
    assert caught.value.where == tempfile.gettempdir() and "TMPDIR" in str(caught.value)


def test_a_constant_image_stays_constant():
    """Whole, float32 statistics leave rounding that every instance norm makes 300 times larger."""
    net = network(SHAPES["global"])
    float255 = torch.full((1, 1, 70, 54), 93.0, dtype=torch.float64)
    fake = run(translation(net), float255, InferenceOptions(in_strips=True))
    assert (fake.amax(dim=(2, 3)) - fake.amin(dim=(2, 3))).max() < 1.0
