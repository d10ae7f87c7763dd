"""The tab that paints: a prompt, a seed and sliders; pictures that grow, then a gallery of what was painted."""

import secrets
from collections.abc import Iterator
from typing import Any

import gradio as gr

from .studio import Kept, Studio
from .widgets import (
    MAX_PROMPT,
    bar,
    captioned,
    counted,
    explained,
    growing,
    in_turn,
    pictures,
    present,
    prompt_box,
    tiles,
    told,
    worded,
)

EXAMPLES = [
    "an armchair shaped like an avocado",
    "a cat face beside a red apple",
    "an avocado on a blue background",
    "a sailboat above a fire engine",
    "rocket, 3d",
]
KEPT = 24  # pictures that the gallery remembers
LAST_SEED = 2**53 - 1  # the largest whole number that a browser holds exactly


def paint_tab(studio: Studio) -> tuple[gr.State, gr.Button]:
    """Returns the chosen picture, `Kept` or None, and the button that takes it to the editor."""
    kept, chosen, unfinished = gr.State([]), gr.State(None), gr.State(0)  # unfinished: tiles that are not whole yet
    with gr.Row(elem_id="studio"):  # three parts, which looks.py places by the width of the screen
        with gr.Column(elem_id="asked"):
            words = prompt_box("Prompt", value=EXAMPLES[0], elem_id="prompt")
            with gr.Row():
                paint = gr.Button("Paint", variant="primary", elem_id="paint")
                stop = gr.Button("Stop", min_width=80, elem_id="stop")
        with gr.Column(elem_id="painted"):
            gallery = pictures("Pictures, the newest first", elem_id="gallery", height=558)
            state = told("state")
            with gr.Row():
                prompt = gr.Textbox(
                    label="Its prompt", buttons=["copy"], interactive=False, scale=3, elem_id="its-prompt"
                )
                seed = gr.Textbox(
                    label="Its seed", buttons=["copy"], interactive=False, min_width=120, elem_id="its-seed"
                )
            with gr.Row():
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
                to_editor = gr.Button("Paint a part anew", elem_id="to-editor")
        with gr.Column(elem_id="details"):
            gr.Examples(EXAMPLES, words, label="Prompts to try")
            asked = {"prompt": words, **_other_words_and_seed()}
            sliders = _sliders(studio)
    names, shown = [*asked, *sliders], [prompt, seed, download, chosen]

    @explained
    def run(old: list[Kept], *values: Any) -> Iterator[tuple]:
        options = dict(zip(names, values, strict=True))
        worded(options["prompt"])
        old = [picture for picture in old if picture.is_there]
        for now in studio.paint(**asked_for(options, {name: slider.value for name, slider in sliders.items()})):
            if now.kept:
                kept = [*now.kept, *old][:KEPT]
                yield tiles(captioned(kept), now), counted(len(now.kept), now.seconds), kept, 0, *_shown(now.kept[0])
            else:
                together = [*growing(now, options["prompt"]), *captioned(old)]
                yield tiles(together, now), bar(now.step, now.total), old, len(now.images), *[gr.skip()] * len(shown)

    def choose(old: list[Kept], unfinished: int, event: gr.SelectData) -> tuple:
        place = event.index - unfinished
        return _shown(old[place]) if 0 <= place < len(old) else tuple([gr.skip()] * len(shown))

    def halt(old: list[Kept]) -> tuple:
        return captioned([picture for picture in old if picture.is_there]), "<p>stopped</p>", 0, False

    enters = [asked[name].submit for name in ("prompt", "negative_prompt", "seed")]
    painting, goes_on = in_turn(
        [paint.click, *enters],
        run,
        [kept, *asked.values(), *sliders.values()],
        [gallery, state, kept, unfinished, *shown],
        lambda: studio.is_busy,
    )
    stop.click(halt, kept, [gallery, state, unfinished, goes_on], cancels=[painting], api_visibility="private")
    gallery.select(choose, [kept, unfinished], shown, api_visibility="private")
    return chosen, to_editor


def asked_for(options: dict[str, Any], untouched: dict[str, float]) -> dict[str, Any]:
    """What the page holds -> options of the call. A slider where it started leaves the model's own setting, which may
    be a schedule. Raises ValueError without a seed.
    """
    present(options["seed"], "there is no seed; type a seed, or press Random")
    whole = {name: int(options[name]) for name in ("seed", "num_images_per_prompt", "top_k")}
    return {**options, **whole, **{name: None for name, start in untouched.items() if options[name] == start}}


def _other_words_and_seed() -> dict[str, Any]:
    negative = gr.Textbox(
        label="Negative prompt",
        placeholder="what guidance steers away from",
        max_length=MAX_PROMPT,
        elem_id="negative",
    )
    with gr.Row(elem_classes="seed-row"):
        seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=LAST_SEED, elem_id="seed", scale=3)
        dice = gr.Button("Random", min_width=90, elem_id="dice", size="sm")
    number = gr.Slider(1, 16, value=4, step=1, label="Pictures", elem_id="number")
    dice.click(lambda: secrets.randbelow(2**32), None, seed, api_visibility="private")
    return {"negative_prompt": negative, "seed": seed, "num_images_per_prompt": number}


def _sliders(studio: Studio) -> dict[str, gr.Component]:
    """Names as in the pipeline's call; they start where the pipeline's own settings are, and reach that far."""
    own, codes = studio.pipeline.sampling, studio.pipeline.dvae.config.codebook_size
    temperature, scale, top_p = own.temperatures(1)[0], own.guidance_scale, own.top_p
    with gr.Accordion("How codes are drawn", open=False):
        return {
            "temperature": gr.Slider(0, max(2, temperature), temperature, step=0.05, label="Temperature"),
            "guidance_scale": gr.Slider(0, max(10, scale), scale, step=0.25, label="Guidance (1: none)"),
            "top_k": gr.Slider(0, codes, own.top_k, step=1, label="Top-k (0: all)"),
            "top_p": gr.Slider(min(0.01, top_p), 1, top_p, step=0.01, label="Top-p (1: all)"),
            "min_p": gr.Slider(0, 1, own.min_p, step=0.01, label="Min-p (0: all)"),
        }


def _shown(picture: Kept) -> tuple:
    """What stands under the gallery for a chosen picture."""
    return picture.prompt, str(picture.seed), gr.DownloadButton(value=picture.path, interactive=True), picture
