from pathlib import Path

import cv2
import numpy as np
import pytest
from made_archives import add_flight, add_location, add_tiles, affine, write_tiff
from made_captures import capture

from pbvs.archives.layouts import FAMILIES, MODALITIES
from pbvs.core.errors import DataError, ImageError, UsageError
from pbvs.core.pixels import read_image
from pbvs.core.types import Image8
from pbvs.dataset.index import PreparedData
from pbvs.dataset.pairs import Location
from pbvs.prepare.prepare import prepare
from pbvs.prepare.rasters import write_capture
from pbvs.report import location as location_page
from pbvs.report import location_draw as draw
from pbvs.report.location import captures_of, find_location, locations_table, page, write_page

LOCATION = ("stack", "Bingham", "40.64610_-112.18230")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    """Bingham: two locations, the first with a SAR that covers 40 of 64 columns; Manhattan: one; tiles."""
    root = tmp_path_factory.mktemp("show")
    folder = add_location(root / "a", flights=2)
    flat = np.full((64, 64), 90, np.uint8)
    write_tiff(folder / "20200102_part.tif", flat, where=affine(1.0, (400_000.0 - 24, 4_500_000.0)))
    add_flight(folder, "mosiac")
    add_location(root / "a", name="1.0_1.0")
    add_location(root / "a", city="Manhattan", name="1.0_1.0")
    add_tiles(root / "a", n=2)
    prepare(root / "a", root / "out", modalities=MODALITIES, families=FAMILIES, size_px=None)
    return PreparedData.open(root / "out")


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    """The lines of text drawn from now on."""
    written: list[str] = []
    write = draw.write_line

    def spy(picture, text, *where):
        written.append(text)
        write(picture, text, *where)

    monkeypatch.setattr(draw, "write_line", spy)
    return written


def rendered(data: PreparedData, location: Location) -> Image8:
    return page(location, captures_of(data, location))


# ---- locations


def test_locations_and_how_many_captures_they_have(data):
    assert locations_table(data).values.tolist() == [
        ["eo_sar", "", "train-Gotcha_0", 1, 1, 0, 0],
        ["eo_sar", "", "train-Gotcha_1", 1, 1, 0, 0],
        ["stack", "Bingham", "1.0_1.0", 1, 0, 1, 1],
        [*LOCATION, 2, 0, 3, 3],
        ["stack", "Manhattan", "1.0_1.0", 1, 0, 1, 1],
    ]
    assert tuple(locations_table(data).columns) == location_page.LOCATION_COLUMNS
    assert locations_table(data, "Manhattan").location.tolist() == ["1.0_1.0"]
    with pytest.raises(UsageError, match="did you mean 'Manhattan'"):
        locations_table(data, "Manhatan")


def test_a_location_is_found_by_name(data):
    assert find_location(data, LOCATION[2]) == find_location(data, "/".join(LOCATION[1:])) == LOCATION
    assert find_location(data, "train-Gotcha_1") == ("eo_sar", "", "train-Gotcha_1")
    assert find_location(data, "1.0_1.0", "Manhattan") == ("stack", "Manhattan", "1.0_1.0")
    assert find_location(data, "Bingham/1.0_1.0") == ("stack", "Bingham", "1.0_1.0")
    with pytest.raises(UsageError, match=r"give one of Bingham/1\.0_1\.0, Manhattan/1\.0_1\.0"):
        find_location(data, "1.0_1.0")


@pytest.mark.parametrize(
    ("name", "city", "hint"),
    [
        ("40.64610_-112.1823", None, "did you mean '40.64610_-112.18230'"),
        ("Bingam/1.0_1.0", None, "did you mean 'Bingham/1.0_1.0'"),
        ("train-Gotcha_11", None, "did you mean 'train-Gotcha_1'"),
        (LOCATION[2], "Manhattan", "in Manhattan"),
        ("train-Gotcha_1", "Bingham", "known: "),
    ],
)
def test_a_wrong_name_suggests_the_nearest(data, name, city, hint):
    with pytest.raises(UsageError) as caught:
        find_location(data, name, city)
    assert hint in str(caught.value)


# ---- the page


def test_captures_have_name_date_size_and_valid_fraction(data, texts):
    rendered(data, LOCATION)
    assert texts[0] == "Bingham / 40.64610_-112.18230"
    assert texts[1].startswith("2 SAR, 3 RGB, 3 IR, ")
    named = [i for i, text in enumerate(texts) if text.startswith(("SAR  ", "RGB  ", "IR  "))][:8]
    assert [texts[i] for i in named] == [
        "SAR  20190611_UMBRA_GEC",
        "SAR  20200102_part",
        "RGB  mosaic",
        "RGB  flight_20190601",
        "RGB  flight_20200601",
        "IR  mosaic",
        "IR  flight_20190601",
        "IR  flight_20200601",
    ]
    assert texts[named[1] + 1 : named[1] + 3] == ["2020-01-02", "64 x 64 px, 62.5 % valid"]
    assert texts[named[2] + 1 : named[2] + 3] == ["no date in its name", "64 x 64 px, 100 % valid"]
    assert "SAR over RGB mosaic" in texts
    assert "outlines of RGB mosaic" in texts


def test_a_thumbnail_is_the_stored_picture_with_its_mask(tmp_path):
    stored = np.zeros((40, 40, 3), np.uint8) + np.array([200, 90, 30], np.uint8)
    valid = np.ones((40, 40), bool)
    valid[:, 20:] = False
    write_capture(tmp_path / "a.tif", stored * valid[:, :, None], valid, None)
    fields = {"root": tmp_path, "height_px": 40, "width_px": 40, "valid_fraction": 0.5}
    sheet = page(LOCATION, [capture("rgb", "a", LOCATION, **fields)])
    rows, columns = np.nonzero((sheet == [200, 90, 30]).all(axis=2))
    hatch_rows, hatch_columns = np.nonzero((sheet[100:] == draw.HATCH).all(axis=2))
    assert np.ptp(columns) + 1 == pytest.approx(520 / 2, abs=13)  # the last pixel, 13 wide, is blurred
    assert np.ptp(rows) + 1 == pytest.approx(520, abs=3)
    assert np.ptp(hatch_columns) + 1 == pytest.approx(520 / 2, abs=3)
    assert np.ptp(hatch_rows) + 1 == pytest.approx(520, abs=3)
    assert columns.max() < hatch_columns.min() < columns.max() + 13


def captures_at(root: Path, modality: str, images: dict[str, np.ndarray], **more) -> list:
    """Captures of these images, valid where they are not 0."""
    captures = []
    for name, image in images.items():
        valid = image[:, :, 0] > 0
        write_capture(root / f"{modality}_{name}.tif", image, valid, None)
        size = {"height_px": image.shape[0], "width_px": image.shape[1]}
        fields = {"root": root, "file": f"{modality}_{name}.tif", "valid_fraction": float(valid.mean())}
        captures.append(capture(modality, name, LOCATION, **(size | fields | more)))
    return captures


def scene(size: tuple[int, int] = (96, 96), bands: int = 3) -> np.ndarray:
    """A dark square on a bright ground."""
    image = np.full((*size, bands), 200, np.uint8)
    image[30:70, 40:80] = 60
    return image


def test_many_captures_still_fit_on_a_page(tmp_path, texts):
    image = scene((32, 32), 1)
    sar = captures_at(tmp_path, "sar", {f"{n:02d}": image for n in range(60)})
    rgb = captures_at(tmp_path, "rgb", {f"{n:02d}": scene((32, 32)) for n in range(17)})
    sheet = page(LOCATION, [*sar, *rgb])
    assert sheet.shape[1] < 1700
    assert sheet.shape[0] < 4000
    assert "and 44 more SAR" in texts
    assert not any(text.endswith("more RGB") for text in texts)  # 17 cells either way
    assert "SAR over RGB 00; 12 of 60 are shown" in texts


def test_without_sar_the_others_are_drawn_over_the_first_rgb(tmp_path, texts):
    rgb = captures_at(tmp_path, "rgb", {"a": scene(), "b": scene()})
    ir = captures_at(tmp_path, "ir", {"a": scene(bands=1)})
    page(LOCATION, [*rgb, *ir])
    assert "RGB/IR over RGB a" in texts


def test_the_reference_is_the_mosaic_even_if_newer(tmp_path, texts):
    rgb = captures_at(tmp_path, "rgb", {"a": scene()}, acquired_at="2019-01-01")
    mosaic = captures_at(tmp_path, "rgb", {"mosaic": scene()}, acquired_at="2022-01-01", mosaic=True)
    page(LOCATION, [*rgb, *mosaic])
    assert "RGB over RGB mosaic" in texts


def test_tiles_show_sar_over_eo(data, texts):
    rendered(data, ("eo_sar", "", "train-Gotcha_1"))
    assert texts[0] == "train-Gotcha_1"
    assert "SAR over EO Gotcha_1" in texts
    assert "32 x 32 px, 100 % valid" in texts


@pytest.mark.parametrize("size", [(300, 40), (40, 700), (9, 9), (600, 500)])
def test_any_shape_of_grid(tmp_path, size):
    rgb = np.random.default_rng(0).integers(1, 256, (*size, 3), dtype=np.uint8)
    captures = [
        *captures_at(tmp_path, "sar", {"s": rgb[:, :, :1]}),
        *captures_at(tmp_path, "rgb", {"r": rgb}),
    ]
    assert page(LOCATION, captures).shape[1] < 1700


def test_captures_that_do_not_overlap(tmp_path):
    west, east = np.zeros((64, 64, 1), np.uint8), np.zeros((64, 64, 3), np.uint8)
    west[:, :32], east[:, 32:] = 90, 90
    captures = [*captures_at(tmp_path, "sar", {"s": west}), *captures_at(tmp_path, "rgb", {"r": east})]
    sheet = page(LOCATION, captures)
    assert (sheet == draw.HATCH).all(axis=2).sum() > 50_000


def test_a_shift_shows_between_outlines_and_image(tmp_path, monkeypatch):
    """Both details are of the same part of the grid: a SAR moved by 5 pixels is 5 pixels off the lines."""
    moved = {name: np.roll(scene((700, 700), 3), (400, 430 + n), (0, 1)) for name, n in (("s", 5), ("r", 0))}
    captures = [
        *captures_at(tmp_path, "sar", {"s": moved["s"][:, :, :1]}),
        *captures_at(tmp_path, "rgb", {"r": moved["r"]}),
    ]
    drawn = []

    def spy(picture, lines):
        drawn.append((picture, lines))
        return picture

    monkeypatch.setattr(draw, "with_lines", spy)
    page(LOCATION, captures)
    picture, lines = drawn[0]
    assert picture.shape == (260, 260, 3)  # not the whole: 520 pixels of a page at 2 x
    row = int(np.median(np.nonzero(lines)[0]))
    left, right = np.flatnonzero(lines[row])[[0, -1]]
    dark = np.flatnonzero(picture[row, :, 0] < 128)
    assert right - left == pytest.approx(40, abs=2)
    assert dark[0] - left == pytest.approx(5.5, abs=1.5)
    assert dark[-1] - right == pytest.approx(4.5, abs=1.5)


def test_the_detail_is_where_the_edges_are():
    bare = np.full((100, 200, 3), 128, np.uint8)
    busy = bare.copy()
    busy[60:90, 140:180] = np.random.default_rng(0).integers(0, 256, (30, 40, 1), dtype=np.uint8)
    reference = capture("rgb", "r", LOCATION, height_px=400, width_px=800)
    top, left, height, width = location_page._detail_box(
        busy, busy, np.ones((100, 200), bool), reference, 160
    )
    assert (height, width) == (160, 160)
    assert abs(top + 80 - 4 * 75) <= 24
    assert abs(left + 80 - 4 * 160) <= 24
    assert location_page._detail_box(bare, bare, np.ones((100, 200), bool), reference, 900)[2:] == (400, 800)


# ---- the file


def test_a_page_is_written_atomically_and_is_reproducible(data, tmp_path):
    out = tmp_path / "new" / "page.png"
    assert write_page(data, LOCATION, out, overwrite=False) == 8
    first = out.read_bytes()
    assert np.array_equal(read_image(out), rendered(data, LOCATION))
    with pytest.raises(UsageError, match="the file already exists"):
        write_page(data, LOCATION, out, overwrite=False)
    out.write_bytes(b"mine")
    with pytest.raises(UsageError):
        write_page(data, LOCATION, out, overwrite=False)
    assert out.read_bytes() == b"mine"
    write_page(data, LOCATION, out, overwrite=True)
    assert out.read_bytes() == first


def test_a_page_needs_a_writable_png_path(data, tmp_path):
    for wrong in (None, tmp_path / "page.tif", tmp_path / "page"):
        with pytest.raises(UsageError, match=r"\.png"):
            write_page(data, LOCATION, wrong, overwrite=True)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be written"):
        write_page(data, LOCATION, tmp_path / "file" / "page.png", overwrite=False)


def test_a_truncated_capture_is_named(tmp_path):
    captures = captures_at(tmp_path, "rgb", {"r": scene()})
    captures[0].path.write_bytes(captures[0].path.read_bytes()[:300])
    with pytest.raises(ImageError) as caught:
        page(LOCATION, captures)
    assert caught.value.where == str(captures[0].path)


def test_the_command(data, tmp_path, pbvs):
    listed = pbvs("data", "show", data.root)
    assert listed.code == 0
    assert "5 locations in" in listed.out
    assert "40.64610_-112.18230" in listed.out
    out = tmp_path / "page.png"
    result = pbvs("data", "show", data.root, "--location", LOCATION[2], "--out", out)
    assert result.code == 0
    assert "8 captures of Bingham/40.64610_-112.18230" in result.out
    assert out.is_file()
    again = pbvs("data", "show", data.root, "--location", LOCATION[2], "--out", out)
    assert (again.code, "give --overwrite" in again.err) == (2, True)
    assert pbvs("data", "show", data.root, "--location", LOCATION[2]).code == 2
    assert pbvs("data", "show", data.root, "--out", tmp_path / "other.png").code == 2
    assert pbvs("data", "show", tmp_path, "--location", LOCATION[2]).code == 1


# ---- drawing


def test_checkerboard():
    one, other = np.full((8, 12, 3), 1, np.uint8), np.full((8, 12, 3), 2, np.uint8)
    board = draw.checkerboard(one, other, 4)[:, :, 0]
    assert board.tolist() == (1 + np.indices((4, 4)).sum(axis=0) % 2).repeat(2, 0).repeat(3, 1).tolist()


def test_hatching_covers_only_invalid_pixels():
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    valid = np.zeros((50, 60), bool)
    valid[10:40, 20:50] = True
    result = draw.hatched(picture, valid)
    assert np.array_equal(result[valid], picture[valid])
    colours = {tuple(colour) for colour in result[~valid].tolist()}
    assert colours == {draw.HATCH, draw.PAPER}


def test_stretching_uses_percentiles_of_valid_pixels():
    picture = np.linspace(50, 100, 101).round().astype(np.uint8)[None, :, None].repeat(3, axis=2)
    valid = np.ones((1, 101), bool)
    picture[0, 0], valid[0, 0] = 255, False
    result = draw.stretched(picture, valid)
    low, high = np.percentile(picture[valid], [1, 99])
    wanted = np.clip((picture[0, 1:] - low) / (high - low) * 255, 0, 255)
    assert np.abs(result[0, 1:].astype(float) - wanted).max() <= 0.5
    nothing = np.zeros((4, 4), bool)
    assert np.array_equal(draw.stretched(picture[:, :4].repeat(4, axis=0), nothing)[0], picture[0, :4])


def test_outlines_follow_an_edge_and_not_the_border_of_the_valid_part():
    picture = np.full((80, 80, 3), 40, np.uint8)
    picture[:, 50:] = 200
    lines = draw.outlines(picture, np.ones((80, 80), bool))
    assert set(np.nonzero(lines)[1]) <= {49, 50}
    assert lines.any(axis=1).mean() > 0.9
    valid = np.ones((80, 80), bool)
    valid[:, 50:] = False
    assert not draw.outlines(picture * valid[:, :, None].astype(np.uint8), valid).any()
    assert not draw.outlines(np.full((80, 80, 3), 9, np.uint8), np.ones((80, 80), bool)).any()


def test_text_is_fitted_to_a_width():
    name = "m_4709963_20090818_and_a_very_long_name_of_a_flight"
    short = draw.fitted(name, 190)
    assert cv2.getTextSize(short, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] <= 190
    assert name.startswith(short.split("..")[0])
    assert name.endswith(short.split("..")[1])
    assert len(short) > 15
    assert draw.fitted("short", 190) == "short"
    sheet = draw.paper(30, 200)
    draw.write_line(sheet, "Zürich", (5, 20))
    assert (sheet.min(axis=2) < 100).sum() > 50


def test_cells_in_rows():
    cells = [np.full((4, 6, 3), n, np.uint8) for n in range(5)]
    sheet = draw.in_rows(cells, 2, gap_px=3)
    assert sheet.shape == (3 * 7 - 3, 2 * 9 - 3, 3)
    for n in range(5):
        top, left = 7 * (n // 2), 9 * (n % 2)
        assert (sheet[top : top + 4, left : left + 6] == n).all()
    assert (sheet[4:7] == draw.PAPER).all()
