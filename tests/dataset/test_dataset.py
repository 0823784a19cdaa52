import pickle
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_archives import add_flight, add_location, add_tiles, affine, location_in, write_tiff
from made_captures import Captures, capture
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import ImageError, UsageError
from pbvs.core.pixels import resize
from pbvs.dataset import pair_dataset as dataset_module
from pbvs.dataset.crops import coarse_size, valid_corners
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pair_dataset import PairDataset, from_worker
from pbvs.dataset.pairs import PairTable, RandomPairs
from pbvs.prepare.prepare import prepare
from pbvs.prepare.rasters import read_valid, read_values, write_capture
from pbvs.prepare.resample import Crop, ResampleWeights, area_weights, bilinear_weights

SIZE = (48, 64)


def ready(root: Path) -> PreparedData:
    prepare(root / "a", root / "out", modalities=MODALITIES, families=FAMILIES, size_px=None)
    return PreparedData.open(root / "out")


def coordinate_pair(root: Path, size: tuple[int, int] = SIZE, west: int = 0) -> PreparedData:
    """One location: RGB holds row and column, IR a mix of both; `west` columns of IR are nodata."""
    rows, columns = np.indices(size)
    rgb = np.stack([rows, columns, np.full(size, 7)], axis=2).astype(np.uint8)
    ir = ((rows * 5 + columns) % 251).astype(np.uint8) + 1
    place = location_in(root / "a")
    write_tiff(place / "x_rgb.tif", rgb + 1)
    where = affine(1.0, (400_000.0 + west, 4_500_000.0))
    write_tiff(place / "x_ir.tif", ir[:, west:], where=where)
    return ready(root)


def draws(data: PreparedData | Captures, source: str, target: str) -> RandomPairs:
    return PairTable(data, source=source, target=target, heldout_fraction=0.0, min_overlap=0.0).train()


def rgb_to_ir(data: PreparedData, **options) -> PairDataset:
    return PairDataset(draws(data, "rgb", "ir"), **({"size_px": SIZE} | options))


def read_crop(path: Path, valid: np.ndarray, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """A crop of a file as the dataset cuts it, with the validity of the whole image."""
    top, left, height, width = crop.box or (0, 0, *crop.stored_px)
    return crop.cut(read_values(path, crop.box), valid[top : top + height, left : left + width])


def test_a_crop_at_scale_one_is_a_slice_and_the_same_in_both(tmp_path):
    data = coordinate_pair(tmp_path)
    dataset = rgb_to_ir(data, crop_px=16, flips=False)
    whole = read_values(data.root / "stack/Bingham/40.64610_-112.18230/ir/x.tif")
    corners = set()
    for n in range(40):
        sample = dataset[n]
        assert (sample["source"].dtype, sample["source"].shape) == (torch.uint8, (3, 16, 16))
        top, left = int(sample["source"][0, 0, 0]) - 1, int(sample["source"][1, 0, 0]) - 1
        corners.add((top, left))
        assert np.array_equal(sample["target"][0].numpy(), whole[top : top + 16, left : left + 16, 0])
        assert sample["mask"].all()
        assert sample["mask"].shape == (1, 16, 16)
    assert len(corners) > 30
    assert sample["name"] == "Bingham/40.64610_-112.18230/x>x"


def test_crops_come_from_everywhere_alike(tmp_path):
    dataset = rgb_to_ir(coordinate_pair(tmp_path), crop_px=45, flips=False)
    corners = Counter(tuple((dataset[n]["source"][:2, 0, 0] - 1).tolist()) for n in range(800))
    assert set(corners) == {(top, left) for top in range(4) for left in range(20)}
    assert chisquare(list(corners.values())).pvalue > 1e-4


def test_flips_and_turns_are_the_same_in_both(tmp_path):
    dataset = rgb_to_ir(coordinate_pair(tmp_path, west=10), crop_px=16)
    steps = set()
    for n in range(60):
        sample = dataset[n]
        rows, columns = (sample["source"][band].numpy().astype(int) - 1 for band in (0, 1))
        mask = sample["mask"][0].numpy()
        target = sample["target"][0].numpy()
        assert np.array_equal(mask, columns >= 10)
        assert np.array_equal(target, np.where(mask, (rows * 5 + columns) % 251 + 1, 0))
        steps.add((rows[1, 0] - rows[0, 0], rows[0, 1] - rows[0, 0], columns[0, 1] - columns[0, 0]))
    assert len(steps) == 6  # by rows: down or up upright, with columns both ways; and turned, both ways
    assert {(1, 0, 1), (-1, 0, 1), (1, 0, -1), (-1, 0, -1), (0, 1, 0), (0, -1, 0)} == steps


def test_an_item_depends_on_position_and_seed_alone(tmp_path):
    data = coordinate_pair(tmp_path)
    one, two, other = (rgb_to_ir(data, crop_px=16, seed=s) for s in (3, 3, 4))
    forwards = [one[n]["source"] for n in range(8)]
    for n in reversed(range(8)):
        assert torch.equal(two[n]["source"], forwards[n])
    assert not all(torch.equal(other[n]["source"], forwards[n]) for n in range(8))


@pytest.mark.parametrize("size_px", [(24, 32), (20, 27), (48, 40)])
def test_a_smaller_working_size_is_the_area_mean(tmp_path, size_px):
    data = coordinate_pair(tmp_path)
    whole = rgb_to_ir(data, size_px=size_px, flips=False)[0]
    stored = read_values(data.root / "stack/Bingham/40.64610_-112.18230/rgb/x.tif")
    assert np.array_equal(whole["source"].numpy().transpose(1, 2, 0), resize(stored, size_px))


@pytest.mark.parametrize("size_px", [(96, 128), (70, 90), (24, 32), (20, 27), (48, 40), (60, 40)])
def test_a_crop_of_the_resized_is_the_resized_crop(tmp_path, size_px):
    """Read in parts or whole, at any scale, the pixels are those of `pixels.resize`."""
    image = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 1)
    write_capture(tmp_path / "a.tif", image, np.ones(SIZE, bool), None)
    wanted = resize(image.astype(np.float64), size_px)
    for top, left in ((0, 0), (3, 7), (size_px[0] - 15, size_px[1] - 12)):
        crop = Crop(top, left, 15, 12, size_px, SIZE)
        got, valid = read_crop(tmp_path / "a.tif", np.ones(SIZE, bool), crop)
        assert np.abs(got - wanted[top : top + 15, left : left + 12]).max() <= 0.51
        assert valid.all()


def matrix(taps: ResampleWeights) -> np.ndarray:
    """The weights as `n_out,n_needed`."""
    return taps.down(np.eye(taps.n_needed))


def test_weights_by_area():
    taps = area_weights(5, 2, 1, 1)  # the second half of five pixels
    assert taps.first == 2
    assert matrix(taps) == pytest.approx(np.array([[0.2, 0.4, 0.4]]))
    taps = area_weights(6, 3, 1, 2)  # a whole number to one: no pixel more than that
    assert (taps.first, taps.n_needed) == (2, 4)
    assert matrix(taps) == pytest.approx(np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))
    assert matrix(area_weights(7, 7, 0, 7)) == pytest.approx(np.eye(7))


def test_weights_between_two():
    taps = bilinear_weights(4, 8, 3, 3)  # centres at 1.25, 1.75 and 2.25
    assert taps.first == 1
    assert matrix(taps) == pytest.approx(np.array([[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25]]))
    assert matrix(bilinear_weights(4, 8, 0, 1))[0, 0] == 1.0  # before the first pixel's centre
    last = bilinear_weights(4, 8, 7, 1)  # behind the last one's
    assert (last.first, last.n_needed) == (3, 1)


def test_resizing_a_crop_leaves_nodata_out(tmp_path):
    image = np.full((*SIZE, 1), 150, np.uint8)
    image[:, :21] = 80  # an image here, but the other one of the pair has none
    valid = image[:, :, 0] == 150
    write_capture(tmp_path / "a.tif", image, valid, None)
    for crop in (Crop(0, 0, 24, 32, (24, 32), SIZE), Crop(2, 3, 8, 20, (24, 32), SIZE)):
        got, kept = read_crop(tmp_path / "a.tif", valid, crop)
        assert set(np.unique(got)) == {0, 150}
        assert np.array_equal(kept, got[:, :, 0] > 0)
        assert np.array_equal(kept[0], np.arange(crop.left, crop.left + crop.width) >= 11)  # 10 is half valid
    # Working pixels of 1.6 stored ones: one of them is valid in its larger part, and holds that part alone.
    got, kept = read_crop(tmp_path / "a.tif", valid, Crop(2, 3, 8, 20, (24, 40), SIZE))
    assert set(np.unique(got)) == {0, 150}
    assert np.array_equal(kept[0], np.arange(3, 23) >= 13)


def test_the_mask_is_where_both_are_valid(tmp_path):
    place = location_in(tmp_path / "a")
    add_flight(place, "full")
    flat = np.full((64, 64), 90, np.uint8)
    write_tiff(place / "west.tif", flat, where=affine(1.0, (400_000.0 - 24, 4_500_000.0)))  # columns 0 to 39
    write_tiff(place / "full_ir.tif", flat, where=affine(1.0, (400_000.0 + 4, 4_500_000.0)))  # 4 to 63
    sample = PairDataset(draws(ready(tmp_path), "sar", "ir"), size_px=(64, 64), flips=False)[0]
    columns = np.arange(64)
    assert np.array_equal(sample["mask"][0, 9].numpy(), (columns >= 4) & (columns < 40))


@pytest.mark.parametrize("size_px", [SIZE, (24, 32), (96, 128)])
@pytest.mark.parametrize("min_valid", [0.5, 0.9])
def test_crops_hold_enough_valid_pixels(tmp_path, size_px, min_valid):
    data = coordinate_pair(tmp_path, west=28)
    dataset = rgb_to_ir(data, size_px=size_px, crop_px=12, flips=False, min_valid=min_valid)
    parts = [dataset[n]["mask"].float().mean().item() for n in range(60)]
    assert min(parts) >= min_valid
    anywhere = rgb_to_ir(data, size_px=size_px, crop_px=12, flips=False, min_valid=0.0)
    assert min(anywhere[n]["mask"].float().mean().item() for n in range(60)) < 0.1


def valid_only_at(root: Path, height: int, width: int, *boxes: tuple[int, int, int, int]) -> RandomPairs:
    """One pair of this size, the second one valid only in the boxes (top, left, height, width)."""
    size = (height, width)
    valid = np.zeros(size, bool)
    for top, left, high, wide in boxes:
        valid[top : top + high, left : left + wide] = True
    image = np.full((*size, 1), 9, np.uint8)
    write_capture(root / "a.tif", image, np.ones(size, bool), None)
    write_capture(root / "b.tif", image, valid, None)
    known = {"root": root, "height_px": height, "width_px": width}
    some = [capture("sar", "a", **known), capture("ir", "b", valid_fraction=float(valid.mean()), **known)]
    return draws(Captures(some), "sar", "ir")


@pytest.mark.parametrize("size_px", [(300, 400), (150, 200)])
def test_the_one_valid_place_is_found(tmp_path, size_px):
    some = valid_only_at(tmp_path, 300, 400, (211, 333, 40, 50))  # a random crop is there once in a hundred
    side = 20 * size_px[0] // 300
    dataset = PairDataset(some, size_px=size_px, crop_px=side, flips=False, min_valid=0.6)
    samples = [dataset[n]["mask"] for n in range(40)]
    assert all(mask.float().mean() >= 0.6 for mask in samples)
    assert len({mask.numpy().tobytes() for mask in samples}) > 3  # not always the same crop


def test_the_most_valid_crop_is_taken_where_none_is_enough(tmp_path):
    some = valid_only_at(tmp_path, 300, 400, (100, 60, 10, 10), (200, 300, 4, 4))
    dataset = PairDataset(some, size_px=(300, 400), crop_px=16, flips=False)
    for n in range(20):
        assert dataset[n]["mask"].sum() == 100  # all of the larger box, of 256 pixels


def test_corners_of_valid_crops():
    valid = np.zeros((10, 20), bool)
    valid[2:6, 12:20] = True
    exact = valid_corners(valid, (10, 20), 4, 1.0)
    assert exact.tolist() == [[2, left] for left in range(12, 17)]
    half = valid_corners(valid, (10, 20), 4, 0.25)  # and a cell more, to be sure
    wanted = [
        [top, left]
        for top in range(7)
        for left in range(17)
        if valid[top : top + 4, left : left + 4].sum() >= 8
    ]
    assert half.tolist() == wanted
    twice = valid_corners(valid, (20, 40), 8, 1.0)  # working pixels half as large
    assert twice.tolist() == [[4, left] for left in range(24, 33, 2)]
    assert len(valid_corners(np.zeros((4, 4), bool), (4, 4), 2, 0.5)) == 9  # nowhere: any is as good
    assert coarse_size((1024, 1024), (1024, 1024), 256) == (128, 128)
    assert coarse_size((20, 20_000), (10, 10_000), 256) == (2, 1250)
    assert coarse_size((20, 30), (40, 60), 4) == coarse_size((40, 60), (20, 30), 4) == (20, 30)


def test_crops_read_their_window_alone(tmp_path, monkeypatch):
    """Of the images and of their masks: 64 pixels of 640 x 480, in whatever number of tries."""
    some = valid_only_at(tmp_path, 480, 640, (0, 150, 480, 490))
    reads = []

    def spied(read):
        def spy(path, box=None, size_px=None):
            reads.append((path.name, read.__name__, box, size_px))
            return read(path, box)

        return spy

    monkeypatch.setattr(dataset_module, "read_values", spied(read_values))
    monkeypatch.setattr(dataset_module, "read_valid", spied(read_valid))
    dataset = PairDataset(some, size_px=(480, 640), crop_px=64)
    for n in range(30):
        reads.clear()
        dataset[n]
        assert {what for _, _, box, size_px in reads for what in (box[2:], size_px)} == {(64, 64), None}
        assert [a[:2] for a in reads if a[1] == "read_values"] == [
            ("a.tif", "read_values"),
            ("b.tif", "read_values"),
        ]
        masks = [a[2] for a in reads if a[1] == "read_valid"]
        assert masks  # of b alone: a is valid everywhere
        assert all(a[0] == "b.tif" for a in reads if a[1] == "read_valid")
        assert {a[2] for a in reads if a[1] == "read_values"} == {masks[-1]}  # the last one tried
    half = PairDataset(some, size_px=(240, 320), crop_px=64)
    reads.clear()
    half[0]
    assert {box[2:] for _, _, box, _ in reads} == {(128, 128)}


def test_tiles_come_as_they_are(tmp_path):
    add_tiles(tmp_path / "a", n=3)
    dataset = PairDataset(draws(ready(tmp_path), "sar", "eo"), size_px=(32, 32), flips=False)
    for n in range(3):
        sample = dataset[n]
        stem = sample["name"].split(">")[1]
        tiles = tmp_path / "a/Train_Data_and_Validation_EO_SAR"
        for key, folder in (("source", "SAR"), ("target", "EO")):
            wanted = cv2.imread(str(tiles / folder / "train" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(sample[key][0].numpy(), wanted)


def test_a_batch_draws_from_several_locations(tmp_path):
    for n in range(4):
        add_location(tmp_path / "a", name=f"1.0_{n}.0")
    add_flight(location_in(tmp_path / "a", name="1.0_0.0"), "more")
    dataset = PairDataset(draws(ready(tmp_path), "sar", "rgb"), size_px=(32, 32), crop_px=16)
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["source"].shape == (4, 1, 16, 16)
    assert len({name.split("/")[1] for name in batch["name"]}) == 4


def test_misuse(tmp_path):
    data = coordinate_pair(tmp_path)
    with pytest.raises(UsageError, match="a crop of 49 pixels is larger than the working size 48 x 64"):
        rgb_to_ir(data, crop_px=49)
    for wrong in ({"seed": -1}, {"crop_px": 0}, {"size_px": (0, 5)}, {"min_valid": 1.1}):
        with pytest.raises(UsageError):
            rgb_to_ir(data, **wrong)


def error_of(loader: DataLoader) -> ImageError:
    """What the first batch raises; without its traceback, which keeps the loader's process for seconds."""
    items = iter(loader)
    try:
        next(items)
    except ImageError as error:
        return error.with_traceback(None)
    raise AssertionError("no error")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_named_through_workers(tmp_path, workers):
    dataset = rgb_to_ir(coordinate_pair(tmp_path), crop_px=16)
    broken = tmp_path / "out/stack/Bingham/40.64610_-112.18230/ir/x.tif"
    broken.write_bytes(broken.read_bytes()[:200])
    original = from_worker(error_of(DataLoader(dataset, batch_size=1, num_workers=workers)))
    assert isinstance(original, ImageError)
    assert original.where == str(broken)
    assert original.what.startswith("a prepared image cannot be read")
    assert "pbvs data prepare" in (original.next_step or "")
    assert "Traceback" not in str(original)


def test_errors_and_datasets_pickle(tmp_path):
    error = ImageError("truncated", where="a.tif", next_step="get it again")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.what, again.where, again.next_step) == (
        str(error),
        "truncated",
        "a.tif",
        "get it again",
    )
    assert from_worker(error) is error
    dataset = rgb_to_ir(coordinate_pair(tmp_path), crop_px=16)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[5]["source"], dataset[5]["source"])
