"""Stored integers, 0..255 floats and model floats: the round trip is lossless."""

import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pytest
import rasterio
import torch
from made_archives import write_tiff
from made_tiffs import bomb
from rasterio.errors import NotGeoreferencedWarning

from pbvs.core import pixels
from pbvs.core.errors import ImageError

ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


def test_all_256_values_come_back_from_model_floats():
    float255 = pixels.float255_from_stored(ALL_VALUES)
    model = pixels.normalize(float255)
    assert (model.dtype, model.min().item(), model.max().item()) == (torch.float32, -1.0, 1.0)
    np.testing.assert_array_equal(pixels.stored_from_float255(pixels.denormalize(model)), ALL_VALUES)


def test_rounding_is_half_to_even_and_clipped():
    float255 = torch.tensor([0.5, 1.5, 2.5, 254.5, 300.0, -3.0], dtype=torch.float64).reshape(1, 1, 1, 6)
    assert pixels.stored_from_float255(float255).ravel().tolist() == [0, 2, 2, 254, 255, 0]


def test_unit_floats():
    assert pixels.unit_from_float255(torch.tensor([0, 51, 255])).tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert pixels.unit_from_model(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("bands", [1, 3])
def test_png_round_trip_is_lossless_and_in_rgb_order(tmp_path, bands):
    image = np.random.default_rng(bands).integers(0, 256, (9, 7, bands), dtype=np.uint8)
    pixels.write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(pixels.read_image(tmp_path / "a.png"), image)
    # Another decoder reads the same bands.
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "a.png") as dataset:
        np.testing.assert_array_equal(dataset.read().transpose(1, 2, 0), image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_sixteen_bits_stay_sixteen_until_converted(tmp_path):
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    stored = pixels.read_image(tmp_path / "ramp.png")
    assert stored.dtype == np.uint16
    eight = pixels.to_uint8(stored)
    assert len(np.unique(eight)) == 256
    np.testing.assert_array_equal(eight, np.rint(stored * (255 / 65535)).astype(np.uint8))
    stretched = pixels.to_uint8(stored, low=1000, high=3000)
    assert stretched[stored == 1024].item() == round((1024 - 1000) * 255 / 2000)


def test_the_error_of_a_corrupt_image_names_its_file(tmp_path):
    whole = pixels.encode_png(np.zeros((64, 64, 1), np.uint8) + 7)
    for name, data in {
        "half.png": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.tif": b"no image",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name):
            pixels.read_image(tmp_path / name)
    with pytest.raises(ImageError, match=r"photo\.jpg"):
        pixels.read_image(tmp_path / "photo.jpg")


def test_an_image_of_absurd_size_is_rejected_before_memory_is_allocated(tmp_path):
    header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    (tmp_path / "bomb.tif").write_bytes(bomb())
    (tmp_path / "bands.tif").write_bytes(bomb(9, 9, 15_000))
    started = time.monotonic()
    for name, why in (
        ("bomb.tif", "1000000 x 1000000"),
        ("bands.tif", "15000 bands"),
        ("bomb.png", "more pixels"),
    ):
        with pytest.raises(ImageError, match=why) as rejected:
            pixels.read_image(tmp_path / name)
        assert rejected.value.where == str(tmp_path / name)
    assert time.monotonic() - started < 5


def test_a_tiff_that_is_cut_short_missing_or_no_tiff(tmp_path):
    image = np.arange(35, dtype=np.uint16).reshape(5, 7)
    path = write_tiff(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(pixels.read_image(path)[:, :, 0], image)
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "png.tif").write_bytes(pixels.encode_png(np.zeros((4, 4, 1), np.uint8)))
    for name, why in (("a.tif", "cut short"), ("png.tif", "a PNG"), ("none.tif", "No such file")):
        with pytest.raises(ImageError, match=why) as rejected:
            pixels.read_image(tmp_path / name)
        assert name in (rejected.value.where or "")


def test_resize_keeps_constants_and_bands():
    constant = np.full((31, 47, 3), 200, np.uint8)
    for size in [(8, 9), (64, 100), (31, 20)]:
        resized = pixels.resize(constant, size)
        assert resized.shape == (*size, 3)
        assert (resized == 200).all()


def test_shrinking_takes_the_mean_of_the_area():
    image = np.arange(16, dtype=np.float64).reshape(4, 4, 1)
    np.testing.assert_allclose(pixels.resize(image, (2, 2))[..., 0], [[2.5, 4.5], [10.5, 12.5]])
    float255 = torch.from_numpy(image).permute(2, 0, 1)[None]
    np.testing.assert_allclose(pixels.resize_float255(float255, (2, 2))[0, 0], [[2.5, 4.5], [10.5, 12.5]])


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("core.files", {"numpy", "torch"}),
        ("core.pixels", {"cv2", "rasterio", "torch"}),
        ("archives.layouts", {"cv2", "rasterio", "torch"}),
        ("archives.scan", {"cv2", "torch"}),
    ],
)
def test_modules_of_quick_commands_import_no_heavy_library(module, absent):
    code = f"import sys, pbvs.{module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not absent & {*loaded.split()}
