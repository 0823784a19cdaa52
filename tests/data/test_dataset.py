import pickle
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_archives import add_flight, add_location, add_tiles, affine, location_in, write_tiff
from torch.utils.data import DataLoader

from pbvs.data.crops import Crop, read_crop, resampling
from pbvs.data.dataset import PairDataset, from_worker
from pbvs.data.index import PreparedData
from pbvs.data.layouts import FAMILIES, MODALITIES
from pbvs.data.pairs import PairDraws
from pbvs.data.prepare import prepare
from pbvs.data.rasters import read_values, write_capture
from pbvs.errors import ImageError, UsageError
from pbvs.pixels import resize

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


def rgb_to_ir(data: PreparedData, **options) -> PairDataset:
    draws = PairDraws(data, source="rgb", target="ir", heldout_fraction=0.0)
    return PairDataset(draws, **({"size_px": SIZE} | options))


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
        got, valid = read_crop(tmp_path / "a.tif", None, Crop(top, left, 15, 12, size_px), SIZE)
        assert np.abs(got - wanted[top : top + 15, left : left + 12]).max() <= 0.51
        assert valid.all()


def test_resampling_weights():
    first, by_area = resampling(5, 2, 1, 1, by_area=True)  # the second half of five pixels
    assert first == 2
    assert by_area == pytest.approx(np.array([[0.2, 0.4, 0.4]]))
    first, bilinear = resampling(4, 8, 3, 3, by_area=False)  # centres at 1.25, 1.75 and 2.25
    assert first == 1
    assert bilinear == pytest.approx(np.array([[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25]]))
    first, at_edge = resampling(4, 8, 0, 1, by_area=False)  # before the first pixel's centre
    assert (first, at_edge[0, 0]) == (0, 1.0)


def test_resizing_a_crop_leaves_nodata_out(tmp_path):
    image = np.full((*SIZE, 1), 150, np.uint8)
    image[:, :21] = 80  # an image here, but the other one of the pair has none
    valid = image[:, :, 0] == 150
    write_capture(tmp_path / "a.tif", image, valid, None)
    for crop in (Crop(0, 0, 24, 32, (24, 32)), Crop(2, 3, 8, 20, (24, 32))):
        got, kept = read_crop(tmp_path / "a.tif", valid, crop, SIZE)
        assert set(np.unique(got)) == {0, 150}
        assert np.array_equal(kept, got[:, :, 0] > 0)
        assert np.array_equal(kept[0], np.arange(crop.left, crop.left + crop.width) >= 11)  # 10 is half valid
    # Working pixels of 1.6 stored ones: one of them is valid in its larger part, and holds that part alone.
    got, kept = read_crop(tmp_path / "a.tif", valid, Crop(2, 3, 8, 20, (24, 40)), SIZE)
    assert set(np.unique(got)) == {0, 150}
    assert np.array_equal(kept[0], np.arange(3, 23) >= 13)


def test_the_mask_is_where_both_are_valid(tmp_path):
    place = location_in(tmp_path / "a")
    add_flight(place, "full")
    flat = np.full((64, 64), 90, np.uint8)
    write_tiff(place / "west.tif", flat, where=affine(1.0, (400_000.0 - 24, 4_500_000.0)))  # columns 0 to 39
    write_tiff(place / "full_ir.tif", flat, where=affine(1.0, (400_000.0 + 4, 4_500_000.0)))  # 4 to 63
    draws = PairDraws(ready(tmp_path), source="sar", target="ir", heldout_fraction=0.0)
    sample = PairDataset(draws, size_px=(64, 64), flips=False)[0]
    columns = np.arange(64)
    assert np.array_equal(sample["mask"][0, 9].numpy(), (columns >= 4) & (columns < 40))


def test_crops_hold_half_valid_pixels(tmp_path):
    dataset = rgb_to_ir(coordinate_pair(tmp_path, west=28), crop_px=16, flips=False)
    parts = [dataset[n]["mask"].float().mean().item() for n in range(60)]
    assert min(parts) >= 0.5
    assert min(parts) < 1.0


def test_the_best_crop_is_taken_where_none_is_half_valid(tmp_path):
    draws = PairDraws(coordinate_pair(tmp_path, west=28), source="rgb", target="ir", heldout_fraction=0.0)
    dataset = PairDataset(draws, size_px=SIZE, crop_px=16)
    valid = np.zeros(SIZE, bool)
    valid[:, :6] = True
    for n in range(20):
        crop = dataset._draw_crop(np.random.default_rng(n), valid, SIZE)
        chance = np.random.default_rng(n)
        tries = [(int(chance.integers(33)), int(chance.integers(49))) for _ in range(8)]
        if min(left for _, left in tries) < 6:
            assert crop.left == min(left for _, left in tries)
        else:
            assert (crop.top, crop.left) == tries[0]


def test_tiles_come_as_they_are(tmp_path):
    add_tiles(tmp_path / "a", n=3)
    draws = PairDraws(ready(tmp_path), source="sar", target="eo", heldout_fraction=0.0)
    dataset = PairDataset(draws, size_px=(32, 32), flips=False)
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
    draws = PairDraws(ready(tmp_path), source="sar", target="rgb", heldout_fraction=0.0)
    batch = next(iter(DataLoader(PairDataset(draws, size_px=(32, 32), crop_px=16), batch_size=4)))
    assert batch["source"].shape == (4, 1, 16, 16)
    assert len({name.split("/")[1] for name in batch["name"]}) == 4


def test_misuse(tmp_path):
    data = coordinate_pair(tmp_path)
    with pytest.raises(UsageError, match="a crop of 49 pixels is larger than the working size 48 x 64"):
        rgb_to_ir(data, crop_px=49)
    with pytest.raises(UsageError):
        rgb_to_ir(data, seed=-1)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_is_named_through_workers(tmp_path, workers):
    dataset = rgb_to_ir(coordinate_pair(tmp_path), crop_px=16)
    broken = tmp_path / "out/stack/Bingham/40.64610_-112.18230/ir/x.tif"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ImageError) as caught:
        list(islice(DataLoader(dataset, batch_size=1, num_workers=workers), 1))
    original = from_worker(caught.value)
    assert isinstance(original, ImageError)
    assert original.where == str(broken)
    assert original.what.startswith("a prepared image cannot be read")
    assert "pbvs data prepare" in (original.next_step or "")
    assert "Traceback" not in str(original)


def test_errors_and_datasets_pickle(tmp_path):
    error = ImageError("torn", where="a.tif", next_step="get it again")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.what, again.where, again.next_step) == (
        str(error),
        "torn",
        "a.tif",
        "get it again",
    )
    assert from_worker(error) is error
    dataset = rgb_to_ir(coordinate_pair(tmp_path), crop_px=16)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[5]["source"], dataset[5]["source"])
