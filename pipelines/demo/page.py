"""The page: three tabs over a `Studio`. Nothing on it comes from another host."""

from typing import Any

import gradio as gr
from gradio.themes import Default
from PIL import Image

from .paint_tab import paint_tab
from .picture_tabs import inpaint_tab, reconstruct_tab
from .studio import Kept, Studio
from .widgets import enlarge, explained, present

CSS = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important; }
.pictures img, .picture img { image-rendering: pixelated; }
.pictures .caption-label { font-size: var(--text-xs); padding: 1px 6px; opacity: .85; }
.pictures .preview { background: var(--background-fill-primary); }
.seed-row { align-items: end; }
#dice { height: 42px; margin-bottom: 11px; }
progress { appearance: none; width: 100%; height: 6px; border: 0; }
progress::-webkit-progress-bar { background: var(--border-color-primary); border-radius: 3px; }
progress::-webkit-progress-value { background: var(--color-accent); border-radius: 3px; }
progress::-moz-progress-bar { background: var(--color-accent); border-radius: 3px; }
#codes textarea { font-family: var(--font-mono); white-space: pre; }
"""
FONT, FONT_MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # the system's: no fetching


def launch_options() -> dict[str, Any]:
    """How `build_page` looks, for its `launch`."""
    hues = {"primary_hue": "emerald", "secondary_hue": "emerald", "neutral_hue": "stone"}
    theme = Default(**hues, font=FONT, font_mono=FONT_MONO)
    return {"theme": theme, "css": CSS, "footer_links": [], "run_history": False, "enable_monitoring": False}


def build_page(studio: Studio) -> gr.Blocks:
    config = studio.pipeline.dvae.config
    with gr.Blocks(title="armchair", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"## armchair\nPictures of {config.image_size}×{config.image_size} pixels, painted as "
            f"{config.grid_size}×{config.grid_size} codes, one after the other."
        )
        with gr.Tabs() as tabs:
            with gr.Tab("Paint", id="paint"):
                chosen, to_editor = paint_tab(studio)
            with gr.Tab("Paint a part anew", id="inpaint"):
                editor, prompt = inpaint_tab(studio)
            with gr.Tab("Reconstruct", id="reconstruct"):
                reconstruct_tab(studio)

        @explained
        def open_editor(picture: Kept | None) -> gr.Tabs:
            present(picture, "no picture is chosen; paint one first")
            return gr.Tabs(selected="inpaint")

        def fill_editor(picture: Kept) -> tuple[Image.Image, str]:
            return enlarge(Image.open(picture.path)), picture.prompt

        # one after the other: a hidden editor forgets its picture
        opened = to_editor.click(open_editor, chosen, tabs, api_visibility="private")
        opened.success(fill_editor, chosen, [editor, prompt], api_visibility="private")
    return page
