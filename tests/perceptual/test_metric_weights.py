from __future__ import annotations

import hashlib
import socket
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pbvs.core.errors import UsageError, WeightsError
from pbvs.perceptual import metric_weights as weights
from pbvs.perceptual.metric_weights import METRIC_WEIGHT_FILES, MetricWeightFile, load_metric_weights
from pbvs.perceptual.official_networks import whole_network

OFFICIAL = {"features.0.weight": torch.arange(6.0).reshape(2, 3), "classifier.0.weight": torch.zeros(5)}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetricWeightFile:
    """Two small files replace the official ones, with local files as addresses."""
    for name in ("alexnet", "vgg16"):
        source = tmp_path / "official" / METRIC_WEIGHT_FILES[name].file_name
        source.parent.mkdir(exist_ok=True)
        torch.save({**OFFICIAL, "features.1.bias": torch.tensor([float(len(name))])}, source)
        content = source.read_bytes()
        small = replace(
            METRIC_WEIGHT_FILES[name],
            url=source.as_uri(),
            sha256=hashlib.sha256(content).hexdigest(),
            n_bytes=len(content),
        )
        monkeypatch.setitem(METRIC_WEIGHT_FILES, name, small)
    return METRIC_WEIGHT_FILES["alexnet"]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield


@pytest.mark.parametrize("name", ["inception", "vgg16", "alexnet", "squeezenet1_1", "vgg19"])
def test_missing_official_weights_fail_at_once_and_say_what_to_do(
    name: str, empty_hub: Path, no_network: None
) -> None:
    began = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load_metric_weights(name, "official")
    assert time.perf_counter() - began < 1
    text, file = str(caught.value), METRIC_WEIGHT_FILES[name]
    for part in (
        str(empty_hub / file.file_name),
        file.sha256,
        f"pbvs weights fetch {name}",
        "--weights standin",
    ):
        assert part in text


def test_the_table_is_the_official_one() -> None:
    for file in METRIC_WEIGHT_FILES.values():
        assert file.url.endswith("/" + file.file_name)
        assert file.sha256.startswith(Path(file.file_name).stem.rsplit("-", 1)[1])
        assert len(file.sha256) == 64


def test_fetched_files_load_only_the_needed_tensors(small: MetricWeightFile, empty_hub: Path) -> None:
    calls: list[tuple[int, int]] = []
    assert weights.fetch(["alexnet"], lambda *t: calls.append(t)) == [empty_hub / small.file_name]
    assert calls[-1] == (small.n_bytes, small.n_bytes)
    state, sha256 = load_metric_weights("alexnet", "official")
    assert sha256 == small.sha256
    assert set(state) == {"features.0.weight", "features.1.bias"}
    assert torch.equal(state["features.0.weight"], OFFICIAL["features.0.weight"])
    assert [row.state for row in weights.status(["alexnet", "vgg16"])] == ["ok", "missing"]


def test_truncated_and_wrong_files_are_distinguished_and_never_loaded(
    small: MetricWeightFile, empty_hub: Path
) -> None:
    [path] = weights.fetch(["alexnet"])
    content = path.read_bytes()
    for other, state in (
        (content[:-9], "torn"),
        (content + b"0", "wrong"),
        (content[:-1] + bytes([content[-1] ^ 1]), "wrong"),
    ):
        path.write_bytes(other)
        [row] = weights.status(["alexnet"])
        assert (row.state, row.n_bytes) == (state, len(other))
        with pytest.raises(WeightsError, match=state):
            weights.check(["alexnet"])
        with pytest.raises(WeightsError, match=state):
            load_metric_weights("alexnet", "official")


def test_fetch_replaces_a_truncated_file_and_a_wrong_one_only_with_overwrite(
    small: MetricWeightFile, empty_hub: Path
) -> None:
    path = empty_hub / small.file_name
    empty_hub.mkdir(parents=True)
    path.write_bytes(b"truncated")
    weights.fetch(["alexnet"])
    weights.check(["alexnet"])
    path.write_bytes(b"x" * (small.n_bytes + 1))
    with pytest.raises(WeightsError, match="overwrite"):
        weights.fetch(["alexnet"])
    weights.fetch(["alexnet"], overwrite=True)
    weights.check(["alexnet"])


def test_a_download_that_is_not_official_never_gets_the_name(
    small: MetricWeightFile, empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRIC_WEIGHT_FILES, "alexnet", replace(small, sha256="0" * 64))
    with pytest.raises(WeightsError, match="the data is not"):
        weights.fetch(["alexnet"])
    assert list(empty_hub.iterdir()) == []


def test_without_network_fetch_names_file_address_hash_and_the_other_way(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = replace(METRIC_WEIGHT_FILES["vgg19"], url="http://127.0.0.1:9/vgg19.pth")
    monkeypatch.setitem(METRIC_WEIGHT_FILES, "vgg19", file)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(WeightsError) as caught:
        weights.fetch(["vgg19"])
    for part in (file.file_name, file.url, file.sha256, "pbvs weights unpack", str(empty_hub)):
        assert part in str(caught.value)


def test_packed_files_arrive_as_they_were(small: MetricWeightFile, empty_hub: Path, tmp_path: Path) -> None:
    weights.fetch(["alexnet", "vgg16"])
    tar = weights.pack(tmp_path / "metrics.tar", ["alexnet", "vgg16"])
    there = tmp_path / "there"
    assert [p.name for p in weights.unpack(tar, folder=there)] == [
        small.file_name,
        METRIC_WEIGHT_FILES["vgg16"].file_name,
    ]
    assert [row.state for row in weights.check(["alexnet", "vgg16"], folder=there)] == ["ok", "ok"]
    assert weights.pack(tmp_path / "again.tar", ["alexnet", "vgg16"]).read_bytes() == tar.read_bytes()
    path = empty_hub / small.file_name
    path.symlink_to(path.rename(tmp_path / "elsewhere.pth"))  # packed as the file that it points to
    linked = weights.pack(tmp_path / "linked.tar", ["alexnet", "vgg16"])
    assert linked.read_bytes() == tar.read_bytes()
    with pytest.raises(WeightsError, match="exists"):
        weights.pack(tar, ["alexnet"])
    with pytest.raises(WeightsError, match="missing"):
        weights.pack(tmp_path / "all.tar")


def test_unpack_refuses_other_names_paths_links_contents_and_truncated_tars(
    small: MetricWeightFile, empty_hub: Path, tmp_path: Path
) -> None:
    weights.fetch(["alexnet"])
    path, target = empty_hub / small.file_name, tmp_path / "target"
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes()[::-1])
    link = tmp_path / "link"
    link.symlink_to(path)
    for file, name, message in (
        (path, "../" + small.file_name, "not a weight file"),
        (path, "notes.txt", "not a weight file"),
        (link, small.file_name, "not a weight file"),
        (other, small.file_name, "the data is not"),
    ):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            tar.add(file, arcname=name)
        with pytest.raises(WeightsError, match=message):
            weights.unpack(tmp_path / "bad.tar", folder=target)
    whole = weights.pack(tmp_path / "good.tar", ["alexnet"]).read_bytes()
    (tmp_path / "truncated.tar").write_bytes(whole[:700])
    for name in ("truncated.tar", "none.tar"):
        with pytest.raises(WeightsError, match="cannot be read"):
            weights.unpack(tmp_path / name, folder=target)
    assert not target.exists() or list(target.iterdir()) == []
    assert not (tmp_path / small.file_name).exists()


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    for call in (weights.status, weights.fetch, weights.check):
        with pytest.raises(UsageError, match="vgg16"):
            call(["vgg61"])
    with pytest.raises(UsageError, match="inception"):
        load_metric_weights("inceptoin", "standin")


def test_standin_files_are_whole_and_equal_the_tensors_in_use(hub_with_standins: Path) -> None:
    for name in ("alexnet", "inception"):
        file = torch.load(hub_with_standins / METRIC_WEIGHT_FILES[name].file_name, weights_only=True)
        shapes = {key: value.shape for key, value in whole_network(name).state_dict().items()}
        assert {key: value.shape for key, value in file.items()} == shapes
        state, _ = load_metric_weights(name, "standin")
        assert 0 < len(state) < len(file)
        assert all(torch.equal(file[key], value) for key, value in state.items())


def test_standin_files_are_never_taken_for_official_ones(hub_with_standins: Path) -> None:
    with pytest.raises(WeightsError, match="stand-in weights under the official name"):
        load_metric_weights("alexnet", "official")
    assert [row.state for row in weights.status(["alexnet"])] == ["wrong"]


def test_standin_writing_keeps_existing_files(tmp_path: Path, standin_home: Path) -> None:
    [path] = weights.write_standin(standin_home, ["alexnet"])
    before = path.stat().st_mtime_ns
    weights.write_standin(standin_home, ["alexnet"])
    assert path.stat().st_mtime_ns == before
    other = tmp_path / "hub" / "checkpoints" / path.name
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other contents")
    with pytest.raises(WeightsError, match="has the official name"):
        weights.write_standin(tmp_path, ["alexnet"])
    assert other.read_bytes() == b"other contents"


def test_standin_values_are_pinned_so_results_stay_the_same() -> None:
    # Raw bits of PCG64, scaled: the same on every machine. Recorded once from this code.
    state, sha256 = load_metric_weights("alexnet", "standin")
    assert sha256 == "4a791c540d77f2552fa4ab406e209aa629a6e7ddc1e7535a0d171b40ddb773d0"
    weight = state["features.3.weight"]
    bound = (6 / (64 * 25)) ** 0.5
    assert bound * 0.999 < float(weight.abs().max()) <= bound
    assert abs(float(weight.mean())) < bound / 100
    assert float(weight.square().mean()) == pytest.approx(2 / (64 * 25), rel=0.01)
    assert not torch.equal(
        load_metric_weights("vgg16", "standin")[0]["features.2.weight"][:, :3],
        load_metric_weights("vgg19", "standin")[0]["features.2.weight"][:, :3],
    )
