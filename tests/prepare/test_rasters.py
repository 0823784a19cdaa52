import multiprocessing
import os
import resource
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from made_archives import BASE_CRS, affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import Affine

from pbvs.core.errors import DataError, ImageError
from pbvs.prepare import rasters, rasters_tiff
from pbvs.prepare.grid import Grid
from pbvs.prepare.rasters import read_valid, read_values, write_capture, written_capture


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)


def holes(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(9).random((height, width)) < 0.7


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


def grid(height: int, width: int, where: Affine | None = None) -> Grid:
    return Grid(CRS.from_string(BASE_CRS), where or affine(), height, width)


# ---- what is written


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (128, 256), (127, 129), (300, 517)])
def test_gdal_and_libtiff_read_what_was_written(tmp_path, monkeypatch, size, bands, big):
    if big:
        monkeypatch.setattr(rasters_tiff, "_SAFE_BYTES", 0)
    path, image, valid = tmp_path / "a.tif", noise(*size, bands), holes(*size)
    write_capture(path, image, valid, grid(*size))
    assert path.read_bytes()[:4] == (b"II+\0" if big else b"II*\0")
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(), image.transpose(2, 0, 1))
        assert np.array_equal(dataset.dataset_mask() > 0, valid)
        assert dataset.mask_flag_enums[0] == ([MaskFlags.per_dataset] if not valid.all() else [1])
    if bands in (1, 3):
        found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found.reshape(image.shape), image[:, :, ::-1])


def test_place_and_kind_as_gis_programs_read_them(tmp_path):
    turned = Affine(2.0, 1.0, 100.0, 0.5, -3.0, 900.0)
    colour, gray = tmp_path / "a.tif", tmp_path / "b.tif"
    write_capture(colour, noise(300, 200), everywhere(noise(300, 200)), grid(300, 200))
    write_capture(gray, noise(30, 20, 1), everywhere(noise(30, 20)), grid(30, 20, turned))
    with rasterio.open(colour) as dataset:
        assert (dataset.crs, dataset.transform) == (CRS.from_string(BASE_CRS), affine())
        assert dataset.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert dataset.block_shapes == [(128, 128)] * 3
        assert dataset.mask_flag_enums[0] == [MaskFlags.all_valid]
        assert dataset.compression.name == "deflate"
    with rasterio.open(gray) as dataset:
        assert (dataset.crs, dataset.transform) == (CRS.from_string(BASE_CRS), turned)
        assert dataset.colorinterp == (ColorInterp.gray,)


def test_the_same_image_gives_the_same_bytes_in_whatever_portions(tmp_path):
    image, valid = noise(400, 300), holes(400, 300)
    write_capture(tmp_path / "a.tif", image, valid, grid(400, 300))
    with written_capture(tmp_path / "b.tif", (400, 300), 3, grid(400, 300)) as tiff:
        for top, end in ((0, 128), (128, 384), (384, 400)):
            tiff.write_rows(image[top:end], valid[top:end])
            assert tiff.n_valid == valid[:end].sum()
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_rows_that_do_not_fit_are_refused(tmp_path):
    image = noise(200, 100)
    for portions in ([image[:100]], [image[:, :50]], [image[:128]], [image, image]):
        with (
            pytest.raises(ValueError, match=r"rows"),
            written_capture(tmp_path / "a.tif", (200, 100), 3, None) as tiff,
        ):
            for rows in portions:
                tiff.write_rows(rows, everywhere(rows))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", [1, 9, 400, 3_000, 100_000])
def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path, missing):
    path, image, valid = tmp_path / "a.tif", noise(300, 300), holes(300, 300)
    write_capture(path, image, valid, None)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - missing, hard))  # as a disk with so much room
    try:
        with pytest.raises(DataError, match="cannot be written to: File too large") as caught:
            write_capture(path, image, valid, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.where == str(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_capture(tmp_path / "file/a.tif", noise(8, 8), everywhere(noise(8, 8)), None)


# ---- what is read


def test_parts_are_the_parts(tmp_path):
    path, image, valid = tmp_path / "a.tif", noise(300, 400), holes(300, 400)
    write_capture(path, image, valid, None)
    for top, left, height, width in ((0, 0, 300, 400), (127, 255, 2, 130), (299, 399, 1, 1)):
        part = slice(top, top + height), slice(left, left + width)
        values = read_values(path, (top, left, height, width))
        assert values.flags.c_contiguous
        assert np.array_equal(values, image[part])
        assert np.array_equal(read_valid(path, (top, left, height, width)), valid[part])
    assert np.array_equal(read_values(path), image)
    assert np.array_equal(read_valid(path), valid)


def test_smaller_is_the_mean_of_the_valid_pixels(tmp_path):
    image = noise(256, 256, 1)
    valid = everywhere(image)
    valid[64:] = False
    valid[64:66, :128] = True  # half of the pixels of 4 x 4: not over half
    valid[64:67, 128:] = True
    image[~valid] = 0
    write_capture(tmp_path / "a.tif", image, valid, None)
    values, kept = (read(tmp_path / "a.tif", None, (64, 64)) for read in (read_values, read_valid))
    means = image[:64, :, 0].reshape(16, 4, 64, 4).mean(axis=(1, 3))
    assert np.abs(values[:16, :, 0] - means).max() <= 0.5
    row = image[64:67, 128:, 0].reshape(3, 32, 4).mean(axis=(0, 2))
    assert np.abs(values[16, 32:, 0] - row).max() <= 0.5
    assert kept[:16].all()
    assert kept[16].tolist() == [False] * 32 + [True] * 32
    assert not kept[17:].any()
    part = read_values(tmp_path / "a.tif", (16, 32, 32, 64), (8, 16))
    assert np.array_equal(part, values[4:12, 8:24])


def test_larger_is_bilinear(tmp_path):
    image = np.arange(0, 160, 10, dtype=np.uint8).reshape(1, 16, 1).repeat(4, axis=0)
    write_capture(tmp_path / "a.tif", image, everywhere(image), None)
    values = read_values(tmp_path / "a.tif", size_px=(8, 32))
    assert values.shape == (8, 32, 1)
    assert np.abs(values[0, 1:-1, 0] - np.arange(2.5, 150, 5)).max() <= 0.5
    assert read_valid(tmp_path / "a.tif", size_px=(8, 32)).all()


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "a.tif"
    for seed in range(3):
        write_capture(path, noise(40, 40, 3, seed), everywhere(noise(40, 40)), None)
        assert np.array_equal(read_values(path), noise(40, 40, 3, seed))
    path.unlink()
    with pytest.raises(ImageError, match="No such file") as caught:
        read_values(path)
    assert caught.value.where == str(path)
    assert "prepare" in (caught.value.next_step or "")


def test_a_corrupt_file_is_an_error_each_time(tmp_path):
    path = tmp_path / "a.tif"
    write_capture(path, noise(300, 300), everywhere(noise(300, 300)), None)
    with path.open("r+b") as stream:
        stream.seek(1000)
        stream.write(bytes(2000))
    for _ in range(2):
        with pytest.raises(ImageError, match="cannot be read"):
            read_values(path)
        assert read_values(path, (200, 200, 50, 50)).shape == (50, 50, 3)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageError, match="cannot be read"):
        read_valid(path)


def n_open(folder: Path) -> int:
    return sum(str(folder) in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())


def test_few_files_stay_open(tmp_path):
    for n in range(rasters._MAX_OPEN + 10):
        write_capture(tmp_path / f"{n}.tif", noise(8, 8, 1, n), everywhere(noise(8, 8)), None)
        read_valid(tmp_path / f"{n}.tif")
        assert np.array_equal(read_values(tmp_path / f"{n}.tif"), noise(8, 8, 1, n))
    assert n_open(tmp_path) == rasters._MAX_OPEN
    assert np.array_equal(read_values(tmp_path / "0.tif"), noise(8, 8, 1, 0))
    kept = rasters._DATASETS.get(tmp_path / "0.tif")
    for n in range(rasters._MAX_OPEN + 10):
        read_valid(tmp_path / f"{n}.tif")
        read_valid(tmp_path / "0.tif")
    assert rasters._DATASETS.get(tmp_path / "0.tif") is kept  # those not read for longest are closed


def test_threads_read_with_files_of_their_own(tmp_path):
    image = noise(600, 600)
    write_capture(tmp_path / "a.tif", image, everywhere(image), None)
    read_values(tmp_path / "a.tif", (0, 0, 1, 1))
    started = threading.Barrier(4)

    def read(n: int) -> bool:
        started.wait()
        corners = np.random.default_rng(n).integers(0, 500, (40, 2)).tolist()
        return all(
            np.array_equal(read_values(tmp_path / "a.tif", (y, x, 100, 100)), image[y : y + 100, x : x + 100])
            for y, x in corners
        )

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("error")  # also of images without a place: filters are not safe in threads
        assert all(pool.map(read, range(4)))


def read_in_child(path: Path, results) -> None:
    before = rasters._DATASETS._process
    results.put((before != os.getpid(), read_values(path).sum(), rasters._DATASETS._process == os.getpid()))


def test_a_forked_worker_opens_its_own(tmp_path):
    image = noise(300, 300)
    write_capture(tmp_path / "a.tif", image, everywhere(image), None)
    read_values(tmp_path / "a.tif", (0, 0, 10, 10))
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: threads of other tests may live
        child = context.Process(target=read_in_child, args=(tmp_path / "a.tif", results))
        child.start()
    child.join(30)
    assert child.exitcode == 0
    assert results.get() == (True, image.sum(), True)
    assert np.array_equal(read_values(tmp_path / "a.tif"), image)
