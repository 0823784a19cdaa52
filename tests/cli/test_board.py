"""`pbvs board` after builds, scores and entered scores."""

import json

import pytest

from pbvs.submission.ledger import Ledger


@pytest.fixture(autouse=True)
def own_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("PBVS_LEDGER", str(tmp_path / "ledger.sqlite"))


@pytest.fixture
def zip_path(done, pbvs):
    built = done.root / "mine.zip"
    ended = pbvs("submit", "build", done.root / "out" / "predictions", "--out", built, "--tasks", done.tasks)
    assert ended.code == 0, ended.err
    return built


def board(pbvs):
    ended = pbvs("board", "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    return value, {one["rules"]: one for one in value["boards"]}


def test_every_build_and_score_is_a_row(done, zip_path, pbvs):
    predictions = done.root / "out" / "predictions"
    for more in ((), ("--no-ledger",)):
        ended = pbvs("score", predictions, done.targets, "--weights", "standin", "--rules", "2026", *more)
        assert ended.code == 0, ended.err
    build, score = Ledger().entries()
    assert build.kind == "build" and build.value["bytes"] == zip_path.stat().st_size
    assert build.value["made_of"]["sar2eo"]["task sar2eo"] and "weights of sar2eo.pix2pixhd" in str(
        build.value
    )
    report = score.value["report"]
    assert report["rules"] == "2026" and report["weights"]["kind"] == "standin"
    assert score.value["predictions"] == build.value["predictions"]

    _, boards = board(pbvs)
    (line,) = boards["2026"]["unranked"]
    assert line["name"] == f"{zip_path} (build 1)" and "standin" in line["words"]
    assert all(row["source"] == "published" for row in boards["2026"]["ranked"])
    assert boards["2024"]["unranked"] == []


def test_entered_scores_are_ranked_lowest_first_by_their_own_rules(zip_path, pbvs):
    ended = pbvs("board", "add", zip_path, "--combined", 0.35, "--sar2eo", 0.2, "--note", "first try")
    assert ended.code == 0 and "1 of 10" in ended.out, ended.err
    value, boards = board(pbvs)
    assert value["uploads_today"] == 1
    ranked = boards["2026"]["ranked"]
    assert [row["combined"] for row in ranked] == sorted(row["combined"] for row in ranked)
    mine = next(row for row in ranked if row["source"] == "board")
    assert mine["scores"] == {"sar2eo": 0.2} and mine["name"].startswith(str(zip_path))
    assert not any(row["source"] == "board" for row in boards["2024"]["ranked"])
    text = pbvs("board").out
    assert "sorts the other way" in text and "1 of 10" in text and "first try" in text


def test_official_local_scores_are_ranked_and_standins_never(zip_path, pbvs):
    report = {
        "rules": "2024",
        "fid_layer": 64,
        "overall": 0.25,
        "tasks": {"sar2eo": {"score": 0.1, "images": 3}},
    }
    for kind in ("official", "standin"):
        Ledger().add(
            "score", {"report": report | {"weights": {"kind": kind}}, "predictions": {"sar2eo": kind}}
        )
    _, boards = board(pbvs)
    assert boards["2024"]["ranked"][0]["source"] == "local"
    assert [row["words"] for row in boards["2024"]["unranked"]] == ["FID@64, standin weights, n = 3"]


def test_the_day_s_last_upload_is_warned_of(zip_path, pbvs):
    for n in range(1, 11):
        ended = pbvs("board", "add", zip_path, "--combined", 0.5, "--at", "2026-03-01T12:00:00")
        assert ended.code == 0 and f"{n} of 10" in ended.out
        assert ("one upload is left" in ended.err) == (n == 9)
        assert ("used up" in ended.err) == (n == 10)


def test_what_cannot_be_is_refused(tmp_path, zip_path, pbvs):
    assert "no such zip" in pbvs("board", "add", tmp_path / "none.zip", "--combined", 0.5).err
    ended = pbvs("board", "add", zip_path, "--combined", 35)
    assert ended.code == 2 and "0 to 4" in ended.err
    other = tmp_path / "other.zip"
    other.write_bytes(b"x")
    assert "no build of this zip" in pbvs("board", "add", other, "--combined", 0.5).err
