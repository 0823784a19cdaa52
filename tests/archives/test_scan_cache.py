"""The cache of headers saves opening files, never changes a result, and is not used when invalid."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from made_archives import add_location, add_tiles, write_tiff

from pbvs.archives import headers, scan_cache
from pbvs.archives.scan import scan, scan_files
from pbvs.core.files import cache_folder
from pbvs.core.pixels import write_png

LONG_AGO = 1_500_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PBVS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    """Five GeoTIFFs and four tiles, written long ago."""
    root = tmp_path / "archives"
    add_location(root, flights=2)
    add_tiles(root, n=2)
    for path in root.rglob("*.*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return root


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files whose headers are read, in no order."""
    names: list[str] = []
    for name in ("read_tiff_header", "read_png_header"):
        real = getattr(headers, name)

        def counted(path, real=real):
            names.append(Path(path).name)
            return real(path)

        monkeypatch.setattr(headers, name, counted)
    return names


def same(a, b) -> bool:
    return a.images.equals(b.images) and a.problems.equals(b.problems)


def cache_file(cache: Path) -> Path:
    (file,) = [path for path in cache.rglob("*") if path.is_file()]
    return file


def test_a_second_scan_opens_nothing_and_finds_the_same(root, read):
    (root / "Train_Data_Bingham_SAR_IR_RGB" / "40.64610_-112.18230" / "x.tif").write_bytes(b"")
    first = scan(root)
    assert len(read) == 9
    read.clear()
    second = scan(root)
    assert read == []
    assert same(first, second)
    assert len(second.problems) == 1
    scan_files(root)
    scan_files(Path(os.path.relpath(root)))  # the same root by another name
    assert read == []
    assert same(scan(root, cache=False), first)
    assert len(read) == 9


def test_what_changed_is_read_again(root, read, cache):
    scan(root)
    read.clear()
    place = next(root.glob("Train_Data_B*/*"))
    write_tiff(place / "flight_20190601_ir.tif", np.zeros((9, 11), np.uint8))  # other size
    same_size = (place / "20190611_UMBRA_GEC.tif").stat().st_size
    write_tiff(place / "20190611_UMBRA_GEC.tif", np.ones((96, 96), np.uint8), "EPSG:26912")
    with (place / "20190611_UMBRA_GEC.tif").open("ab") as file:
        file.truncate(same_size)
    os.utime(place / "20190611_UMBRA_GEC.tif", (LONG_AGO + 1, LONG_AGO + 1))  # only its time
    (place / "flight_20200601_rgb.tiff").rename(place / "flight_20210601_rgb.tiff")
    tile = root / "Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_0.png"
    tile.unlink()
    found = scan(root)
    assert sorted(read) == [
        "20190611_UMBRA_GEC.tif",
        "flight_20190601_ir.tif",
        "flight_20210601_rgb.tiff",
    ]
    assert same(found, scan(root, cache=False))
    sizes = found.images.set_index("path")
    assert sizes.width_px[(place / "flight_20190601_ir.tif").relative_to(root).as_posix()] == 11
    assert "Gotcha_0" not in sizes[sizes.modality == "eo"].capture.tolist()
    cached = cache_file(cache).read_text()
    assert "flight_20200601_rgb" not in cached


def test_young_files_are_not_cached(root, read, cache):
    young = root / "Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_0.png"
    write_png(young, np.zeros((32, 32, 1), np.uint8))
    scan(root)
    read.clear()
    scan(root)
    assert read == ["Gotcha_0.png"]


def test_unreadable_files_are_read_again(root, read):
    corrupt = next(root.glob("Train_Data_B*/*")) / "corrupt.tif"
    corrupt.write_bytes(b"II*\0 and nothing of a TIFF")
    os.utime(corrupt, (LONG_AGO, LONG_AGO))
    scan(root)
    read.clear()
    assert list(scan(root).problems.kind) == ["unreadable"]
    assert read == ["corrupt.tif"]


def test_a_new_world_file_counts_at_once(root, read):
    place = next(root.glob("Train_Data_B*/*"))
    write_tiff(place / "a_ir.tif", np.zeros((8, 8), np.uint8), crs=None)
    os.utime(place / "a_ir.tif", (LONG_AGO, LONG_AGO))
    scan(root)
    (place / "a_ir.tfw").write_text("2\n0\n0\n-2\n101\n199\n")
    found = scan(root).images.set_index("path")
    key = (place / "a_ir.tif").relative_to(root).as_posix()
    assert found["transform"][key] == "2.0 0.0 100.0 0.0 -2.0 200.0"
    (place / "a_ir.tfw").unlink()
    assert scan(root).images.set_index("path")["transform"][key] == ""


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data.replace(b"EPSG:32612", b"EPSG:32613")


def widen(data: bytes) -> bytes:
    """Another body with the hash of the old one."""
    about, body = data.split(b"\n")
    values = json.loads(body)
    values[0] = [[9999, *header[1:]] for header in values[0]]
    return about + b"\n" + json.dumps(values).encode()


@pytest.mark.parametrize(
    "damage",
    [truncate, flip, widen, lambda data: b"", lambda data: b"\xff\0" * 500, lambda data: b"[" * 99_999],
)
def test_a_damaged_cache_is_rebuilt_and_never_used(root, read, cache, damage):
    first = scan(root)
    file = cache_file(cache)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    read.clear()
    assert same(scan(root), first)
    assert len(read) == 9
    assert file.read_bytes() == whole


def test_the_cache_of_another_root_or_version_is_not_used(root, read, cache, tmp_path, monkeypatch):
    scan(root)
    other = tmp_path / "other"
    add_location(other)
    for path in other.rglob("*.tif*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    mine = cache_file(cache)
    right = scan(other)
    theirs = next(path for path in cache.rglob("*.json") if path != mine)
    theirs.write_bytes(mine.read_bytes())
    read.clear()
    assert same(scan(other), right)
    assert len(read) == 3
    monkeypatch.setattr(scan_cache.rasterio, "__gdal_version__", "9.9")
    scan(other)
    assert len(read) == 6


def test_a_cache_that_cannot_be_written_is_logged_once(root, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PBVS_CACHE", str(tmp_path / "file" / "cache"))
    found = scan(root)
    assert len(found.images) == 9
    (record,) = caplog.records
    assert "cannot be cached" in record.getMessage()
    assert same(scan(root, cache=False), found)
    assert len(caplog.records) == 1


def test_a_full_disk_leaves_the_old_cache(root, cache, monkeypatch, caplog):
    scan(root)
    before = cache_file(cache).read_bytes()
    os.utime(next(root.rglob("*_ir.tif")), (LONG_AGO + 5, LONG_AGO + 5))

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert len(scan(root).images) == 9
    assert "No space left" in caplog.text
    assert cache_file(cache).read_bytes() == before


def test_scans_at_the_same_time(root, cache):
    right = scan(root, cache=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(scan(root))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [same(one, right) for one in found] == [True, True]
    assert same(scan(root), right)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PBVS_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("PBVS_CACHE", "")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "pbvs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pbvs"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "pbvs"
