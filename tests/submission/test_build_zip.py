from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from submission_zips import EXPECTED, IDS, README, pixels, tiff

from pbvs.core.challenge import TASKS
from pbvs.core.errors import SubmissionError, UsageError
from pbvs.core.files import sha256_of_file
from pbvs.core.pixels import encode_png, read_image
from pbvs.submission import build, check, rules


@pytest.fixture
def predictions(tmp_path) -> Path:
    """Four task folders of images; sar2ir as TIFF."""
    rng = np.random.default_rng(3)
    root = tmp_path / "predictions"
    for task, ids in IDS.items():
        (root / task).mkdir(parents=True)
        for stem in ids:
            image = pixels(rng, EXPECTED[task].size_px, EXPECTED[task].bands)
            if task == "sar2ir":
                (root / task / f"{stem}.tiff").write_bytes(tiff(image))
            else:
                (root / task / f"{stem}.png").write_bytes(encode_png(image))
    return root


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_zip_holds_the_same_pixels_under_the_inputs_ids(predictions, tmp_path):
    built = build(predictions, tmp_path / "new" / "submission.zip", README, EXPECTED)
    assert built.images == {"sar2eo": 3, "sar2rgb": 3, "rgb2ir": 2, "sar2ir": 2}
    assert built.warnings == []
    assert built.n_bytes == built.path.stat().st_size
    assert built.sha256 == sha256_of_file(built.path)
    assert check(built.path, EXPECTED, predictions).problems == []
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(tmp_path / "back")
        assert archive.read("readme.txt").decode() == README.text()
    for source in sorted(predictions.glob("*/*")):
        back = tmp_path / "back" / source.parent.name / f"{source.stem}.png"
        np.testing.assert_array_equal(read_image(back), read_image(source))


def test_entries_are_sorted_undated_and_stored(predictions, tmp_path):
    built = build(predictions, tmp_path / "s.zip", README, EXPECTED)
    with zipfile.ZipFile(built.path) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == [
        "readme.txt",
        *[f"{task}/{stem}.png" for task in TASKS for stem in sorted(IDS[task])],
    ]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {stat.S_IFREG | 0o644}
    assert {info.create_system for info in infos} == {3}
    assert [info.compress_type for info in infos] == [zipfile.ZIP_DEFLATED] + [zipfile.ZIP_STORED] * 10


def test_the_same_files_give_the_same_bytes_whatever_their_dates(predictions, tmp_path):
    first = build(predictions, tmp_path / "a.zip", README, EXPECTED)
    for path in predictions.glob("*/*"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert build(predictions, tmp_path / "b.zip", README, EXPECTED).sha256 == first.sha256


def test_the_same_pixels_written_again_give_the_same_bytes(predictions, tmp_path):
    first = build(predictions, tmp_path / "a.zip", README, EXPECTED, compression=6)
    for path in predictions.glob("*/*.png"):
        other = tmp_path / "other" / path.parent.name
        other.mkdir(parents=True, exist_ok=True)
        (other / f"{path.stem}.tif").write_bytes(tiff(read_image(path)))  # other files, dates and format
    for path in predictions.glob("*/*.tiff"):
        other = tmp_path / "other" / path.parent.name
        other.mkdir(parents=True, exist_ok=True)
        (other / f"{path.stem}.png").write_bytes(encode_png(read_image(path), 1))
    second = build(tmp_path / "other", tmp_path / "b.zip", README, EXPECTED, compression=6)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256


def test_another_pixel_gives_another_sha256(predictions, tmp_path):
    first = build(predictions, tmp_path / "a.zip", README, EXPECTED)
    target = predictions / "sar2eo" / "66.png"
    image = read_image(target).copy()
    image[0, 0, 0] ^= 1
    target.write_bytes(encode_png(image))
    assert build(predictions, tmp_path / "b.zip", README, EXPECTED).sha256 != first.sha256


def test_hidden_files_and_records_are_ignored(predictions, tmp_path):
    for name in (".DS_Store", "score.json", "sar2eo/._66.png", "sar2eo/times.csv", "sar2eo/Thumbs.db"):
        (predictions / name).write_bytes(b"x")
    (predictions / "__MACOSX").mkdir()
    built = build(predictions, tmp_path / "s.zip", README, EXPECTED)
    assert built.images["sar2eo"] == 3


def test_one_task_alone_is_built_with_warnings(predictions, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (predictions / "rgb2ir").rename(alone / "rgb2ir")
    built = build(alone, tmp_path / "s.zip", README, EXPECTED)
    assert built.images == {"rgb2ir": 2}
    assert [w.split()[0] for w in built.warnings] == ["sar2eo", "sar2rgb", "sar2ir"]


def test_progress_ends_at_the_number_of_images(predictions, tmp_path):
    calls: list[tuple[int, int]] = []
    build(
        predictions,
        tmp_path / "s.zip",
        README,
        EXPECTED,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(i, 10) for i in range(1, 11)]


def test_a_zip_within_the_predictions_can_be_built_again(predictions):
    out = predictions / "submission.zip"
    first = build(predictions, out, README, EXPECTED)
    assert build(predictions, out, README, EXPECTED, overwrite=True).sha256 == first.sha256


def truncate(p: Path) -> None:
    p.write_bytes(p.read_bytes()[:-50])


def small(p: Path) -> None:
    p.write_bytes(encode_png(pixels(np.random.default_rng(1), (8, 8), 1)))


def rgb(p: Path) -> None:
    p.write_bytes(encode_png(pixels(np.random.default_rng(1), (16, 16), 3)))


def deep(p: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (16, 16), dtype=np.uint16)
    p.write_bytes(cv2.imencode(".png", values)[1].tobytes())


def floats(p: Path) -> None:
    p.unlink()
    p.with_suffix(".tif").write_bytes(tiff(np.random.default_rng(1).random((16, 16, 1), np.float32)))


def double(p: Path) -> None:
    p.with_suffix(".tif").write_bytes(tiff(pixels(np.random.default_rng(1), (16, 16), 1)))


def black(p: Path) -> None:
    p.write_bytes(encode_png(np.zeros((16, 16, 1), np.uint8)))


def script(p: Path) -> None:
    p.with_name("run.py").write_text("x", encoding="utf-8")


def subfolder(p: Path) -> None:
    (p.parent / "old").mkdir()


def odd_name(p: Path) -> None:
    p.rename(p.with_name("bäume.png"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "67.png: the image cannot be read"),
        (small, "67.png: 8 x 8 pixels instead of 16 x 16"),
        (rgb, "67.png: 3 bands instead of 1"),
        (deep, "67.png: pixels are uint16"),
        (floats, "67.tif: pixels are float32"),
        (double, "2 files for one id of sar2eo: 67.png, 67.tif"),
        (black, "sar2eo/67.png: the image is all black"),
        (script, "run.py"),
        (subfolder, "old"),
        (odd_name, "sar2eo/bäume.png: the name contains characters"),
    ],
)
def test_a_spoilt_prediction_is_named_and_nothing_is_left(predictions, tmp_path, spoil, message):
    spoil(predictions / "sar2eo" / "67.png")
    (tmp_path / "out").mkdir()
    with pytest.raises(SubmissionError) as caught:
        build(predictions, tmp_path / "out" / "s.zip", README, EXPECTED)
    assert message in str(caught.value)
    assert caught.value.next_step
    assert names_in(tmp_path / "out") == []


def test_all_spoilt_images_are_reported_at_once(predictions, tmp_path):
    truncate(predictions / "sar2eo" / "66.png")
    small(predictions / "rgb2ir" / "1.png")
    with pytest.raises(SubmissionError) as caught:
        build(predictions, tmp_path / "s.zip", README, EXPECTED)
    assert caught.value.what.startswith("2 of the predictions")
    assert "66.png" in str(caught.value)
    assert "1.png" in str(caught.value)


def test_constant_images_can_be_allowed(predictions, tmp_path):
    black(predictions / "sar2eo" / "67.png")
    built = build(predictions, tmp_path / "s.zip", README, EXPECTED, allow_constant=True)
    assert built.warnings == ["sar2eo/67.png: the image is all black"]


def test_a_folder_that_is_no_task_is_refused_with_the_nearest(predictions, tmp_path):
    (predictions / "sar2eo").rename(predictions / "SAR2E0")
    with pytest.raises(SubmissionError, match="did you mean 'sar2eo'"):
        build(predictions, tmp_path / "s.zip", README, EXPECTED)


def test_no_folders_empty_folders_and_no_predictions(tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(SubmissionError, match="sar2eo, sar2rgb, rgb2ir, sar2ir"):
        build(tmp_path / "p", tmp_path / "s.zip", README, EXPECTED)
    (tmp_path / "p" / "sar2eo").mkdir()
    with pytest.raises(SubmissionError, match="has no images"):
        build(tmp_path / "p", tmp_path / "s.zip", README, EXPECTED)
    with pytest.raises(UsageError, match="no such folder"):
        build(tmp_path / "q", tmp_path / "s.zip", README, EXPECTED)


def test_a_task_nobody_described_is_misuse(predictions, tmp_path):
    known = {task: wanted for task, wanted in EXPECTED.items() if task != "sar2ir"}
    with pytest.raises(UsageError, match="sar2ir"):
        build(predictions, tmp_path / "s.zip", README, known)


def test_an_existing_zip_is_kept_unless_overwrite(predictions, tmp_path):
    out = tmp_path / "s.zip"
    out.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already"):
        build(predictions, out, README, EXPECTED)
    truncate(predictions / "sar2eo" / "66.png")
    with pytest.raises(SubmissionError):
        build(predictions, out, README, EXPECTED, overwrite=True)
    assert out.read_bytes() == b"old"
    assert names_in(tmp_path) == ["predictions", "s.zip"]


@pytest.mark.parametrize("compression", [-1, 10])
def test_an_impossible_compression_is_misuse(predictions, tmp_path, compression):
    with pytest.raises(UsageError, match=r"not 0\.\.9"):
        build(predictions, tmp_path / "s.zip", README, EXPECTED, compression=compression)


def test_compression_changes_the_size_and_not_the_pixels(tmp_path):
    folder = tmp_path / "p" / "sar2eo"
    folder.mkdir(parents=True)
    ramp = (np.add.outer(np.arange(16), np.arange(16)) % 7).astype(np.uint8)[:, :, None]
    (folder / "0.png").write_bytes(encode_png(ramp))
    sizes = [
        build(tmp_path / "p", tmp_path / f"{level}.zip", README, EXPECTED, compression=level).n_bytes
        for level in (0, 9)
    ]
    assert sizes[0] > sizes[1]


def test_large_zips_warn_and_are_refused_unless_forced(predictions, tmp_path, monkeypatch):
    out = tmp_path / "s.zip"
    monkeypatch.setattr(rules, "LARGE_BYTES", 1000)
    assert "uploads over" in build(predictions, out, README, EXPECTED).warnings[-1]
    out.unlink()
    monkeypatch.setattr(rules, "TOO_LARGE_BYTES", 2000)
    with pytest.raises(SubmissionError, match="grows over"):
        build(predictions, out, README, EXPECTED)
    assert names_in(tmp_path) == ["predictions"]
    forced = build(predictions, out, README, EXPECTED, force_large=True)
    assert any("fail silently" in warning for warning in forced.warnings)


def test_a_path_that_cannot_be_written_is_an_error(predictions, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SubmissionError, match="cannot be written"):
        build(predictions, tmp_path / "file" / "s.zip", README, EXPECTED)
    with pytest.raises(UsageError, match="a folder"):
        build(predictions, predictions, README, EXPECTED)


def test_plain_pngs_go_in_as_they_are_and_others_are_written_again(predictions, tmp_path):
    """A comment in a PNG would go to the organisers; re-encoding removes it."""
    plain = sorted((predictions / "sar2eo").glob("*.png"))[0]
    commented = sorted((predictions / "sar2eo").glob("*.png"))[1]
    data = commented.read_bytes()
    text = b"tEXtAuthor\0me"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    commented.write_bytes(data[:33] + chunk + data[33:])
    built = build(predictions, tmp_path / "s.zip", README, EXPECTED)
    with zipfile.ZipFile(built.path) as archive:
        assert archive.read(f"sar2eo/{plain.stem}.png") == plain.read_bytes()
        written = archive.read(f"sar2eo/{commented.stem}.png")
    assert b"Author" not in written
    assert np.array_equal(cv2.imdecode(np.frombuffer(written, np.uint8), -1), cv2.imread(str(commented), -1))


def test_one_band_tasks_as_rgb_by_choice(predictions, tmp_path):
    built = build(predictions, tmp_path / "s.zip", README, EXPECTED, bands="rgb")
    with zipfile.ZipFile(built.path) as archive:
        for source in (predictions / "sar2eo").glob("*.png"):
            image = cv2.imdecode(np.frombuffer(archive.read(f"sar2eo/{source.stem}.png"), np.uint8), -1)
            gray = cv2.imread(str(source), -1)
            assert np.array_equal(image, np.repeat(gray[:, :, None], 3, axis=2))
    assert any("RGB" in note for note in built.warnings)


def test_another_size_is_refused_unless_allowed(predictions, tmp_path):
    path = sorted((predictions / "sar2eo").glob("*.png"))[0]
    smaller = cv2.imread(str(path), -1)[::2, ::2]
    cv2.imwrite(str(path), smaller)
    with pytest.raises(SubmissionError, match="instead of"):
        build(predictions, tmp_path / "s.zip", README, EXPECTED)
    built = build(predictions, tmp_path / "s.zip", README, EXPECTED, allow_size=True)
    assert any("pixels instead of" in note for note in built.warnings)


KILLED = """
import sys
from pathlib import Path
from submission_zips import EXPECTED, README
from pbvs.submission import build
build(Path(sys.argv[1]), Path(sys.argv[2]), README, EXPECTED, compression=9, overwrite=True,
      progress=lambda done, total: print(done, flush=True))
"""


def test_a_build_that_is_killed_leaves_no_zip_or_a_whole_one(predictions, tmp_path):
    out = tmp_path / "s.zip"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for after in (0, 3, 10):  # of ten images: before the first, between, and in the check of the whole
        command = [sys.executable, "-c", KILLED, str(predictions), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            while after and int(process.stdout.readline()) < after:
                pass
            process.kill()
        assert not out.exists() or check(out, EXPECTED).good
    assert build(predictions, out, README, EXPECTED, overwrite=True).sha256
    assert check(out, EXPECTED).good
