"""The tabs that start from a picture: one paints a part of it anew, one shows what its codes keep."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from .studio import Kept, Studio
from .widgets import (
    AT_ONCE,
    EDITOR_SIDE,
    ONE_BY_ONE,
    WAITING,
    bar,
    captioned,
    counted,
    enlarge,
    explained,
    growing,
    in_turn,
    pictures,
    present,
    prompt_box,
    read_as_everywhere,
    tiles,
    told,
    worded,
)

BRUSH = "#e8467c"


def inpaint_tab(studio: Studio) -> tuple[gr.ImageEditor, gr.Textbox]:
    """Returns the editor and its prompt: a painted picture can be sent there."""
    with gr.Row():
        with gr.Column(scale=1, min_width=420):
            editor = gr.ImageEditor(
                label="Draw over what is to be painted anew",
                type="pil",
                format="png",
                sources=("upload", "clipboard"),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=32, colors=[BRUSH], color_mode="fixed"),
                canvas_size=(EDITOR_SIDE, EDITOR_SIDE),
                height=EDITOR_SIDE + 80,
                elem_id="editor",
                elem_classes="picture",
            )
            read_as_everywhere(editor)
            gr.Button(visible="hidden", elem_id="undecodable").click(refuse, **AT_ONCE)
        with gr.Column(scale=1, min_width=320):
            prompt = prompt_box("What the whole picture shows", elem_id="whole")
            with gr.Row():
                seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=2**53 - 1)
                number = gr.Slider(1, 4, value=2, step=1, label="Pictures")
                best_of = gr.Slider(1, 16, value=4, step=1, label="Best of", elem_id="best-of")
            gr.Markdown(
                "Codes come row by row: new ones see the prompt and what lies above and to the left. *Best of* paints "
                "each picture several times and keeps the one that goes best with what lies below, too."
            )
            with gr.Row():
                button = gr.Button("Paint this part anew", variant="primary", elem_id="inpaint-button")
                stop = gr.Button("Stop", min_width=80, elem_id="inpaint-stop")
            state = told("inpaint-state")
            gallery = pictures("Painted anew", elem_id="inpainted", height=290)
    kept = gr.State([])

    @explained
    def run(drawn: dict[str, Any] | None, text: str, first: float, count: float, candidates: float) -> Iterator[tuple]:
        picture, mask = split_drawing(drawn)
        worded(text)
        first = int(present(first, "there is no seed; type one, such as 0"))
        options = {"seed": first, "num_images_per_prompt": int(count), "best_of": int(candidates)}
        for now in studio.inpaint(text, picture, mask, **options):
            if now.kept:
                yield tiles(captioned(now.kept), now), counted(len(now.kept), now.seconds), now.kept
            else:
                yield tiles(growing(now, text), now), bar(now.step, now.total), gr.skip()

    def halt(old: list[Kept]) -> tuple:
        return captioned(old), "<p>stopped</p>", False

    painting, goes_on = in_turn(
        [button.click, prompt.submit, seed.submit],
        run,
        [editor, prompt, seed, number, best_of],
        [gallery, state, kept],
        lambda: studio.is_busy,
    )
    stop.click(halt, kept, [gallery, state, goes_on], cancels=[painting], api_visibility="private")
    return editor, prompt


def refuse() -> None:
    """What the browser could not put into the editor never comes here."""
    raise gr.Error("your browser cannot read this file as a picture; pass a PNG or a JPEG", print_exception=False)


def reconstruct_tab(studio: Studio) -> None:
    with gr.Row():
        upload = gr.Image(
            label="A picture of yours",
            type="pil",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=360,
            elem_id="upload",
        )
        read_as_everywhere(upload)
        fitted = _result("As the model sees it", elem_id="fitted")
        picture = _result("From its codes", elem_id="rebuilt")
    state = told("reconstructed")
    codes = gr.Textbox(label="Its codes, row by row", lines=8, buttons=["copy"], interactive=False, elem_id="codes")

    @explained
    def run(image: Image.Image | None) -> tuple:
        if image is None:
            return None, None, "", ""
        made = studio.reconstruct(image)
        words = f"<p>{made.codes.size} codes of {studio.pipeline.dvae.config.codebook_size:,}, {made.psnr:.1f} dB</p>"
        return enlarge(made.original), enlarge(made.picture), words, written(made.codes)

    begun = upload.change(lambda: WAITING if studio.is_busy else "", None, state, **AT_ONCE)
    made = begun.then(run, upload, [fitted, picture, state, codes], **ONE_BY_ONE)
    made.failure(lambda: "", None, state, **AT_ONCE)


def _result(label: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=label,
        format="png",
        buttons=["download", "fullscreen"],
        interactive=False,
        elem_id=elem_id,
        elem_classes="picture",
    )


def split_drawing(drawn: dict[str, Any] | None) -> tuple[Image.Image, Image.Image]:
    """What the editor holds -> the picture below, and the mask: white where something was drawn over it.

    Raises ValueError when there is no picture, or nothing drawn.
    """
    drawn = drawn or {}
    background = present(drawn.get("background"), "there is no picture yet; upload one, or send a painted one")
    mask = np.zeros((background.height, background.width), dtype=bool)
    for layer in drawn["layers"]:
        mask |= np.asarray(layer.convert("RGBA"))[..., 3] > 0
    if not mask.any():
        raise ValueError("nothing is drawn over the picture; draw over the part that is to be painted anew")
    return background.convert("RGBA"), Image.fromarray(mask)


def written(codes: np.ndarray) -> str:
    """Codes (h, w), aligned in columns."""
    width = len(str(codes.max()))
    return "\n".join(" ".join(f"{code:{width}d}" for code in row) for row in codes.tolist())
