"""The page in a real browser: what is seen, moved and pressed. Needs `chromium` (or PBVS_CHROMIUM)."""

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
LEVELS = {"source": 128, "made": 230, "target": 20, "other": 90}


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    """Six images of two tasks, each of one level, and another submission beside them."""
    root = tmp_path_factory.mktemp("page")
    names = {"sar2eo": ["0", "2", "10", "11"], "sar2rgb": ["0", "1"]}
    bands = {"sar2eo": 1, "sar2rgb": 3}

    def images(level):
        return {task: {name: flat(level, bands[task]) for name in of} for task, of in names.items()}

    errors = {"sar2eo": {"0": 0.3, "2": 0.1, "10": 0.4, "11": 0.2}, "sar2rgb": {"0": 0.5, "1": 0.05}}
    mine = write_submission(root / "mine", images(LEVELS["made"]), errors)
    yours = write_submission(root / "yours", images(LEVELS["other"]), errors)
    curves = root / "runs" / "sar2eo" / "pix2pixhd"
    curves.mkdir(parents=True)
    (curves / "curves.csv").write_text("images,l2,vgg\n10,0.5,2.5\n20,0.4,1.5\n30,0.3,1.2\n")
    figure = root / "curve.svg"
    figure.write_text(line_chart("calibration", "factor", "error", [Line("L2", [1, 2, 3], [3, 1, 2])]))
    book = TaskSet()
    asked = Request(
        Submission(mine),
        write_images(root / "test", images(LEVELS["source"])),
        write_images(root / "targets", images(LEVELS["target"])),
        other=Submission(yours),
        runs=root / "runs",
        graphs={task: book.graph(task).described() for task in names},
        figures=(figure,),
        full=True,
    )
    write_page(asked, root / "page.html")
    return root / "page.html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def opened(browser, page_path):
    """Opens the page; at the end nothing must have been complained of, or asked of any network."""
    contexts, complaints, asked_for = [], [], []

    def open_page(viewport=DESKTOP, **more):
        context = browser.new_context(viewport=viewport, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked_for.append(request.url))
        page.goto(page_path.as_uri())
        page.wait_for_function("document.getElementById('error').dataset.image")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked_for if not url.startswith(("data:", page_path.as_uri()))] == []


def seen(page, selector):
    """What is on the screen there, `H,W,3` in RGB order."""
    png = np.frombuffer(page.locator(selector).screenshot(), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)


def level_at(image, share):
    """The level at a share of the width, halfway down."""
    return image[image.shape[0] // 2, int(share * (image.shape[1] - 1))]


def slide(page, value):
    page.locator("#wipe").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')) }", value
    )


def near(level):
    return pytest.approx([level] * 3, abs=4)


def test_the_slider_moves_what_is_seen(opened):
    page = opened()
    frame = ".views figure:nth-child(2) .inner"
    for value, expected in {
        100: {0.05: "made", 0.95: "made"},
        0: {0.05: "target", 0.95: "target"},
        50: {0.4: "made", 0.6: "target"},
        80: {0.7: "made", 0.9: "target"},
    }.items():
        slide(page, value)
        image = seen(page, frame)
        for share, name in expected.items():
            assert level_at(image, share) == near(LEVELS[name]), (value, share)


def test_the_slider_goes_by_the_keyboard(opened):
    page = opened()
    page.locator("#wipe").focus()
    page.keyboard.press("End")
    assert level_at(seen(page, ".views figure:nth-child(2) .inner"), 0.9) == near(LEVELS["made"])
    name = page.inner_text("#name")
    page.keyboard.press("ArrowLeft")  # moves the slider, not to another image
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


def test_the_error_map_is_that_of_the_image_shown(opened):
    page = opened()
    # (230 - 20) / 255 is over 0.5: the last colour; (90 - 20) / 255 lies between the first three.
    assert level_at(seen(page, "#error"), 0.5) == pytest.approx([252, 255, 164], abs=3)
    page.select_option("#pair", "other-target")
    page.wait_for_timeout(200)
    place = (90 - 20) / 255 / 0.5 * 3 - 1
    expected = np.array([120, 28, 109]) * (1 - place) + np.array([237, 105, 37]) * place
    assert level_at(seen(page, "#error"), 0.5) == pytest.approx(expected, abs=6)


def test_two_submissions_are_wiped_between(opened):
    page = opened()
    page.select_option("#pair", "made-other")
    image = seen(page, ".views figure:nth-child(2) .inner")
    assert level_at(image, 0.25) == near(LEVELS["made"]) and level_at(image, 0.75) == near(LEVELS["other"])
    assert "right yours" in page.inner_text("#sides") and "yours: L2" in page.inner_text("#terms")


def test_samples_are_filled_and_full_images_are_links(opened, page_path):
    page = opened()
    loaded = page.evaluate("[...document.querySelectorAll('.samples img')].map((i) => i.naturalWidth)")
    assert len(loaded) == 2 * 3 * 3 and min(loaded) > 0
    link = page.locator("#full a").first.get_attribute("href")
    assert (page_path.parent / link).is_file()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_serious_fault_of_accessibility(opened, viewport, scheme):
    page = opened(viewport, color_scheme=scheme)
    found = Axe().run(page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []


def test_light_and_dark_differ(opened):
    light, dark = (seen(opened(color_scheme=scheme), "h1") for scheme in ("light", "dark"))
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
    for words in ("source", "sar2rgb", "the whole of sar2rgb", "grayscale", "times 1.15"):
        assert f">{words}<" in drawn
    assert drawn.count("<line") == 3
