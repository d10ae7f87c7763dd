"""How the page looks, and what it says to those who hear it: styles, a theme, and a script for what gradio leaves out.

Text has a contrast of 4.5 or more to what lies below it, in the light and in the dark.
"""

from typing import Any

from gradio.themes import Default

CSS = """
.gradio-container { width: 100% !important; max-width: 1180px !important; margin: 0 auto !important; }
#studio { display: grid; gap: var(--layout-gap); align-items: start;
  grid-template: "asked painted" auto "details painted" 1fr / minmax(0, 1fr) minmax(0, 1fr); }
#asked { grid-area: asked; } #painted { grid-area: painted; } #details { grid-area: details; }
#gallery { height: min(558px, 100vw - 58px) !important; }
@media (max-width: 768px) { #studio { grid-template: "asked" "painted" "details" / minmax(0, 1fr); } }
.pictures img, .picture img { image-rendering: pixelated; }
.pictures .caption-label { font-size: var(--text-xs); padding: 1px 6px; }
.pictures .preview { background: var(--background-fill-primary); }
.seed-row { align-items: end; }
#dice { height: 42px; margin-bottom: 11px; }
progress { appearance: none; width: 100%; height: 6px; border: 0; }
progress::-webkit-progress-bar { background: var(--border-color-primary); border-radius: 3px; }
progress::-webkit-progress-value { background: var(--color-accent); border-radius: 3px; }
progress::-moz-progress-bar { background: var(--color-accent); border-radius: 3px; }
#codes textarea { font-family: var(--font-mono); white-space: pre; }
.dark { --color-accent: var(--primary-500); }
#editor .empty, #editor .empty div { color: var(--body-text-color-subdued); }
"""
# What has a label on the page and no name for a screen reader gets its label for a name: of a text box with a button
# to copy it, the label is the button's. And the editor drops what its browser cannot decode without a word.
SCRIPT = """
() => {
  const name = () => document.querySelectorAll('.block').forEach(block => {
    const label = block.querySelector('[data-testid=block-label], [data-testid=block-info]')?.innerText.trim();
    if (!label) return;
    block.querySelectorAll('textarea:not([aria-label])').forEach(box => box.setAttribute('aria-label', label));
    block.querySelectorAll('img[alt=""]').forEach(picture => picture.alt = label);
  });
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
  name();
  addEventListener('unhandledrejection', event => {
    if (event.reason?.name !== 'InvalidStateError') return;
    event.preventDefault();
    document.querySelector('#undecodable').click();
  });
}
"""
FONTS: dict[str, Any] = {
    "font": ("system-ui", "sans-serif"),
    "font_mono": ("ui-monospace", "monospace"),
}  # the system's
BUTTON = {"button_primary_background_fill": "*primary_700", "button_primary_background_fill_hover": "*primary_800"}


def launch_options() -> dict[str, Any]:
    """For the `launch` of the page."""
    theme = Default(primary_hue="emerald", secondary_hue="emerald", neutral_hue="stone", **FONTS).set(
        **BUTTON,
        **{f"{name}_dark": color for name, color in BUTTON.items()},
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
    return {
        "theme": theme,
        "css": CSS,
        "js": SCRIPT,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
    }
