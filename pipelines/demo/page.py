"""The page: three tabs over a `Studio`. Nothing on it comes from another host."""

import gradio as gr
from PIL import Image

from .paint_tab import paint_tab
from .picture_tabs import inpaint_tab, reconstruct_tab
from .studio import Kept, Studio
from .widgets import enlarge, explained, present


def build_page(studio: Studio) -> gr.Blocks:
    config = studio.pipeline.dvae.config
    with gr.Blocks(title="armchair", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# armchair\nPictures of {config.image_size}×{config.image_size} pixels, painted as "
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
            if picture is not None and not picture.is_there:
                raise ValueError("this picture is more than an hour old and gone; paint it again by its seed")
            return gr.Tabs(selected="inpaint")

        def fill_editor(picture: Kept) -> tuple[Image.Image, str]:
            return enlarge(Image.open(picture.path)), picture.prompt

        # one after the other: a hidden editor forgets its picture
        opened = to_editor.click(open_editor, chosen, tabs, api_visibility="private")
        opened.success(fill_editor, chosen, [editor, prompt], api_visibility="private")
    return page
