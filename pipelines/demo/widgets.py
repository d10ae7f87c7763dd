"""What the tabs share: galleries, words for errors and progress, and the line that paints one thing at a time."""

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency
from PIL import Image

from dvae import UnusablePicture, read_picture
from dvae.image_processing_dvae import FORMATS

from .studio import Kept, Progress

ONE_BY_ONE = {
    "concurrency_id": "pipeline",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "hidden",
}
AT_ONCE = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
MAX_PROMPT = 1000  # characters
MAX_PIXELS = 2**24  # of an upload, or a drawing
EDITOR_SIDE = 448  # pixels: small pictures are enlarged to be drawn on
LIVE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite')"  # it is read out
WAITING = "<p>someone else's picture is painted first; yours comes then</p>"
BEGINS = "<p>it begins</p>"
_END = object()
_WARNINGS = threading.Lock()  # what catches them is the whole process's


def read_as_everywhere(picture: gr.Image | gr.ImageEditor) -> None:
    """What a visitor hands to a component is read by `read_picture`: gradio would open all formats that PIL has."""

    def preprocess(payload: Any) -> Image.Image | None:
        return None if payload is None or payload.path is None else _uploaded(Path(payload.path).read_bytes())

    def layer(file: Any, flatten_on_white: bool = False) -> Image.Image | None:
        if file is None:
            return None
        data = Path(file.path).read_bytes() if isinstance(file, gr.FileData) else bytes(file)
        return _uploaded(data).convert("RGBA")

    if isinstance(picture, gr.ImageEditor):
        editor: Any = picture
        editor.convert_and_format_image = layer
        editor.preprocess = of_one_layer(editor.preprocess)
    else:
        picture.preprocess = preprocess


def of_one_layer(preprocess: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An editor's, which the page draws with one layer; a request may claim any number, each as large as a picture."""

    def checked(payload: Any) -> Any:
        if payload is not None and len(getattr(payload, "layers", None) or []) > 1:
            raise gr.Error("a drawing has one layer", print_exception=False)
        return preprocess(payload)

    return checked


def _uploaded(file: bytes) -> Image.Image:
    try:
        return read_picture(file, max_pixels=MAX_PIXELS)
    except UnusablePicture as error:
        words = f"this file is no picture that can be used ({error}); pass one of {', '.join(FORMATS)}"
        raise gr.Error(words, print_exception=False) from error


def explained(function: Callable) -> Callable:
    """What the pipeline refuses or warns of becomes a message on the page, in the words of the pipeline."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def explain_items(*args: Any) -> Iterator[Any]:
            items = function(*args)
            try:
                while True:
                    with _messages():  # between two items the page does other things, which may warn, too
                        item = next(items, _END)
                    if item is _END:
                        return
                    yield item
            finally:
                items.close()

        return explain_items

    @wraps(function)
    def explain(*args: Any) -> Any:
        with _messages():
            return function(*args)

    return explain


@contextmanager
def _messages() -> Iterator[None]:
    try:
        with _WARNINGS, warnings.catch_warnings(record=True) as caught:
            yield
    except (OSError, TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    for warning in caught:
        gr.Warning(str(warning.message))


def prompt_box(label: str, elem_id: str, value: str = "") -> gr.Textbox:
    """Of one line that grows, in which Enter paints."""
    return gr.Textbox(label=label, value=value, lines=1, max_lines=4, max_length=MAX_PROMPT, elem_id=elem_id)


def pictures(label: str, elem_id: str, height: int) -> gr.Gallery:
    """height: in pixels; more pictures than fit are scrolled to."""
    return gr.Gallery(
        label=label,
        show_label=False,
        elem_id=elem_id,
        elem_classes="pictures",
        columns=2,
        height=height,
        object_fit="contain",
        format="png",
        buttons=["download", "fullscreen"],
        preview=False,
        interactive=False,
    )


def captioned(kept: list[Kept]) -> list[tuple[str, str]]:
    """A caption is the picture's alternative text, too."""
    return [(picture.path, f"seed {picture.seed}: {picture.prompt}") for picture in kept]


def growing(now: Progress, prompt: str) -> list[tuple[Image.Image, str]]:
    """Pictures that are not whole yet, captioned."""
    return [(image, f"not whole yet: {prompt}") for image in now.images]


def tiles(captioned_pictures: list[tuple], now: Progress) -> gr.Gallery:
    """Up to four new pictures are shown large."""
    return gr.Gallery(captioned_pictures, columns=2 if len(now.images) <= 4 else 4)


def told(elem_id: str) -> gr.HTML:
    """Where the page says how far it is."""
    return gr.HTML(elem_id=elem_id, js_on_load=LIVE)


def in_turn(
    triggers: list[Callable],
    run: Callable,
    inputs: list[Component],
    outputs: list[Component],
    is_busy: Callable[[], bool],
) -> tuple[Dependency, gr.State]:
    """`run` paints once its turn has come. Until then the state has words, and so has a second click.

    outputs: of `run`, the gallery and the state first. A picture of the gallery that is looked at alone makes way.

    Returns the painting, to be cancelled, and whether it goes on, to be made False then.
    """
    goes_on, (gallery, state, *_) = gr.State(False), outputs

    def begin(already: bool) -> tuple[gr.Gallery, str, bool]:
        if already:
            words = "your last ones are not finished; wait for them, or press Stop"
            raise gr.Error(words, title="One after the other", print_exception=False)
        return gr.Gallery(selected_index=None), WAITING if is_busy() else BEGINS, True

    begun = gr.on(triggers, begin, goes_on, [gallery, state, goes_on], trigger_mode="multiple", **AT_ONCE)
    painting = begun.success(run, inputs, outputs, **ONE_BY_ONE)
    painting.success(lambda: False, None, goes_on, **AT_ONCE)
    painting.failure(lambda: ("", False), None, [state, goes_on], **AT_ONCE)
    return painting, goes_on


def bar(step: int, total: int) -> str:
    """Of the two that say the same, one is for those who hear it: each time anew would be too much to be read out."""
    words = f"code {step} of {total}"
    return f'<progress max="{total}" value="{step}" aria-label="{words}"></progress><p aria-hidden="true">{words}</p>'


def counted(count: int, seconds: float) -> str:
    return f"<p>{count} picture{'s' if count > 1 else ''} in {seconds:.1f} s</p>"


def enlarge(picture: Image.Image) -> Image.Image:
    """A small picture with its pixels as squares, large enough to draw on; a large one as it is."""
    factor = max(EDITOR_SIDE // max(picture.size), 1)
    return picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def worded(prompt: str) -> str:
    """The prompt. Raises ValueError when there is none."""
    if not prompt.strip():
        raise ValueError("there is no prompt; type a few words, such as an armchair shaped like an avocado")
    return prompt


def present(value: Any, remedy: str) -> Any:
    """The value. Raises ValueError with the remedy when there is none."""
    if value is None:
        raise ValueError(remedy)
    return value
