"""The page as a file: its contents, and the inputs it rejects."""

import base64
import re

import cv2
import numpy as np
import pytest
from scored import flat, page_data, write_images, write_submission

from pbvs.core.charts import Line, Mark, histogram, line_chart
from pbvs.core.errors import DataError
from pbvs.core.pixels import resize
from pbvs.report.gallery import natural_key, pick_images, thumbnail
from pbvs.report.page import Request, Submission, write_page

NAMES = ("0", "2", "10")


@pytest.fixture
def page_request(tmp_path):
    preds = {"sar2eo": {name: flat(200) for name in NAMES}, "sar2rgb": {"0": flat(90, 3)}}
    errors = {"sar2eo": {"0": 0.3, "2": 0.1, "10": 0.2}, "sar2rgb": {"0": 0.4}}
    folder = write_submission(tmp_path / "mine", preds, errors)
    inputs = write_images(tmp_path / "test", {t: {n: flat(10) for n in of} for t, of in preds.items()})
    targets = {t: {n: flat(50, image.shape[2]) for n, image in of.items()} for t, of in preds.items()}
    return Request(Submission(folder), inputs, write_images(tmp_path / "targets", targets))


def test_every_image_is_there_with_its_numbers(page_request, tmp_path):
    page = tmp_path / "out" / "page.html"
    n_bytes = write_page(page_request, page)
    html = page.read_text()
    assert page.stat().st_size == n_bytes < 200_000
    data = page_data(html)
    assert [(one["task"], one["image"]) for one in data["images"]] == [
        *(("sar2eo", name) for name in NAMES),
        ("sar2rgb", "0"),
    ]
    first = data["images"][0]
    assert first["terms"] == {"l2": 0.3, "l1": 0.15, "lpips": 0.1} and first["full"] == {}
    for kind, value in (("source", 10), ("pred", 200), ("target", 50)):
        encoded = base64.b64decode(first["thumbs"][kind].split(",")[1])
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (64, 64) and abs(image.astype(int) - value).max() <= 2
    assert 'data-sample="sar2eo/2"' in html and "best by L2: 2, 0.1000" in html
    assert "worst by L2: 0, 0.3000" in html and "median by L2: 10, 0.2000" in html


def test_it_is_one_file_without_any_address(page_request, tmp_path):
    write_page(page_request, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".html"] == ["page.html"]
    addresses = set(re.findall(r"https?://[^\"' ]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a namespace, not an address
    assert "default-src 'none'" in html


def test_standin_scores_have_a_disclaimer_and_the_leaderboard_has_the_same_rules(page_request, tmp_path):
    write_page(page_request, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "stand-in weights: not comparable: not to be ranked" in html
    assert "NJUST-KMG (2024)" in html and "2026" not in html
    assert "0.250 to 0.350" in html and "FID by dimensions 64: 0.5, 192: 1, 768: 0.1, 2048: 20" in html


def test_names_cannot_break_out_of_the_page(tmp_path):
    name = "a</script><script>alert(1)"
    image = {"sar2eo": {name.replace("/", "\u2215"): flat(9)}}
    folder = write_submission(tmp_path / "<b>mine", image, {"sar2eo": {next(iter(image["sar2eo"])): 0.1}})
    page_request = Request(
        Submission(folder), write_images(tmp_path / "t", image), write_images(tmp_path / "g", image)
    )
    write_page(page_request, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in html and "<b>mine" not in html.split("<body>")[1]
    assert page_data(html)["images"][0]["image"].endswith("<script>alert(1)")


def test_full_images_are_written_next_to_the_page(page_request, tmp_path):
    write_page(Request(**vars(page_request) | {"full": True}), tmp_path / "page.html")
    full = page_data((tmp_path / "page.html").read_text())["images"][0]["full"]
    names = {"source": "0_source.png", "pred": "0_made.png", "target": "0_target.png"}
    assert full == {kind: f"page_files/sar2eo/{name}" for kind, name in names.items()}
    assert (
        cv2.imread(str(tmp_path / full["pred"]), cv2.IMREAD_UNCHANGED).tolist() == flat(200)[..., 0].tolist()
    )


def test_two_submissions_stand_side_by_side(page_request, tmp_path):
    preds = {"sar2eo": {name: flat(60) for name in NAMES}}
    other = write_submission(tmp_path / "yours", preds, {"sar2eo": dict.fromkeys(NAMES, 0.05)})
    write_page(Request(**vars(page_request) | {"other": Submission(other)}), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    data = page_data(html)
    assert data["other"] == "yours" and data["images"][0]["other_terms"]["l2"] == 0.05
    assert "other" in data["images"][0]["thumbs"] and "other" not in data["images"][-1]["thumbs"]
    assert "yours and target" in html and '<th scope="row">yours</th>' in html


def test_240_images_stay_under_20_megabytes(tmp_path):
    names = [str(i) for i in range(60)]
    rng = np.random.default_rng(0)

    def scenes(bands):
        rough = rng.integers(0, 256, (40, 40, bands), dtype=np.uint8)
        smooth = resize(rough, (320, 320)).astype(int) + rng.integers(-12, 12, (320, 320, bands))
        one = np.clip(smooth, 0, 255).astype(np.uint8)
        return dict.fromkeys(names, one)

    tasks = {"sar2eo": 1, "sar2rgb": 3, "rgb2ir": 1, "sar2ir": 1}
    images = {task: scenes(bands) for task, bands in tasks.items()}
    folder = write_submission(tmp_path / "mine", images, {task: dict.fromkeys(names, 0.1) for task in tasks})
    page_request = Request(
        Submission(folder), write_images(tmp_path / "t", images), write_images(tmp_path / "g", images)
    )
    n_bytes = write_page(page_request, tmp_path / "page.html")
    assert 2_000_000 < n_bytes < 20_000_000
    assert len(page_data((tmp_path / "page.html").read_text())["images"]) == 240


def test_of_many_images_the_ends_and_some_between_are_picked():
    errors = {str(i): {"l2": i / 1000} for i in range(500)}
    names = pick_images(errors, 40)
    assert len(names) == 40 and names == sorted(names, key=natural_key)
    numbers = [int(name) for name in names]
    assert numbers[:10] == list(range(10)) and numbers[-10:] == list(range(490, 500))
    assert max(np.diff(numbers)) < 30
    assert pick_images({name: {"l2": 0.0} for name in ("10", "9", "a")}, 3) == ["9", "10", "a"]


def test_sixteen_bits_are_stretched(tmp_path):
    ramp = np.linspace(300, 4000, 64 * 64).reshape(64, 64).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "0.png"), ramp)
    encoded = base64.b64decode(thumbnail(tmp_path / "0.png", 64).split(",")[1])
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.min() < 5 and image.max() > 250


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a.ours.folder / "score.json").unlink(), "no score to show"),
        (lambda a: (a.ours.folder / "score.json").write_text("{"), "no score to show"),
        (lambda a: (a.ours.folder / "score.csv").unlink(), "no per-image scores"),
        (lambda a: (a.ours.folder / "score.csv").write_text("a,b\n1,2\n"), "not a CSV"),
        (
            lambda a: (a.ours.predictions / "sar2eo" / "2.png").unlink(),
            "sar2eo 2 was scored, but is missing: pred",
        ),
    ],
)
def test_a_missing_input_is_reported_and_nothing_is_written(page_request, tmp_path, spoil, message):
    spoil(page_request)
    with pytest.raises(DataError, match=message):
        write_page(page_request, tmp_path / "page.html")
    assert not list(tmp_path.glob("*.html"))


def test_a_figure_with_a_script_is_rejected(page_request, tmp_path):
    good, bad = tmp_path / "good.svg", tmp_path / "bad.svg"
    good.write_text(
        line_chart("calibration curve", "x", "y", [Line("a", [1, 2, 3], [3, 1, 2])], [Mark(2, "best")])
    )
    bad.write_text("<svg><script>1</script></svg>")
    write_page(Request(**vars(page_request) | {"figures": (good,)}), tmp_path / "page.html")
    assert "<title>calibration curve</title>" in (tmp_path / "page.html").read_text()
    with pytest.raises(DataError, match="not a figure"):
        write_page(Request(**vars(page_request) | {"figures": (bad,)}), tmp_path / "page.html")


def test_curves_of_the_runs_are_drawn(page_request, tmp_path):
    folder = tmp_path / "runs" / "sar2eo" / "pix2pixhd"
    folder.mkdir(parents=True)
    (folder / "curves.csv").write_text("images,learning_rate,l2,vgg\n10,0.1,0.5,\n20,0.1,0.4,1.5\n")
    write_page(Request(**vars(page_request) | {"runs": tmp_path / "runs"}), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "sar2eo pix2pixhd: training" in html and ">vgg<" in html and "learning_rate" not in html


def test_a_histogram_counts_every_value():
    svg = histogram("t", "x", [0.0, 0.1, 0.1, 1.0], n_bins=10)
    heights = [float(h) for h in re.findall(r'height="([0-9.]+)" fill="#', svg)]
    assert sorted(h > 0 for h in heights).count(True) == 3 and max(heights) == pytest.approx(
        2 * heights[0], abs=0.2
    )
    assert "<title>t</title>" in histogram("t", "x", [0.5, 0.5])


def test_the_command(page_request, pbvs, tmp_path):
    command = (
        "report",
        page_request.ours.folder,
        "--test",
        page_request.inputs,
        "--targets",
        page_request.targets,
    )
    result = pbvs(*command, "--page", tmp_path / "p.html")
    assert result.code == 0 and "p.html" in result.out, result.err
    assert "graph of sar2rgb" in (tmp_path / "p.html").read_text()
    assert pbvs(*command, "--page", tmp_path / "p.html").code == 2
    assert pbvs(*command, "--page", tmp_path / "p.html", "--overwrite").code == 0
