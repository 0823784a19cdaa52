from __future__ import annotations

import stat
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from broken_zips import BROKEN, EO, GRAY, PNG, Entries, drop, overwrite, rng
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from submission_zips import (
    EXPECTED,
    IDS,
    Entry,
    at,
    declare_size,
    flip_data,
    good_entries,
    make_inputs,
    pixels,
    tiff,
    with_data,
    write_zip,
)

from pbvs.core.errors import UsageError
from pbvs.core.pixels import encode_png
from pbvs.submission import check, rules


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path / "inputs")


# --- zips that are good


def test_a_good_zip_has_no_problems(tmp_path, inputs):
    path = write_zip(tmp_path / "good.zip", good_entries())
    report = check(path, EXPECTED, inputs)
    assert report.problems == []
    assert report.good
    assert report.notes == []
    assert report.images == {"sar2eo": 3, "sar2rgb": 3, "rgb2ir": 2, "sar2ir": 2}
    assert report.n_bytes == path.stat().st_size
    assert report.text() == ""


def test_entries_of_folders_are_no_problem(tmp_path):
    folders = [Entry(f"{task}/", b"", mode=stat.S_IFDIR | 0o755) for task in IDS]
    assert check(write_zip(tmp_path / "z.zip", folders + good_entries()), EXPECTED).problems == []


def test_a_task_without_folder_is_a_note(tmp_path, inputs):
    entries = [entry for entry in good_entries() if not entry.name.startswith("sar2ir")]
    report = check(write_zip(tmp_path / "z.zip", entries), EXPECTED, inputs)
    assert report.problems == []
    assert report.notes == ["sar2ir is not attempted: it counts 1 in the overall score"]
    assert "sar2ir" not in report.images


def test_rgb_for_a_one_band_task_is_a_note(tmp_path):
    data = encode_png(pixels(rng(), (16, 16), 3))
    report = check(write_zip(tmp_path / "z.zip", with_data(good_entries(), EO, data)), EXPECTED)
    assert report.problems == []
    assert report.notes[-1].startswith("sar2eo: 1 of 3 images are RGB")


@pytest.mark.parametrize(
    "place", ["{task}", "{task}/input", "test/{task}", "val/{task}/input", "val/{task}", "test/{task}/input"]
)
def test_inputs_are_found_in_every_layout(tmp_path, place):
    root = make_inputs(tmp_path / "inputs", place)
    entries = good_entries()
    good = check(write_zip(tmp_path / "a.zip", entries), EXPECTED, root)
    del entries[at(entries, EO)]
    bad = check(write_zip(tmp_path / "b.zip", entries), EXPECTED, root)
    assert good.problems == []
    assert [p.what for p in bad.problems] == ["1 of 3 images of sar2eo are missing: 66"]


def test_progress_counts_the_images(tmp_path):
    calls: list[tuple[int, int]] = []
    path = write_zip(tmp_path / "z.zip", good_entries())
    check(path, EXPECTED, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 10) for i in range(1, 11)]


# --- zips that are broken


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_reported_with_path_and_hint(name, tmp_path, inputs):
    case = BROKEN[name]
    path = write_zip(tmp_path / "z.zip", case.change(good_entries()))
    case.patch(path)
    report = check(path, EXPECTED, inputs)
    assert not report.good
    same = [p for p in report.problems if p.kind == case.kind and p.path == case.path and case.what in p.what]
    assert same, report.text()
    assert any(case.hint in p.hint for p in same), report.text()


@pytest.mark.parametrize("name", ["one top folder", "two top folders"])
def test_a_folder_around_everything_hides_no_other_fault(name, tmp_path, inputs):
    entries = drop("sar2rgb/10.png")(with_data(good_entries(), EO, PNG[:-40]))
    report = check(write_zip(tmp_path / "z.zip", BROKEN[name].change(entries)), EXPECTED, inputs)
    assert {p.kind for p in report.problems} == {"nested", "readme", "image", "missing"}


def test_a_folder_around_everything_is_not_to_be_removed(tmp_path):
    around = [Entry("submission/", b""), *BROKEN["one top folder"].change(good_entries())]
    report = check(write_zip(tmp_path / "z.zip", around), EXPECTED)
    assert [p.kind for p in report.problems if p.path == "submission/"] == ["nested"]


def test_all_faults_are_reported_at_once(tmp_path, inputs):
    entries = good_entries()
    wanted = ["__MACOSX", "script", "doubled entry", "dot dot", "all black", "gray for RGB", "no readme"]
    for name in wanted:
        entries = BROKEN[name].change(entries)
    report = check(write_zip(tmp_path / "z.zip", entries), EXPECTED, inputs)
    assert {BROKEN[name].kind for name in wanted} <= {p.kind for p in report.problems}
    assert report.problems == sorted(report.problems)
    assert len(report.problems) == len(set(report.problems))


def test_the_text_lists_one_fault_of_many_files_once(tmp_path):
    black = encode_png(GRAY * 0)
    entries = [replace(e, data=black) if e.name.startswith("sar2eo/") else e for e in good_entries()]
    text = check(write_zip(tmp_path / "z.zip", entries), EXPECTED).text(most_paths=2)
    assert text.count("all black") == 1
    assert "sar2eo/66.png, sar2eo/67.png and 1 more" in text


def test_inputs_without_any_task_are_a_problem(tmp_path):
    (tmp_path / "inputs").mkdir()
    report = check(write_zip(tmp_path / "z.zip", good_entries()), EXPECTED, tmp_path / "inputs")
    assert [p.kind for p in report.problems] == ["missing"]
    assert "no test inputs" in report.problems[0].what


def test_a_task_nobody_described_is_a_problem(tmp_path):
    known = {task: wanted for task, wanted in EXPECTED.items() if task != "sar2ir"}
    report = check(write_zip(tmp_path / "z.zip", good_entries()), known)
    assert [(p.path, p.kind) for p in report.problems] == [("sar2ir/", "folder")]


def test_constant_images_can_be_allowed(tmp_path):
    path = write_zip(tmp_path / "z.zip", with_data(good_entries(), EO, encode_png(GRAY * 0)))
    report = check(path, EXPECTED, allow={"constant"})
    assert report.good
    assert report.notes == ["sar2eo/66.png: the image is all black"]


def test_large_zips_warn_and_then_fail(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "z.zip", good_entries())
    monkeypatch.setattr(rules, "LARGE_BYTES", 1000)
    warned = check(path, EXPECTED)
    assert warned.good
    assert "uploads over" in warned.notes[-1]
    monkeypatch.setattr(rules, "TOO_LARGE_BYTES", 2000)
    refused = check(path, EXPECTED)
    assert [p.kind for p in refused.problems] == ["large"]
    assert check(path, EXPECTED, allow={"large"}).good


@pytest.mark.parametrize("where", ["missing.zip", "."])
def test_a_zip_that_is_not_there_is_misuse(tmp_path, where):
    with pytest.raises(UsageError, match=r"no such zip|a folder"):
        check(tmp_path / where, EXPECTED)


def test_missing_inputs_and_unknown_allowances_are_misuse(tmp_path):
    path = write_zip(tmp_path / "z.zip", good_entries())
    with pytest.raises(UsageError, match="test inputs"):
        check(path, EXPECTED, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="'nested' cannot be allowed"):
        check(path, EXPECTED, allow={"nested"})


# --- bombs: refused fast, and without taking memory


def zeros_entry(path: Path, n_bytes: int) -> None:
    """A good zip with one more entry: `n_bytes` of zeros, compressed by a factor of about 1000."""
    write_zip(path, good_entries())
    info = zipfile.ZipInfo("sar2eo/zeros.png")
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "a") as archive, archive.open(info, "w") as stream:
        for _ in range(n_bytes // 1_000_000):
            stream.write(bytes(1_000_000))


def checked_in_bounds(path: Path) -> list[rules.Problem]:
    """The problems, found in under 5 s and 30 MB."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        report = check(path, EXPECTED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000
    assert time.monotonic() - start < 5
    return report.problems


def test_an_honest_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "z.zip"
    zeros_entry(path, 200_000_000)
    assert path.stat().st_size < 1_000_000
    assert [(p.path, p.kind) for p in checked_in_bounds(path)] == [("sar2eo/zeros.png", "bomb")]


@pytest.mark.parametrize("declared_size", [0, 300, 5_000_000])
def test_a_bomb_that_declares_little_is_cut_off(tmp_path, declared_size):
    path = tmp_path / "z.zip"
    zeros_entry(path, 200_000_000)
    declare_size(path, "sar2eo/zeros.png", declared_size)
    assert [(p.path, p.kind) for p in checked_in_bounds(path)] == [("sar2eo/zeros.png", "torn")]


def test_many_entries_that_are_large_together_are_not_read(tmp_path):
    path = tmp_path / "z.zip"
    names = [f"sar2eo/{i}.png" for i in range(140)]
    write_zip(path, [good_entries()[0], *[Entry(name, PNG) for name in names]])
    for name in names:
        declare_size(path, name, 60_000_000)
    problems = checked_in_bounds(path)
    assert [p.kind for p in problems] == ["bomb"]
    assert "8400.0 MB" in problems[0].what


def test_too_many_entries_are_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("pbvs.submission.entries.MOST_ENTRIES", 5)
    problems = check(write_zip(tmp_path / "z.zip", good_entries()), EXPECTED).problems
    assert [p.kind for p in problems] == ["bomb"]


# --- properties


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    root = tmp_path_factory.mktemp("mutants")
    make_inputs(root / "inputs")
    return root


MUTATIONS = (
    "drop",
    "rename",
    "duplicate",
    "move",
    "cut image",
    "flip data",
    "flip image",
    "cut zip",
    "stray",
)
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mutate(entries: Entries, index: int, how: str, draw: Callable[[int, int], int]) -> Entries:
    """One change that no good zip can have; those of the zip's own bytes come later."""
    entry = entries[index]
    if how == "drop":
        return entries[:index] + entries[index + 1 :]
    if how == "duplicate":
        return [*entries, entry]
    if how == "stray":
        return [*entries, Entry(f"{'abcdefgh'[draw(0, 7)]}{draw(0, 99)}.bin", b"x")]
    if how == "rename":
        entry = replace(entry, name=entry.name.replace(".", f"{draw(0, 99)}x."))
    elif how == "move":
        entry = replace(entry, name=f"{'abcdefgh'[draw(0, 7)]}/{entry.name}")
    elif how == "cut image":
        entry = replace(entry, data=entry.data[: draw(0, len(entry.data) * 3 // 4)])
    elif how == "flip image" and entry.name.endswith(".png"):
        data = bytearray(entry.data)
        position = draw(0, len(data) - 5)  # not in the checksum of IEND, which decoders ignore
        data[position] ^= 1 << draw(0, 7)
        entry = replace(entry, data=bytes(data))
    elif how == "flip image":
        entry = replace(entry, data=entry.data[:4])
    return [*entries[:index], entry, *entries[index + 1 :]]


@SLOW
@given(seed=st.integers(0, 3), index=st.integers(0, 10), how=st.sampled_from(MUTATIONS), data=st.data())
def test_a_mutated_zip_is_never_good(scratch, seed, index, how, data):
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    entries = mutate(good_entries(seed), index, how, draw)
    path = write_zip(scratch / "m.zip", entries)
    if how == "flip data":
        flip_data(path, entries[index].name, draw(0, 10_000))
    if how == "cut zip":
        size = path.stat().st_size
        overwrite(path, lambda whole: whole[: draw(0, size - 1)])
    assert check(path, EXPECTED, scratch / "inputs").problems


@SLOW
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=9)
)
def test_no_bytes_make_the_check_itself_fail(scratch, places):
    path = write_zip(scratch / "f.zip", good_entries())
    whole = bytearray(path.read_bytes())
    for where, value in places:
        whole[int(where * len(whole))] = value
    path.write_bytes(whole)
    report = check(path, EXPECTED, scratch / "inputs")
    assert report.n_bytes == len(whole)


@SLOW
@given(
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    anywhere=st.booleans(),
    big=st.sampled_from(["YES", "NO"]),
)
def test_no_tiff_makes_the_check_fail_or_hang(scratch, places, anywhere, big):
    image = bytearray(tiff(pixels(rng(), (16, 24), 1), compress="deflate", BIGTIFF=big))
    for where, value in places:
        image[where % (len(image) if anywhere else 300)] = value
    path = write_zip(scratch / "t.zip", with_data(good_entries(), "sar2ir/0.tiff", bytes(image)))
    start = time.monotonic()
    assert check(path, EXPECTED, scratch / "inputs").images["sar2ir"] == 2
    assert time.monotonic() - start < 5
