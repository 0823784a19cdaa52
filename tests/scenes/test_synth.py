"""Synthetic archives: deterministic, georeferenced, physical, and as difficult as the real ones."""

import hashlib
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject, transform

from pbvs.archives.scan import scan
from pbvs.core.errors import ImageError, UsageError
from pbvs.core.pixels import read_image
from pbvs.scenes import render, synth_files
from pbvs.scenes.brushes import Material
from pbvs.scenes.scene import CHARACTERS, Scene, make_scene
from pbvs.scenes.synth import make_archives

SMALL = {"chip_px": 72, "target_px": 96}
FLAT_RADAR = render.Pass(azimuth_to_sensor=270.0, incidence=45.0, looks=4.0, gain=1.0)
NOON = render.Flight(180.0, 45.0, 1.0, (1.0, 1.0, 1.0), 0.0, 0.3, 0.0, 0.0)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A set per kind of infrared: {"gray" | "vegetation": (folder, summary)}."""
    sets = {}
    for ir in ("gray", "vegetation"):
        out = tmp_path_factory.mktemp(ir)
        steps = []
        summary = make_archives(
            out,
            locations=5,
            tiles=2,
            test_images=1,
            seed=3,
            ir=ir,
            progress=lambda *step, steps=steps: steps.append(step),
            **SMALL,
        )
        assert steps == [(n, 11) for n in range(1, 12)]
        sets[ir] = out, summary
    return sets


def tree(out: Path) -> dict[str, str]:
    files = sorted(p for p in out.rglob("*") if p.is_file())
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def opened(path: Path):
    with rasterio.open(path) as dataset:
        return dataset.read().transpose(1, 2, 0), dataset.crs.to_string(), dataset.transform


def whole_sar(location: Path) -> list[Path]:
    """The SAR files that are named GEC, without the truncated one."""
    return [p for p in sorted(location.glob("*_GEC.*")) if not p.name.startswith((".", "2013-11-02"))]


def flat_scene(material: Material, size_m=120.0, px_per_m=2.0, height=None) -> Scene:
    shape = (int(size_m * px_per_m),) * 2
    zero = np.zeros(shape, np.float32)
    half = zero + np.float32(0.5)
    return Scene(
        px_per_m,
        np.full(shape, material, np.uint8),
        np.full((*shape, 3), 0.5, np.float32),
        zero,
        zero if height is None else height,
        zero,
        zero + np.float32(0.2),
        half,
    )


def whole_grid(scene: Scene) -> render.Grid:
    return render.Grid(*scene.material.shape, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def boxed(height_m: float, material: Material) -> Scene:
    """A block of 20 m x 20 m in the centre of level soil, at two pixels per metre."""
    height = np.zeros((240, 240), np.float32)
    height[100:140, 100:140] = height_m
    scene = flat_scene(Material.SOIL, height=height)
    scene.material[100:140, 100:140] = material
    return scene


# ---- the same seed, the same bytes


def test_same_seed_same_bytes_with_any_number_of_threads(tmp_path):
    for name, threads in (("a", 1), ("b", 3)):
        make_archives(tmp_path / name, locations=2, tiles=1, test_images=1, seed=7, threads=threads, **SMALL)
    make_archives(tmp_path / "c", locations=2, tiles=1, test_images=1, seed=8, **SMALL)
    first, again, other = (tree(tmp_path / name) for name in "abc")
    assert first == again
    tile = "Train_Data_and_Validation_EO_SAR/EO/train/Gotcha_0.png"
    assert first[tile] != other[tile]
    images = {p for p in first if p.endswith((".png", ".tiff", ".TIF")) and "/._" not in p}
    assert len(images) > 10
    assert not {first[p] for p in images} & set(other.values())


def test_a_larger_set_holds_the_smaller(tmp_path):
    make_archives(tmp_path / "small", locations=1, tiles=1, test_images=1, seed=1, **SMALL)
    make_archives(tmp_path / "large", locations=2, tiles=2, test_images=2, seed=1, **SMALL)
    small, large = tree(tmp_path / "small"), tree(tmp_path / "large")
    assert {path: large.get(path) for path in small} == small
    assert len(large) > len(small)


# ---- infrared


def pairs_of(out: Path) -> list[tuple[Path, Path]]:
    infrared = [p for p in out.glob("Train*/*/*_ir.*") if not p.name.startswith(".")]
    return [(p.with_name(p.name.replace("_ir.", "_rgb.")), p) for p in sorted(infrared)]


def test_gray_infrared_is_exact_in_captures_mosaics_and_the_test_set(archives):
    out, _ = archives["gray"]
    pairs = pairs_of(out)
    pairs.append((out / "test/rgb2ir/0.tiff", out / "test_targets/rgb2ir/0.png"))
    assert sum("mos" in ir.name for _, ir in pairs) >= 4
    n_clipped = 0
    for rgb_path, ir_path in pairs:
        rgb, ir = read_image(rgb_path), read_image(ir_path)
        assert rgb.dtype == ir.dtype == np.uint8
        expected = np.rint(np.clip(1.3 * rgb.mean(axis=-1), 0, 255))
        np.testing.assert_array_equal(ir[..., 0], expected, err_msg=str(ir_path))
        n_clipped += int((ir == 255).sum())
    assert n_clipped > 0  # some pixels are clipped
    assert read_image(pairs[-1][0]).shape == (96, 96, 3)


def test_vegetation_infrared_is_its_formula():
    rgb = np.full((40, 60, 3), 100.0)
    vegetation = np.repeat(np.float32([0.0, 1.0, 0.0]), 20)[None].repeat(40, 0)
    wetness = np.repeat(np.float32([0.1, 1.0, 1.0]), 20)[None].repeat(40, 0)
    optical = render.Optical(rgb, vegetation, wetness, np.full((40, 60), 0.5, np.float32))
    ir = render.infrared(rgb, optical, 1.3, np.random.default_rng(0))
    means = [ir[:, 20 * k : 20 * k + 20].mean() for k in range(3)]
    # bare ground: the gray; half-lit leaves: + 52 * 0.5, also when wet; water: 38 % of the gray
    np.testing.assert_allclose(means, [130.0, 156.0, 130.0 * 0.38], atol=0.25)
    assert 1.3 < ir[:, :20].std() < 1.7


def test_vegetation_set_is_near_its_function_of_the_stored_colour(archives):
    out, _ = archives["vegetation"]
    for rgb_path, ir_path in pairs_of(out):
        rgb, ir = read_image(rgb_path), read_image(ir_path)
        scale = 1.0 if rgb.dtype == np.uint8 else 1 / 16
        assert rgb.dtype == ir.dtype
        gray = 1.3 * scale * rgb.mean(axis=-1)
        difference = scale * ir[..., 0] - np.clip(gray, 0, 255)
        assert np.quantile(difference, 0.999) < 110  # vegetation adds no more than 52 times its light
        assert np.quantile(np.abs(difference), 0.02) < 6  # bare ground, roofs and roads follow the gray


# ---- georeference


def test_sar_is_in_another_crs_and_grid_and_overlaps_the_colour(archives):
    out, _ = archives["vegetation"]
    coverage = []
    for rgb_path in sorted(out.glob("Train*/*/mos*_rgb.*")):
        _, rgb_crs, rgb_affine = opened(rgb_path)
        shape = read_image(rgb_path).shape[:2]
        for path in whole_sar(rgb_path.parent):
            sar, crs, affine = opened(path)
            assert crs != rgb_crs
            assert crs[-2:] == rgb_crs[-2:]  # the same zone
            assert affine.a != pytest.approx(rgb_affine.a, rel=1e-3)
            on_rgb = np.zeros(shape, np.float32)
            reproject(
                (sar[..., 0] > 0).astype(np.float32),
                on_rgb,
                src_transform=affine,
                src_crs=crs,
                dst_transform=rgb_affine,
                dst_crs=rgb_crs,
                resampling=Resampling.nearest,
            )
            coverage.append(float(on_rgb.mean()))
    assert len(coverage) >= 5
    assert min(coverage) > 0.4
    assert max(coverage) > 0.97
    assert min(coverage) < 0.9  # some cover the chip in part


def test_a_bright_block_has_the_same_position_in_both_projections():
    city = synth_files.CITIES[0]
    site = synth_files.site_of(city, 0, np.random.default_rng(0))
    scene = flat_scene(Material.WATER, size_m=260.0)
    x, y = 30.0 + 150.0, 30.0 + 60.0  # 150 m east and 60 m south of the corner, inside the margin of 30 m
    scene.material[int(2 * y) - 4 : int(2 * y) + 4, int(2 * x) - 4 : int(2 * x) + 4] = Material.METAL_ROOF
    on = synth_files.sar_grid(site, synth_files.Footprint(4.0, -3.0, 220.0, 0.1), 0.7, 2.0)
    image = render.radar(scene, on.grid, FLAT_RADAR, np.random.default_rng(1))
    rows, columns = np.nonzero(image > 90)
    assert len(rows) > 15
    east, north = on.affine @ (columns.mean() + 0.5, rows.mean() + 0.5)
    east, north = transform(city.sar_crs, city.optical_crs, [east], [north])
    assert east[0] - site.east == pytest.approx(150.0, abs=0.5)
    assert site.north - north[0] == pytest.approx(60.0, abs=0.5)


def test_folders_are_named_by_their_corner(archives):
    out, _ = archives["vegetation"]
    for path in out.glob("Train*/*/mos*_rgb.*"):
        latitude, longitude = map(float, path.parent.name.split("_"))
        _, crs, affine = opened(path)
        east, north = transform("EPSG:4326", crs, [longitude], [latitude])
        assert math.hypot(affine.c - east[0], affine.f - north[0]) < 0.01
        image = read_image(path)
        assert image.shape[1] * affine.a == pytest.approx(200.0)
        assert image.shape[0] * -affine.e == pytest.approx(200.0)


# ---- physics


def test_tall_objects_have_layover_towards_the_sensor_and_shadow_behind():
    scene = boxed(10.0, Material.METAL_ROOF)
    image = render.radar(scene, whole_grid(scene), FLAT_RADAR, np.random.default_rng(0))
    ground = image[20:80].mean()
    profile = image[105:135].mean(axis=0)
    # 10 m at 45 degrees: 10 m, which is 20 pixels, to the west; the shadow is as long, to the east
    assert profile[82:96].mean() > 1.5 * ground  # layover of the roof on the ground before the block
    assert profile[142:158].mean() < 0.5 * ground
    assert profile[164:220].mean() == pytest.approx(ground, rel=0.1)
    assert image[105:135, 95:100].mean() > 1.5 * ground  # the corner of wall and ground


def test_shadows_fall_away_from_the_sun_by_the_height_over_its_tangent():
    scene = boxed(10.0, Material.ROOF)
    rgb = render.optical(scene, whole_grid(scene), NOON, np.random.default_rng(0)).rgb
    column = rgb[:, 110:130].mean(axis=(1, 2))
    sunny = column[200]
    # sun in the south at 45 degrees: 10 m of shadow, 20 pixels, to the north
    assert (column[82:97] < 0.55 * sunny).all()
    np.testing.assert_allclose(column[40:76], sunny, rtol=0.08)
    np.testing.assert_allclose(column[146:200], sunny, rtol=0.08)


def test_speckle_has_mean_one_on_power():
    scene = flat_scene(Material.GRASS)
    image = render.radar(scene, whole_grid(scene), FLAT_RADAR, np.random.default_rng(0))
    power = np.mean((image * 0.78 / 255.0) ** 2)
    assert power == pytest.approx(10 ** (float(render.backscatter_db(scene).mean()) / 10), rel=0.02)


# Measured over ten scenes each, less a margin; lowest where layover of tall blocks hides the streets.
LEAST_CORRELATION = {"Bingham": 0.5, "Centerfield": 0.85, "Manhattan": 0.2, "UC_Davis": 0.42}


@pytest.mark.parametrize("character", list(CHARACTERS))
def test_sar_correlates_with_backscatter_of_the_materials(character):
    correlations = []
    for seed in range(3):
        rng = np.random.default_rng([11, seed])
        scene = make_scene(rng, character, (260.0, 260.0), 1.0)
        image = render.radar(scene, whole_grid(scene), render.random_pass(rng), rng)
        smooth = cv2.GaussianBlur(image, (0, 0), 2.0)
        expected = cv2.GaussianBlur(10 ** (render.backscatter_db(scene) / 20), (0, 0), 2.0)
        correlations.append(np.corrcoef(smooth.ravel(), expected.ravel())[0, 1])
    assert np.mean(correlations) > LEAST_CORRELATION[character], correlations


def test_an_unknown_character_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'Manhattan'"):
        make_scene(np.random.default_rng(0), "Manhatten", (50.0, 50.0), 1.0)


# ---- the layout and its difficulties


NUISANCES = {
    "mosaic spelt mosiac",
    "mosaic spelt mosaic",
    "macOS litter ._name",
    "macOS litter .DS_Store",
    "macOS litter __MACOSX",
    "suffix .tif",
    "suffix .TIF",
    "uint16 where others are uint8",
    "nodata border 0, declared",
    "nodata border 0, not declared",
    "unreadable: a truncated TIFF",
    "SAR that is not named GEC",
}


@pytest.mark.parametrize("ir", ["gray", "vegetation"])
def test_every_nuisance_occurs(archives, ir):
    out, summary = archives[ir]
    assert {what for _, what in summary.nuisances} >= NUISANCES
    assert all(path.exists() for path, _ in summary.nuisances)
    assert summary.files == len(tree(out))
    for path, what in summary.nuisances:
        if what.startswith("uint16"):
            assert "Manhattan" in path.as_posix()
            assert opened(path)[0].dtype == np.uint16


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_nuisance_occurs_in_four_locations_of_any_seed(tmp_path, seed):
    summary = make_archives(tmp_path, locations=4, tiles=0, test_images=0, seed=seed, chip_px=48)
    assert {what for _, what in summary.nuisances} >= NUISANCES


def test_only_the_truncated_file_cannot_be_read(archives):
    out, summary = archives["vegetation"]
    truncated = {path for path, what in summary.nuisances if what.startswith("unreadable")}
    for path in sorted(out.rglob("*.*")):
        if path.suffix.lower() not in (".tif", ".tiff", ".png") or path.name.startswith("._"):
            continue
        if path in truncated:
            with pytest.raises(ImageError):
                read_image(path)
        else:
            image = read_image(path)
            assert image.max() > 60


def test_borders_are_0_and_the_image_is_not(archives):
    out, _ = archives["vegetation"]
    for path in (path for location in out.glob("Train*/*_*") for path in whole_sar(location)):
        image = opened(path)[0][..., 0]
        height, width = image.shape
        assert (image == 0).any()
        assert (image[height // 2 - 9 : height // 2 + 9, width // 2 - 9 : width // 2 + 9] > 0).all()


def test_scan_finds_all_locations_complete(archives):
    out, _ = archives["vegetation"]
    listing = scan(out)
    pairable = listing.pairable().set_index(["source", "target"]).locations.to_dict()
    assert pairable == {("sar", "eo"): 2, ("sar", "rgb"): 5, ("rgb", "ir"): 5, ("sar", "ir"): 5}
    images = listing.images[listing.images.family == "stack"]
    counts = images.groupby(["location", "modality"]).size().unstack()
    assert (counts.sar != counts.rgb).any()
    assert set(listing.problems.kind) <= {"litter", "unreadable"}
    crs = images.groupby("city").crs.agg(lambda s: sorted(set(s)))
    assert crs["Bingham"] == ["EPSG:26912", "EPSG:32612"]
    assert crs["Manhattan"] == ["EPSG:26918", "EPSG:32618"]
    assert crs["UC_Davis"] == ["EPSG:26910", "EPSG:32610"]


def test_test_inputs_and_targets_have_their_sizes(archives):
    out, _ = archives["vegetation"]
    for task, bands in (("sar2rgb", 3), ("rgb2ir", 1), ("sar2ir", 1)):
        source, target = (
            read_image(out / f"test/{task}/0.tiff"),
            read_image(out / f"test_targets/{task}/0.png"),
        )
        assert target.shape == (96, 96, bands)
        height, width = source.shape[:2]
        assert height != width
        assert min(height, width) >= 0.8 * 72
        assert max(height, width) <= 1.3 * 72
        assert source.shape[2] == (3 if task == "rgb2ir" else 1)
    for folder in ("test/sar2eo", "test_targets/sar2eo"):
        assert read_image(out / folder / "0.png").shape == (256, 256, 1)


# ---- wrong usage


def test_a_folder_with_other_content_is_not_touched(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not written by `pbvs data synth`"):
            make_archives(mine, locations=0, tiles=1, test_images=0, overwrite=overwrite)
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]


def test_overwrite_replaces_an_earlier_set_and_nothing_else(tmp_path):
    make_archives(tmp_path, locations=0, tiles=2, test_images=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="contains synthetic scenes"):
        make_archives(tmp_path, locations=0, tiles=1, test_images=0)
    make_archives(tmp_path, locations=0, tiles=1, test_images=0, overwrite=True)
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["Gotcha_0.png"] * 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong", [{"tiles": 0}, {"seed": -1}, {"chip_px": 10}, {"ir": "thermal"}, {"gray_factor": float("nan")}]
)
def test_numbers_out_of_range_raise_usage_error(tmp_path, wrong):
    with pytest.raises(UsageError):
        make_archives(tmp_path / "out", **{"locations": 0, "tiles": 1, "test_images": 0} | wrong)
    assert not (tmp_path / "out").exists()
