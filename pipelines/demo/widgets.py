"""What the tabs share: galleries, words for errors and progress, and the line that paints one thing at a time."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from dvae import UnusablePicture, read_picture
from dvae.image_processing_dvae import FORMATS

from .studio import Kept, Progress

ONE_BY_ONE = {"concurrency_id": "pipeline", "concurrency_limit": 1, "api_visibility": "private"}
MAX_PROMPT = 1000  # characters
EDITOR_SIDE = 448  # pixels: small pictures are enlarged to be drawn on
_END = object()


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
        picture.convert_and_format_image = layer
    else:
        picture.preprocess = preprocess


def _uploaded(file: bytes) -> Image.Image:
    try:
        return read_picture(file)
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
        with warnings.catch_warnings(record=True) as caught:
            yield
    except (OSError, TypeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    for warning in caught:
        gr.Warning(str(warning.message))


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
    return [(picture.path, f"seed {picture.seed}") for picture in kept]


def growing(now: Progress) -> list[tuple[Image.Image, str]]:
    """Pictures that are not whole yet, captioned."""
    return [(image, "…") for image in now.images]


def tiles(captioned_pictures: list[tuple], now: Progress) -> gr.Gallery:
    """Up to four new pictures are shown large."""
    return gr.Gallery(captioned_pictures, columns=2 if len(now.images) <= 4 else 4)


def bar(step: int, total: int) -> str:
    return f'<progress max="{total}" value="{step}"></progress><p>code {step} of {total}</p>'


def counted(count: int, seconds: float) -> str:
    return f"<p>{count} picture{'s' if count > 1 else ''} in {seconds:.1f} s</p>"


def enlarge(picture: Image.Image) -> Image.Image:
    """A small picture with its pixels as squares, large enough to draw on; a large one as it is."""
    factor = max(EDITOR_SIDE // max(picture.size), 1)
    return picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def present(value: Any, remedy: str) -> Any:
    """The value. Raises ValueError with the remedy when there is none."""
    if value is None:
        raise ValueError(remedy)
    return value
