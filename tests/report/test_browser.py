"""The page in a real browser: rendering, slider and keys. Needs `chromium` (or PBVS_CHROMIUM)."""

import os
import shutil

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from scored import flat, write_images, write_submission

from pbvs.core.charts import Line, line_chart
from pbvs.graph.task_set import TaskSet
from pbvs.report.curve_svg import graph_svg
from pbvs.report.page import Request, Submission, write_page

CHROMIUM = os.environ.get("PBVS_CHROMIUM") or shutil.which("chromium")
if not CHROMIUM and not os.environ.get("PBVS_BROWSER_REQUIRED"):
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
VALUES = {"source": 128, "pred": 230, "target": 20, "other": 90}


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    """Six constant images of two tasks, and another submission to compare with."""
    root = tmp_path_factory.mktemp("page")
    names = {"sar2eo": ["0", "2", "10", "11"], "sar2rgb": ["0", "1"]}
    bands = {"sar2eo": 1, "sar2rgb": 3}

    def images(value):
        return {task: {name: flat(value, bands[task]) for name in stems} for task, stems in names.items()}

    errors = {"sar2eo": {"0": 0.3, "2": 0.1, "10": 0.4, "11": 0.2}, "sar2rgb": {"0": 0.5, "1": 0.05}}
    mine = write_submission(root / "mine", images(VALUES["pred"]), errors)
    yours = write_submission(root / "yours", images(VALUES["other"]), errors)
    curves = root / "runs" / "sar2eo" / "pix2pixhd"
    curves.mkdir(parents=True)
    (curves / "curves.csv").write_text("images,l2,vgg\n10,0.5,2.5\n20,0.4,1.5\n30,0.3,1.2\n")
    figure = root / "curve.svg"
    figure.write_text(line_chart("calibration", "factor", "error", [Line("L2", [1, 2, 3], [3, 1, 2])]))
    task_set = TaskSet()
    request = Request(
        Submission(mine),
        write_images(root / "test", images(VALUES["source"])),
        write_images(root / "targets", images(VALUES["target"])),
        other=Submission(yours),
        runs=root / "runs",
        graphs={task: task_set.graph(task).described() for task in names},
        figures=(figure,),
        full=True,
    )
    write_page(request, root / "page.html")
    return root / "page.html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def opened(browser, page_path):
    """Opens the page; at the end there must be no console message and no network request."""
    contexts, messages, requests = [], [], []

    def open_page(viewport=DESKTOP, **more):
        context = browser.new_context(viewport=viewport, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_path.as_uri())
        page.wait_for_function("document.getElementById('error').dataset.image")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []
    assert [url for url in requests if not url.startswith(("data:", page_path.as_uri()))] == []


def screen(page, selector):
    """The rendered pixels of an element, `H,W,3` in RGB order."""
    png = np.frombuffer(page.locator(selector).screenshot(), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)


def value_at(image, x):
    """The pixel at `x` in [0,1] of the width, halfway down."""
    return image[image.shape[0] // 2, int(x * (image.shape[1] - 1))]


def slide(page, value):
    page.locator("#wipe").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }", value
    )


def near(value):
    return pytest.approx([value] * 3, abs=4)


def test_the_slider_moves_the_wipe(opened):
    page = opened()
    frame = ".views figure:nth-child(2) .inner"
    for value, expected in {
        100: {0.05: "pred", 0.95: "pred"},
        0: {0.05: "target", 0.95: "target"},
        50: {0.4: "pred", 0.6: "target"},
        80: {0.7: "pred", 0.9: "target"},
    }.items():
        slide(page, value)
        image = screen(page, frame)
        for x, name in expected.items():
            assert value_at(image, x) == near(VALUES[name]), (value, x)


def test_the_slider_works_by_keyboard(opened):
    page = opened()
    page.locator("#wipe").focus()
    page.keyboard.press("End")
    assert value_at(screen(page, ".views figure:nth-child(2) .inner"), 0.9) == near(VALUES["pred"])
    name = page.inner_text("#name")
    page.keyboard.press("ArrowLeft")  # moves the slider and keeps the image
    assert page.inner_text("#name") == name and page.input_value("#wipe") == "99"


def test_keys_walk_and_zoom(opened):
    page = opened()
    assert page.inner_text("#name") == "sar2eo 0"
    walked = []
    for key in (
        "ArrowRight",
        "j",
        "ArrowRight",
        "ArrowRight",
        "k",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowLeft",
    ):
        page.keyboard.press(key)
        walked.append(page.inner_text("#name"))
    assert walked == [
        *("sar2eo 2", "sar2eo 10", "sar2eo 11", "sar2rgb 0", "sar2eo 11"),
        *("sar2eo 10", "sar2eo 2", "sar2eo 0", "sar2rgb 1"),
    ]
    before = page.locator("#under").bounding_box()["width"]
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.locator("#under").bounding_box()["width"] == pytest.approx(2 * before, rel=0.02)
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert page.locator("#under").bounding_box()["width"] == pytest.approx(before, rel=0.02)
    page.locator("#find").fill("")
    page.locator("#find").focus()
    name = page.inner_text("#name")
    page.keyboard.type("j")  # a letter to search for
    assert page.input_value("#find") == "j" and name == "sar2rgb 1"


def names(page):
    return [text.split("\n")[0].rsplit(" L", 1)[0] for text in page.locator("#list button").all_inner_texts()]


def test_filter_order_and_search(opened):
    page = opened()
    assert names(page) == ["sar2eo 0", "sar2eo 2", "sar2eo 10", "sar2eo 11", "sar2rgb 0", "sar2rgb 1"]
    page.select_option("#order", "l2")
    assert names(page) == ["sar2rgb 0", "sar2eo 10", "sar2eo 0", "sar2eo 11", "sar2eo 2", "sar2rgb 1"]
    page.select_option("#task", "sar2eo")
    assert names(page) == ["sar2eo 10", "sar2eo 0", "sar2eo 11", "sar2eo 2"]
    assert page.inner_text("#count") == "4 of 6 images"
    page.locator("#find").fill("1")
    assert names(page) == ["sar2eo 10", "sar2eo 11"]
    page.locator("#find").fill("none")
    assert names(page) == [] and not page.is_visible("#stage")
    page.locator("#find").fill("")
    page.locator("#list button").nth(2).click()
    assert page.inner_text("#name") == "sar2eo 11"
    assert page.locator("#list button[aria-current=true]").count() == 1


def test_the_error_map_is_that_of_the_selected_image(opened):
    page = opened()
    # (230 - 20) / 255 is over 0.5: the last colour; (90 - 20) / 255 lies between the first three.
    assert value_at(screen(page, "#error"), 0.5) == pytest.approx([252, 255, 164], abs=3)
    page.select_option("#pair", "other-target")
    page.wait_for_timeout(200)
    part = (90 - 20) / 255 / 0.5 * 3 - 1
    expected = np.array([120, 28, 109]) * (1 - part) + np.array([237, 105, 37]) * part
    assert value_at(screen(page, "#error"), 0.5) == pytest.approx(expected, abs=6)


def test_two_submissions_are_wiped_between(opened):
    page = opened()
    page.select_option("#pair", "pred-other")
    image = screen(page, ".views figure:nth-child(2) .inner")
    assert value_at(image, 0.25) == near(VALUES["pred"]) and value_at(image, 0.75) == near(VALUES["other"])
    assert "right yours" in page.inner_text("#sides") and "yours: L2" in page.inner_text("#terms")


def test_samples_are_filled_and_full_images_are_links(opened, page_path):
    page = opened()
    loaded = page.evaluate("[...document.querySelectorAll('.samples img')].map((i) => i.naturalWidth)")
    assert len(loaded) == 2 * 3 * 3 and min(loaded) > 0
    link = page.locator("#full a").first.get_attribute("href")
    assert (page_path.parent / link).is_file()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_serious_accessibility_violation(opened, viewport, scheme):
    page = opened(viewport, color_scheme=scheme)
    found = Axe().run(page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []


def test_light_and_dark_differ(opened):
    light, dark = (screen(opened(color_scheme=scheme), "h1") for scheme in ("light", "dark"))
    assert light.mean() > 200 and dark.mean() < 60


def test_a_phone_shows_it_without_sideways_scrolling(opened):
    page = opened(PHONE)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    views = [page.locator(".views figure").nth(i).bounding_box() for i in range(3)]
    assert views[0]["y"] < views[1]["y"] < views[2]["y"]


def test_in_print_the_viewer_is_left_out(opened):
    page = opened()
    page.emulate_media(media="print")
    assert not page.is_visible("#images") and page.is_visible("#scores-heading")


def test_the_graph_shows_every_node():
    drawn = graph_svg(TaskSet().graph("sar2ir").described())
    for text in ("source", "sar2rgb", "the whole of sar2rgb", "grayscale", "times 1.15"):
        assert f">{text}<" in drawn
    assert drawn.count("<line") == 3
