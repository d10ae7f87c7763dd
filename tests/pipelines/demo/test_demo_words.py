"""What the page says to those who wait, click twice, type nothing, or see no picture; without a browser."""

import threading
import warnings

import pytest
from messages import holds, refused
from PIL import Image

from pipelines.demo.studio import Studio

pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")

import gradio

from pipelines.demo.page import build_page
from pipelines.demo.widgets import BEGINS, WAITING, bar, captioned, explained, growing


@pytest.fixture
def studio(tiny_pipeline) -> Studio:
    return Studio(tiny_pipeline, name="tiny")


def named(page, name: str) -> list:
    return [fn for fn in page.fns.values() if fn.name == name]


def block(page, elem_id: str):
    return next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == elem_id)


def triggers(page, function) -> set:
    return {(page.blocks[key].elem_id, event) for key, event in function.targets}


def test_enter_paints_in_every_field_of_one_line(studio):
    page = build_page(studio)
    paint, anew = named(page, "begin")
    assert triggers(page, paint) == {
        ("paint", "click"),
        ("prompt", "submit"),
        ("negative", "submit"),
        ("seed", "submit"),
    }
    assert {("inpaint-button", "click"), ("whole", "submit")} < triggers(page, anew)
    assert all(block(page, elem_id).lines == 1 for elem_id in ("prompt", "negative", "whole"))


def test_who_waits_and_who_clicks_again_is_told(studio):
    """At once, whoever is being painted for: it takes no turn."""
    page = build_page(studio)
    for begin in named(page, "begin"):
        assert begin.concurrency_limit is None and begin.trigger_mode == "multiple"
        assert begin.fn(False)[1:] == (BEGINS, True)
        shown = studio.paint("a red apple", seed=0)
        next(shown)
        assert begin.fn(False)[1:] == (WAITING, True)
        shown.close()
        assert begin.fn(False)[1:] == (BEGINS, True)
        with refused(gradio.Error, "Stop"):
            begin.fn(True)


def test_a_picture_that_is_looked_at_makes_way_once(studio):
    """Before the first of the new ones is there; while they grow one may look at any of them."""
    page = build_page(studio)
    for begin in named(page, "begin"):
        assert page.blocks[begin.outputs[0]._id].elem_id in ("gallery", "inpainted")
        assert begin.fn(False)[0].constructor_args == {"selected_index": None}
    (run,) = [fn.fn for fn in named(page, "run") if len(fn.inputs) == 10]
    for gallery, *_ in run([], "a red apple", "", 0.0, 1, 1.0, 1.0, 20, 1.0, 0.0):
        assert "selected_index" not in gallery.constructor_args


def test_what_paints_takes_turns(studio):
    """The painting, the repainting and the reconstruction, one at a time of all."""
    runs = named(build_page(studio), "run")
    assert len(runs) == 3
    assert {(run.concurrency_id, run.concurrency_limit) for run in runs} == {("pipeline", 1)}


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused_in_words(studio, prompt):
    runs = {len(fn.inputs): fn.fn for fn in named(build_page(studio), "run")}
    with refused(gradio.Error, "prompt"):
        next(runs[10]([], prompt, "", 0.0, 1, 1.0, 1.0, 20, 1.0, 0.0))
    drawn = {"background": Image.new("RGB", (16, 16)), "layers": [Image.new("RGBA", (16, 16), "red")]}
    with refused(gradio.Error, "prompt"):
        next(runs[5](drawn, prompt, 0.0, 1, 1))


def test_a_picture_says_what_it_shows_and_what_painted_it(studio):
    *_, before, last = studio.paint("a red apple", seed=3, num_images_per_prompt=2)
    assert [holds(words, "a red apple", seed) for (_, words), seed in zip(captioned(last.kept), (3, 4), strict=True)]
    assert all(holds(words, "a red apple") for _, words in growing(before, "a red apple"))


def test_the_page_has_one_heading_and_its_states_are_read_out(studio):
    page = build_page(studio)
    headings = [block.value for block in page.blocks.values() if isinstance(block, gradio.Markdown)]
    assert sum(text.startswith("# ") for text in headings) == 1
    for elem_id in ("state", "inpaint-state", "reconstructed"):
        assert holds(block(page, elem_id).js_on_load, "role", "status", "aria-live", "polite")
    assert holds(bar(4, 16), 'aria-label="code 4 of 16"', 'aria-hidden="true"')


def test_the_pictures_come_before_the_settings(studio):
    """As they stand one below the other on a narrow screen, and as they are read."""
    page = build_page(studio)
    (studio_row,) = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == "studio"]
    assert [column.elem_id for column in studio_row.children] == ["asked", "painted", "details"]


def test_warnings_of_two_visitors_are_not_mixed(monkeypatch):
    """What catches warnings is the process's own: two who catch them at once would leave it changed for ever."""
    told, own = [], warnings._showwarnmsg_impl
    inside, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("gradio.Warning", told.append)

    @explained
    def slow():
        inside.set()
        go_on.wait(20)
        warnings.warn("slow", stacklevel=1)

    @explained
    def quick():
        warnings.warn("quick", stacklevel=1)

    first, second = threading.Thread(target=slow), threading.Thread(target=quick)
    first.start()
    inside.wait(20)
    second.start()
    second.join(0.2)
    go_on.set()
    first.join(20)
    second.join(20)
    assert told == ["slow", "quick"]
    assert warnings._showwarnmsg_impl is own
