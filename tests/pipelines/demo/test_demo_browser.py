"""The page as a visitor has it, in a headless Chromium: `apt-get install chromium`."""

import io
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")
pytest.importorskip("playwright", reason="a browser is driven by playwright: pip install 'armchair[test]'")

from audit import faint, nameless
from browser import CHROMIUM, Visit, chromium, guarded, page_process, visit

from pipelines import TextToImagePipeline
from pipelines.demo.space import gather

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]
PROMPT = "an armchair shaped like an avocado"


@pytest.fixture(scope="module")
def running() -> Iterator[tuple]:
    """The browser, the page's address, and the file of hosts that the page's process strayed to."""
    with page_process() as (address, strayed), chromium() as browser:
        yield browser, address, strayed


@pytest.fixture
def visitor(running) -> Iterator[Visit]:
    """Whatever a test does: nothing complains, and nothing leaves loopback."""
    browser, address, strayed = running
    visitor = visit(browser, address)
    yield visitor
    visitor.page.close()
    assert visitor.errors == []
    hosts = {urlsplit(url).netloc for url in visitor.requests if url.startswith(("http", "ws"))}
    assert hosts == {urlsplit(address).netloc}
    assert strayed.read_text() == ""


@pytest.fixture(scope="module")
def embedded() -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained()


def fetch(visitor: Visit, selector: str) -> Image.Image:
    """The picture of an <img>, as the server sends it."""
    source = visitor.page.locator(selector).first.get_attribute("src")
    return Image.open(io.BytesIO(visitor.page.request.get(source).body()))


def test_a_prompt_becomes_pictures_to_look_at_copy_and_download(visitor, embedded, tmp_path):
    visitor.paint(PROMPT, number=2)
    expected = embedded(PROMPT, seed=0, num_images_per_prompt=2, progress_bar=False)
    assert visitor.page.locator("#gallery .grid-wrap img").count() == 2
    assert fetch(visitor, "#gallery .grid-wrap img").tobytes() == expected.images[0].tobytes()

    visitor.page.locator("#gallery .grid-wrap button").nth(1).click()
    visitor.page.wait_for_function("document.querySelector('#its-seed input, #its-seed textarea').value == '1'")
    assert visitor.page.input_value("#its-prompt input, #its-prompt textarea") == PROMPT
    with visitor.page.expect_download() as download:
        visitor.page.click("#download")
    download.value.save_as(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert (picture.text["prompt"], picture.text["seed"], picture.text["model"]) == (PROMPT, "1", "embedded")
        assert picture.tobytes() == expected.images[1].tobytes()
    visitor.page.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert np.asarray(shot.convert("L")).std() > 10  # in levels of 0..255: no blank page


def test_the_gallery_remembers_and_the_dice_draw_a_seed(visitor):
    visitor.paint("sailboat", number=1)
    visitor.page.click("#dice")
    visitor.page.wait_for_function("document.querySelector('#seed input').value != '0'")
    seed = visitor.page.input_value("#seed input")
    visitor.paint("red apple", number=1)
    assert visitor.page.locator("#gallery .grid-wrap img").count() == 2
    assert visitor.page.input_value("#its-seed input, #its-seed textarea") == seed


def test_stop_stops_and_leaves_the_page_ready(visitor):
    visitor.paint("red apple", number=1)
    kept = visitor.page.input_value("#its-seed input, #its-seed textarea")
    visitor.page.fill("#prompt textarea", "sailboat")
    visitor.page.fill("#number input[type=number]", "16")
    visitor.page.click("#paint")
    visitor.page.wait_for_selector("#state progress", timeout=60_000)
    visitor.page.click("#stop")
    visitor.page.wait_for_selector("#state >> text=stopped")
    visitor.page.wait_for_timeout(1000)  # until it has: a second click meanwhile is none
    tiles = visitor.page.locator("#gallery .grid-wrap img")
    assert tiles.count() == 1, "what was not finished is gone"
    tiles.first.click()  # which shows it alone
    assert visitor.page.input_value("#its-prompt input, #its-prompt textarea") == "red apple"
    assert visitor.page.input_value("#its-seed input, #its-seed textarea") == kept
    visitor.paint("sailboat", number=1)
    assert visitor.page.locator("#gallery .grid-wrap img").count() == 2


def test_a_part_drawn_over_is_painted_anew(visitor, embedded):
    visitor.paint(PROMPT, number=1)
    visitor.page.click("#to-editor")
    visitor.page.wait_for_selector("#editor canvas")
    visitor.page.wait_for_timeout(2000)  # the editor lays the picture out
    visitor.draw([(0.35, 0.6), (0.65, 0.6)])
    visitor.page.wait_for_timeout(1000)  # and sends the stroke
    visitor.page.click("#inpaint-button")
    visitor.page.wait_for_selector("#inpaint-state >> text=2 pictures in", timeout=120_000)
    painted = fetch(visitor, "#inpainted .grid-wrap img")
    assert (painted.text["prompt"], painted.text["inpaint"]) == (PROMPT, "a mask drawn on the page")
    codes = embedded.encode_images(embedded(PROMPT, seed=0, progress_bar=False).images[0])
    error = np.abs(
        np.asarray(painted, float) - np.asarray(embedded.postprocess(embedded.decode_codes(codes))[0], float)
    )
    assert error[:8].mean() < 8  # in levels of 0..255: the rows far above the stroke stay

    visitor.draw([(0.5, 0.1), (0.5, 0.9)])
    visitor.page.wait_for_timeout(1000)
    visitor.page.fill("#best-of input[type=number]", "16")
    visitor.page.click("#inpaint-button")
    visitor.page.wait_for_selector("#inpaint-state progress", timeout=60_000)
    visitor.page.click("#inpaint-stop")
    visitor.page.wait_for_selector("#inpaint-state >> text=stopped")
    visitor.page.wait_for_timeout(1000)  # the tiles may follow the words
    assert visitor.page.locator("#inpainted .grid-wrap img").count() == 2, "those of before"
    assert fetch(visitor, "#inpainted .grid-wrap img").tobytes() == painted.tobytes()


def test_an_uploaded_picture_is_reconstructed_with_its_codes(visitor, embedded, tmp_path):
    embedded("sailboat", seed=0, progress_bar=False).images[0].save(tmp_path / "mine.png")
    visitor.page.get_by_role("tab", name="Reconstruct").click()
    visitor.page.locator("#upload input[type=file]").set_input_files(tmp_path / "mine.png")
    visitor.page.wait_for_selector("#rebuilt img", timeout=120_000)
    codes = visitor.page.input_value("#codes textarea")
    expected = embedded.encode_images(Image.open(tmp_path / "mine.png"))[0]
    assert [[int(code) for code in row.split()] for row in codes.split("\n")] == expected.tolist()


def test_what_is_refused_is_said_on_the_page(visitor, tmp_path):
    page = visitor.page
    page.fill("#prompt textarea", " ")
    page.click("#paint")
    page.wait_for_selector("text=there is no prompt", timeout=60_000)
    page.wait_for_function("document.querySelector('#state').innerText.trim() === ''", timeout=60_000)
    page.get_by_role("tab", name="Reconstruct").click()
    (tmp_path / "letter.png").write_text("no picture")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "letter.png")
    page.wait_for_selector("text=this file is no picture that can be used", timeout=60_000)
    page.get_by_role("tab", name="Paint a part anew").click()
    page.click("#inpaint-button")
    page.wait_for_selector("text=there is no picture yet", timeout=60_000)
    page.locator("#editor input[type=file]").first.set_input_files(tmp_path / "letter.png")
    page.wait_for_selector("text=your browser cannot read this file", timeout=60_000)


def test_enter_paints_and_a_second_click_is_answered(visitor):
    page = visitor.page
    page.fill("#number input[type=number]", "16")
    page.fill("#prompt textarea", "red apple")
    page.press("#prompt textarea", "Enter")
    page.wait_for_selector("#state progress", timeout=60_000)
    page.click("#paint")
    page.wait_for_selector("text=your last ones are not finished", timeout=60_000)
    page.wait_for_selector("#state >> text=16 pictures in", timeout=120_000)
    assert page.locator("#gallery .grid-wrap img").count() == 16, "the first ones, once"
    for field in ("#seed input", "#negative textarea"):
        page.fill("#number input[type=number]", "1")
        page.press(field, "Enter")
        page.wait_for_selector("#state progress", timeout=60_000)
        page.wait_for_selector("#state >> text=1 picture in", timeout=60_000)


def test_a_visitor_who_waits_is_told_what_for(running, visitor):
    other = visit(running[0], running[1])
    other.page.fill("#number input[type=number]", "16")
    other.page.click("#paint")
    other.page.wait_for_selector("#state progress", timeout=60_000)
    visitor.page.click("#paint")
    visitor.page.wait_for_selector("#state >> text=someone else's picture is painted first", timeout=30_000)
    visitor.page.click("#stop")
    visitor.page.wait_for_selector("#state >> text=stopped", timeout=30_000)
    visitor.page.click("#paint")
    visitor.page.wait_for_selector("#state >> text=someone else's picture", timeout=30_000)
    other.page.click("#stop")
    visitor.page.wait_for_selector("#state >> text=4 pictures in", timeout=120_000)
    other.page.close()


def test_a_picture_that_is_looked_at_does_not_hide_the_next_ones(visitor):
    visitor.paint("red apple", number=1)
    visitor.page.locator("#gallery .grid-wrap button").first.click()
    visitor.page.wait_for_selector("#gallery .preview")
    visitor.paint("sailboat", number=2)
    assert visitor.page.locator("#gallery .preview").count() == 0
    alternatives = [image.get_attribute("alt") for image in visitor.page.locator("#gallery .grid-wrap img").all()]
    assert alternatives == ["seed 0: sailboat", "seed 1: sailboat", "seed 0: red apple"]


def test_on_a_telephone_the_pictures_are_in_sight(running):
    visitor = visit(running[0], running[1], 390, 844)
    visitor.paint(PROMPT, number=4)
    tiles = visitor.page.locator("#gallery .grid-wrap img").all()
    boxes = [tile.bounding_box() for tile in tiles]
    assert len(boxes) == 4 and visitor.page.evaluate("scrollY") == 0
    for box in boxes:
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert box["y"] >= 0 and box["y"] + box["height"] <= 844
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == 390, "nothing lies to the side"
    visitor.page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_can_be_read_and_everything_has_a_name(running, theme, tmp_path):
    visitor = visit(running[0], f"{running[1]}?__theme={theme}")
    page = visitor.page
    page.click("text=How codes are drawn")
    visitor.paint("red apple", number=2)
    assert page.locator("h1").count() == 1
    assert page.locator("#state [role=status][aria-live=polite]").inner_text().startswith("2 pictures in")
    fetch(visitor, "#gallery .grid-wrap img").save(tmp_path / "mine.png")
    for tab in ("Paint", "Paint a part anew", "Reconstruct"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(1500)
        if tab == "Reconstruct":
            page.locator("#upload input[type=file]").set_input_files(tmp_path / "mine.png")
            page.wait_for_selector("#rebuilt img", timeout=60_000)
            page.wait_for_timeout(500)
        assert (tab, faint(page), nameless(page)) == (tab, [], [])
    page.close()


def test_stopped_while_it_paints_it_leaves_no_picture(running):
    with page_process() as (address, _):
        visitor = visit(running[0], address)
        visitor.paint("red apple", number=1)
        visitor.page.click("#paint")
        visitor.page.wait_for_selector("#state progress", timeout=60_000)


def test_the_space_shows_the_same_page(running, tmp_path):
    """From its own folder, with its own sources and model."""
    gather(tmp_path / "space")
    with page_process("app.py", root=tmp_path / "space") as (address, strayed):
        visitor = visit(running[0], address)
        visitor.paint(PROMPT, number=1)
        assert fetch(visitor, "#gallery .grid-wrap img").text["model"] == "model"
        assert visitor.errors == []
        assert strayed.read_text() == ""


def test_the_guard_sees_who_strays(tmp_path):
    environment = guarded(tmp_path)
    stray = "import socket; socket.create_connection(('armchair.invalid', 80))"
    done = subprocess.run([sys.executable, "-c", stray], env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "armchair.invalid" in done.stderr
    assert "armchair.invalid" in (tmp_path / "strayed.txt").read_text()
