"""Failures while preparing: files that vanish or are corrupt, a full disk, a run that is stopped."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_archives import add_location, location_in, sar_in, write_tiff
from prepared_trees import Rank, corrupted, prepared, problem_kinds, whole_tree

from pbvs.core.errors import DataError
from pbvs.dataset.index import PreparedData
from pbvs.prepare import prepare as module
from pbvs.prepare.prepare import PrepareRules
from pbvs.prepare.records import Journal, Record, load_records

PLACE = "stack/Bingham/40.64610_-112.18230"


@pytest.fixture
def vanishing(monkeypatch):
    """Deletes the named files right after the archives were scanned."""

    def vanish(*paths: Path) -> None:
        real = module.scan_files

        def scan_files(root, *given):
            found = real(root, *given)
            for path in paths:
                path.unlink()
            return found

        monkeypatch.setattr(module, "scan_files", scan_files)

    return vanish


def crs_and_transform(path: Path):
    import rasterio

    with rasterio.open(path) as dataset:
        return dataset.crs, dataset.transform, dataset.shape


def test_an_unreadable_file_costs_that_file_only(archives, tmp_path):
    out, place = tmp_path / "out", location_in(archives)
    corrupted(sar_in(place / "corrupt_GEC.tif"))
    truncated = sar_in(place / "truncated_GEC.tif")
    truncated.write_bytes(truncated.read_bytes()[:-4000])
    (place / "empty_rgb.tif").write_bytes(b"")
    tile = archives / "Train_Data_and_Validation_EO_SAR/SAR/train/Gotcha_0.png"
    whole = tile.read_bytes()
    tile.write_bytes(whole[:200] + bytes(600) + whole[800:])
    done = prepared(archives, out)
    assert problem_kinds(done) == {
        "corrupt_GEC.tif": "unreadable",
        "truncated_GEC.tif": "unreadable",
        "empty_rgb.tif": "empty",
        "Gotcha_0.png": "unreadable",
    }
    assert done.n_images == 8
    assert Counter(pd.read_csv(out / "problems.csv").kind) == {"unreadable": 3, "empty": 1}
    assert not (out / PLACE / "sar/corrupt_GEC.tif").exists()


def test_a_file_that_becomes_unreadable_takes_its_result_along(archives, tmp_path):
    out, bad = tmp_path / "out", location_in(archives) / "20190611_UMBRA_GEC.tif"
    prepared(archives, out)
    corrupted(bad)
    done = prepared(archives, out)
    assert (problem_kinds(done), done.n_deleted) == ({bad.name: "unreadable"}, 1)
    assert not (out / PLACE / "sar/20190611_UMBRA_GEC.tif").exists()


def test_files_that_vanish_after_the_scan_cost_those_files_only(archives, tmp_path, vanishing):
    out, tiles = tmp_path / "out", archives / "Train_Data_and_Validation_EO_SAR"
    vanishing(location_in(archives) / "flight_20200601_ir.tif", tiles / "SAR/train/Gotcha_1.png")
    done = prepared(archives, out)
    assert problem_kinds(done) == {"flight_20200601_ir.tif": "unreadable", "Gotcha_1.png": "unreadable"}
    assert done.n_images == 7
    assert all("No such file" in problem.what for problem in done.problems)


@pytest.mark.parametrize("modalities", [{"sar", "rgb", "ir"}, {"sar", "ir"}])
def test_the_next_image_gives_the_grid_where_the_first_cannot_be_read(
    archives, tmp_path, vanishing, modalities
):
    place = location_in(archives)
    mosaic = write_tiff(place / "mosaic_rgb.tif", np.full((20, 20, 3), 90, np.uint8))
    first = place / "flight_20190601_rgb.tiff"
    grid_of_next = crs_and_transform(place / "flight_20200601_rgb.tiff")
    vanishing(mosaic, first)
    done = prepared(archives, tmp_path / "out", modalities=modalities)
    problems = [(Path(problem.path).name, problem.kind) for problem in done.problems]
    assert problems == [(first.name, "unreadable"), (mosaic.name, "unreadable")]  # each once
    for path in (tmp_path / "out" / PLACE).rglob("*.tif"):
        assert crs_and_transform(path) == grid_of_next


def test_a_location_of_which_nothing_can_be_read(archives, tmp_path, vanishing):
    vanishing(*(path for path in location_in(archives).iterdir()))
    done = prepared(archives, tmp_path / "out")
    assert done.n_images == 4
    assert sorted(problem.kind for problem in done.problems) == ["unreadable"] * 5


# ---- stopped


def test_an_interrupted_run_goes_on_where_it_was(archives, tmp_path):
    prepared(archives, tmp_path / "straight")

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepared(archives, out, progress=interrupt)
    (out / "stack").mkdir(exist_ok=True)
    for stray in ("stack/.left.77.part.tif", ".index.77.part.csv"):
        (out / stray).write_bytes(b"half a file")
    with pytest.raises(DataError, match="not prepared to its end"):
        PreparedData.open(out)
    done = prepared(archives, out)
    assert done.n_kept >= 4
    assert whole_tree(out) == whole_tree(tmp_path / "straight")


@pytest.mark.parametrize("die_at", [1, 5, 9])
def test_a_killed_run_goes_on_where_it_was(archives, tmp_path, die_at):
    out, rules = tmp_path / "out", PrepareRules(register=True)
    straight = prepared(archives, tmp_path / "straight", rules=rules)
    assert Rank(archives, out, die_at=die_at, rules=rules).ended() == -9
    done = prepared(archives, out, rules=rules)
    assert done.n_kept >= die_at
    assert done.n_made + done.n_kept == straight.n_made
    assert whole_tree(out) == whole_tree(tmp_path / "straight")


def test_results_of_a_killed_run_are_not_mistaken_for_those_of_other_rules(archives, tmp_path, monkeypatch):
    """If the files had the same size, only their records would distinguish them."""
    out = tmp_path / "out"
    first = prepared(archives, out)
    tree = whole_tree(out)
    assert Rank(archives, out, size_px=(32, 32), die_at=7).ended() == -9
    killed = whole_tree(out)
    assert sum(killed[path] != tree[path] for path in tree if path.endswith(".tif")) >= 3
    monkeypatch.setattr(Record, "result_exists", lambda record, out: (out / record.out).exists())
    again = prepared(archives, out)
    assert (again.n_made, again.fingerprint) == (5, first.fingerprint)
    assert whole_tree(out) == tree


def test_a_truncated_line_of_the_journal_costs_that_line_only(tmp_path):
    record = Record(1, 2, "sha", "rules", "a.tif", 10, 5, 6, 0.5, (1.0, 2.0))
    journal = Journal(tmp_path)
    journal.note([("a", record), ("b", record), ("c", record)])
    journal.note([("b", None)])
    journal.close()
    path = tmp_path / "journal.0.jsonl"
    path.write_text(path.read_text() + '["d",[1,2,"sh')
    assert load_records(tmp_path) == {"a": record, "c": record}


# ---- a full disk


def test_a_full_disk_is_reported_and_the_next_run_resumes(archives, tmp_path):
    straight, out = prepared(archives, tmp_path / "straight"), tmp_path / "out"
    sizes = sorted(path.stat().st_size for path in (tmp_path / "straight").rglob("*.tif"))
    error = Rank(archives, out, file_bytes=sizes[-1] - 1, workers=1).ended()
    assert isinstance(error, DataError)
    assert "cannot be written" in error.what
    assert "free disk space" in (error.next_step or "")
    assert [path for path in out.rglob("*") if ".part" in path.name] == []
    for path in out.rglob("*.tif"):  # no partial files
        assert path.read_bytes() == (tmp_path / "straight" / path.relative_to(out)).read_bytes()
    done = prepared(archives, out)
    assert done.n_kept >= 1
    assert done.n_made + done.n_kept == straight.n_made
    assert whole_tree(out) == whole_tree(tmp_path / "straight")


@pytest.mark.parametrize("name", ["journal", "hashes", "index", "problems", "overlaps", "prepared"])
def test_a_disk_full_at_the_tables_leaves_what_was_there(archives, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    prepared(archives, out)
    tree = whole_tree(out)
    add_location(archives, name="1.0_2.0")
    real_write, real_open = Path.write_text, Path.open
    full = OSError(28, "No space left on device")

    def write_text(self, text, **options):
        # prepared.json is also written at the start, before any work
        if self.name.startswith(f".{name}.") and (name != "prepared" or '"complete": true' in text):
            raise full
        return real_write(self, text, **options)

    def open_(self, mode="r", **options):
        if name in ("journal", "hashes") and self.name.lstrip(".").startswith(name) and mode in ("a", "w"):
            raise full
        return real_open(self, mode, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", write_text)
        patched.setattr(Path, "open", open_)
        with pytest.raises(DataError, match="No space left on device") as caught:
            prepared(archives, out)
    assert str(out) in (caught.value.where or "")
    left = whole_tree(out)
    assert {path: left[path] for path in tree if path.endswith(".tif")} == {
        path: held for path, held in tree.items() if path.endswith(".tif")
    }
    assert not json.loads(left["prepared.json"])["complete"]
    prepared(archives, out)
    shutil.rmtree(tmp_path / "once", ignore_errors=True)
    prepared(archives, tmp_path / "once")
    assert whole_tree(out) == whole_tree(tmp_path / "once")
