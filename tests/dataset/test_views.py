"""What networks see of a pair: reduced, gray, degraded, unpaired, of other sizes; images hold coordinates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_captures import Captures, capture
from pydantic import ValidationError

from pbvs.core.errors import UsageError
from pbvs.core.pixels import resize
from pbvs.dataset.pair_dataset import PairDataset
from pbvs.dataset.pairs import PairTable
from pbvs.dataset.views import PAIR, View
from pbvs.prepare.rasters import write_capture

SIZE = (48, 64)
RNG = np.random.default_rng(6)
NOISE = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def coordinates(size, third=0):
    """`H,W,3`: row and column, from 1 on, and a number."""
    rows, columns = np.indices(size)
    return np.stack([rows + 1, columns + 1, np.full(size, third)], axis=2).astype(np.uint8)


def written(root, modality, name, image, valid=None, **more):
    """A capture with its file."""
    valid = np.ones(image.shape[:2], bool) if valid is None else valid
    write_capture(root / f"{name}.tif", image, valid, None)
    about = {"root": root, "height_px": image.shape[0], "width_px": image.shape[1]}
    return capture(modality, name, **about, valid_fraction=float(valid.mean()), **more)


def dataset(captures, **options):
    table = PairTable(Captures(captures), source="rgb", target="ir", heldout_fraction=0.0, min_overlap=0.0)
    return PairDataset(table.train(), **({"size_px": SIZE} | options))


def pair(root, source, target, *, valid=None, target_valid=None, **options):
    captures = [
        written(root, "rgb", "source", source, valid),
        written(root, "ir", "target", target, target_valid),
    ]
    return dataset(captures, **options)


def array(view):
    """`C,H,W` tensor to `H,W,C`."""
    return view.numpy().transpose(1, 2, 0)


def of_both(**steps):
    """The plain pair, and one more view of the source."""
    return {**PAIR, "view": View(**steps)}


# ---- gray


def test_gray_is_luma_and_one_band_stays(tmp_path):
    views = {**of_both(gray=True), "target": View(of="target", gray=True)}
    ir = NOISE[:, :, :1]
    some = pair(tmp_path, NOISE, ir, views=views, crop_px=16)
    for n in range(20):
        item = some[n]
        luma = array(item["source"]) @ np.array([0.299, 0.587, 0.114])
        assert item["view"].shape == (1, 16, 16)
        assert np.abs(array(item["view"])[:, :, 0] - luma).max() < 0.51
    whole = pair(tmp_path, NOISE, ir, views=views, flips=False)[0]
    assert np.array_equal(array(whole["target"]), ir)


# ---- low


def test_low_by_area_is_the_mean_of_blocks(tmp_path):
    some = pair(tmp_path, NOISE, NOISE[:, :, :1], views=of_both(low=4), crop_px=16)
    for n in range(20):
        item = some[n]
        blocks = array(item["source"]).reshape(4, 4, 4, 4, 3).mean(axis=(1, 3))
        assert item["view"].shape == (3, 4, 4)
        assert np.abs(array(item["view"]) - blocks).max() <= 0.5
        assert item["target"].shape == (1, 16, 16) and item["mask"].shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("by", "weights"), [("bilinear", (0, 0.5, 0.5, 0)), ("bicubic", (-0.09375, 0.59375, 0.59375, -0.09375))]
)
def test_low_by_the_other_filters_takes_the_middle_of_blocks(tmp_path, by, weights):
    """Not anti-aliased: half way between the two middle pixels of four, whatever is further away."""
    some = pair(tmp_path, NOISE, NOISE[:, :, :1], views=of_both(low=4, filter=by), flips=False)
    blocks = NOISE.reshape(12, 4, 16, 4, 3).astype(np.float64)
    expected = np.einsum("rycxb,y,x->rcb", blocks, weights, weights).clip(0, 255)
    assert np.abs(array(some[0]["view"]) - expected).max() <= 1.0


def test_low_rounds_sides_down_and_a_reduced_target_has_a_reduced_mask(tmp_path):
    size = (45, 30)
    valid = np.ones(size, bool)
    valid[:, :11] = False  # of the blocks of two columns, the sixth is half valid
    views = {"source": View(of="source", low=2), "target": View(of="target", low=2)}
    image = NOISE[:45, :30]
    some = pair(tmp_path, image, image[:, :, :1], valid=valid, size_px=size, flips=False, views=views)
    item = some[0]
    assert item["source"].shape[1:] == item["target"].shape[1:] == item["mask"].shape[1:] == (22, 15)
    assert np.array_equal(item["mask"][0], np.tile(np.arange(15) >= 6, (22, 1)))


def test_steps_are_taken_in_the_order_low_gray(tmp_path):
    """As in translation, where the reduced image is what is read."""
    some = pair(tmp_path, NOISE, NOISE[:, :, :1], views=of_both(gray=True, low=2), flips=False)
    item = some[0]
    blocks = np.rint(NOISE.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3)))
    luma = blocks @ np.array([0.299, 0.587, 0.114])
    assert item["view"].shape == (1, 24, 32)
    assert np.abs(array(item["view"])[:, :, 0] - luma).max() <= 1.51  # each band and luma are rounded
    assert View(gray=True, low=2, degraded=True).described == "source, 1/2 by area, gray, degraded"
    assert [View(gray=gray).bands(3) for gray in (True, False)] == [1, 3]


@pytest.mark.parametrize("wrong", [{"low": 0}, {"filter": "nearest"}, {"grey": True}])
def test_wrong_views_are_refused(wrong):
    with pytest.raises(ValidationError):
        View(**wrong)


# ---- degraded


def test_degradation_depends_on_position_and_seed_alone(tmp_path):
    def some(seed):
        return pair(
            tmp_path, NOISE, NOISE[:, :, :1], views=of_both(degraded=True), crop_px=32, flips=False, seed=seed
        )

    one, two, other = some(3), some(3), some(4)
    forwards = [one[n]["view"] for n in range(6)]
    for n in reversed(range(6)):
        assert torch.equal(two[n]["view"], forwards[n])
        assert not torch.equal(other[n]["view"], forwards[n])
    plain = pair(tmp_path, NOISE, NOISE[:, :, :1], crop_px=32, flips=False, seed=3)
    for n in range(6):  # what is drawn for it moves nothing else
        assert torch.equal(one[n]["source"], plain[n]["source"])
        assert torch.equal(one[n]["target"], plain[n]["target"])


def test_degradation_is_a_blur_and_noise_of_random_strength(tmp_path):
    """An edge, whose rows are alike: their mean has the blur alone, the deviation from it the noise."""
    edge = np.full((256, 64, 1), 60, np.uint8)
    edge[:, 32:] = 180
    some = pair(tmp_path, edge, edge, views=of_both(degraded=True), size_px=(256, 64), flips=False)
    softness, noise = [], []
    for n in range(40):
        view = array(some[n]["view"])[:, :, 0].astype(np.float64)
        softness.append((view[:, 31].mean() - 60) / 120)  # beside the edge: 0 where it is sharp
        noise.append(view[:, :20].std())
    assert min(softness) < 0.05 and 0.3 < max(softness) < 0.5
    assert min(noise) < 4 and 15 < max(noise) < 21
    assert len({some[0]["view"].numpy().tobytes(), some[1]["view"].numpy().tobytes()}) == 2  # the same pair


# ---- unpaired


def unpaired(root, n_locations=4, **options):
    """Each location's number is in the third band; targets are valid from a column of their own on."""
    captures = []
    for k in range(n_locations):
        valid, target_valid = np.ones(SIZE, bool), np.ones(SIZE, bool)
        valid[:5] = False
        target_valid[:, : 4 * k] = False
        where = {"location_key": ("stack", "Bingham", f"{k}.0_0.0")}
        captures.append(written(root, "rgb", f"s{k}", coordinates(SIZE, k), valid, **where))
        captures.append(written(root, "ir", f"t{k}", coordinates(SIZE, k), target_valid, **where))
    return dataset(captures, paired=False, **options)


def number_of(view):
    return int(view[2].max())


def test_an_unpaired_target_is_of_another_location_with_its_own_mask(tmp_path):
    some = unpaired(tmp_path, flips=False)
    partners = set()
    for n in range(40):
        item = some[n]
        k, partner = number_of(item["source"]), number_of(item["target"])
        assert item["name"] == f"Bingham/{k}.0_0.0/s{k}>t{k}"
        assert k != partner
        assert np.array_equal(item["mask"][0], np.tile(np.arange(64) >= 4 * partner, (48, 1)))
        partners.add((k, partner))
    assert len(partners) == 12  # every other location, of each
    assert number_of(unpaired(tmp_path / "one", n_locations=1, flips=False)[0]["target"]) == 0  # its only one


def test_an_unpaired_target_has_a_crop_and_flips_of_its_own(tmp_path):
    some = unpaired(tmp_path, crop_px=16, min_valid=1.0)
    alike = {"corner": 0, "direction": 0}
    for n in range(40):
        item = some[n]
        source, target = (
            array(item["source"])[:, :, :2].astype(int),
            array(item["target"])[:, :, :2].astype(int),
        )
        assert item["mask"].all() and source.min() > 0  # both crops lie where their own image is valid
        alike["corner"] += np.array_equal(source.min(axis=(0, 1)), target.min(axis=(0, 1)))
        alike["direction"] += np.array_equal(source[1, 1] - source[0, 0], target[1, 1] - target[0, 0])
        assert torch.equal(some[n]["target"], item["target"])
    assert alike["corner"] < 4 and alike["direction"] < 20


# ---- other sizes


def test_a_source_of_another_working_size_is_resized_once_and_masks_the_target(tmp_path):
    valid = np.ones(SIZE, bool)
    valid[:, :20] = False
    options = {"flips": False, "source_size_px": (24, 32)}
    whole = pair(tmp_path / "whole", NOISE, coordinates(SIZE), **options)[0]
    assert np.array_equal(array(whole["source"]), resize(NOISE, (24, 32)))
    item = pair(tmp_path, NOISE, coordinates(SIZE), valid=valid, **options)[0]
    means = NOISE.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(array(item["source"]) - means)[:, 10:].max() <= 0.5
    assert not array(item["source"])[:, :10].any()
    assert np.array_equal(item["mask"][0], valid)
    assert np.array_equal(array(item["target"])[valid], coordinates(SIZE)[valid])


@pytest.mark.parametrize("derived_px", [(24, 32), (96, 128), SIZE])
@pytest.mark.parametrize("crop_px", [16, None])
def test_a_derived_capture_of_any_size_is_cut_as_the_target_is(tmp_path, derived_px, crop_px):
    """A place of the source and the same place of what another node computed of it stay together."""
    valid = np.ones(SIZE, bool)
    valid[:, :28] = False
    target = coordinates(SIZE, 9)
    large = resize(coordinates(SIZE).astype(np.float64), derived_px)
    node_root = tmp_path / "node"
    write_capture(
        node_root / "source.tif",
        np.rint(large).astype(np.uint8),
        resize(valid.astype(np.uint8)[:, :, None], derived_px)[:, :, 0] > 0,
        None,
    )

    def derive(one):
        return replace(one, root=node_root, height_px=derived_px[0], width_px=derived_px[1])

    views = {"source": View(of="node"), "target": View(of="target"), "before": View(of="source")}
    some = pair(
        tmp_path,
        coordinates(SIZE),
        target,
        valid=valid,
        views=views,
        derived={"node": derive},
        crop_px=crop_px,
    )
    turned = 0
    for n in range(30):
        item = some[n]
        assert item["source"].shape[1:] == item["target"].shape[1:] == item["mask"].shape[1:]
        mask = item["mask"][0].numpy()
        after, through, before = (
            array(item[name])[mask].astype(int) for name in ("target", "source", "before")
        )
        assert np.array_equal(before[:, :2], after[:, :2])
        assert np.abs(through[:, :2] - after[:, :2]).max() <= 1  # rounded once where the size differs
        columns = array(item["target"])[:, :, 1].astype(int) - 1
        assert mask[columns > 28].all() and not mask[columns < 27].any()
        turned += columns[0, 0] == columns[0, -1]
    assert turned == 0 or crop_px  # whole images are not square, so they are never turned


def test_another_source_size_is_for_whole_images_and_a_crop_must_fit(tmp_path):
    with pytest.raises(AssertionError):
        pair(tmp_path, NOISE, NOISE, source_size_px=(24, 32))
    with pytest.raises(UsageError, match="larger than the working size"):
        pair(tmp_path, NOISE, NOISE, crop_px=49)
