"""Cutouts: square RGBA pictures of one thing, cropped to what is visible, stored as WebP."""

import io

import numpy as np
import resvg_py
from PIL import Image

from dvae import read_picture

MARGIN = 0.04  # of the side, kept free on each side of the longer axis
RENDERED = 256  # pixels: drawings are rendered at this size, cropped and reduced


def render(drawing: bytes) -> Image.Image:
    """SVG, PNG or WebP bytes -> RGBA picture."""
    if b"<svg" in drawing:
        text = drawing.decode(errors="replace")
        drawing = resvg_py.svg_to_bytes(svg_string=text, width=RENDERED, dpi=96, skip_system_fonts=True)
    return read_picture(drawing).convert("RGBA")


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Crop an RGBA picture to what is visible and centre it in a transparent square, its aspect kept."""
    box = picture.getchannel("A").point([255 * (alpha > 8) for alpha in range(256)]).getbbox()
    if box is None:
        raise ValueError("an empty drawing cannot be fitted")
    picture = picture.crop(box).convert("RGBa")  # premultiplied, so that no hidden colour bleeds in
    scale = size * (1 - 2 * MARGIN) / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (size, size))
    square.paste(picture, ((size - width) // 2, (size - height) // 2))
    return square


def make_opaque(picture: Image.Image) -> Image.Image:
    """Turn the half-transparent tones of a two-tone icon into opaque tints; on white the picture stays the same."""
    rgba = np.asarray(picture).astype(np.float32) / 255  # (H, W, 4)
    alpha = rgba[..., 3:]
    opaque = np.clip(5 * alpha, 1e-6, 1)
    on_white = alpha * rgba[..., :3] + 1 - alpha
    colour = np.clip((on_white - (1 - opaque)) / opaque, 0, 1)
    return Image.fromarray(np.round(255 * np.concatenate([colour, opaque], -1)).astype(np.uint8))


def is_visible(picture: Image.Image) -> bool:
    """Whether at least 4 % of the picture differs from the white ground it will stand on."""
    rgba = np.asarray(picture).astype(np.float32)  # (H, W, 4)
    ink = (255 - rgba[..., :3].min(-1)) * rgba[..., 3] / 255
    return bool((ink > 24).mean() > 0.04)


def encode(picture: Image.Image) -> bytes:
    """RGBA picture -> WebP: lossless where that is small, else quality 90 with exact alpha."""
    encodings = []
    for options in ({"lossless": True, "quality": 75}, {"quality": 90, "alpha_quality": 100}):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", method=4, **options)
        encodings.append(buffer.getvalue())
    lossless, lossy = encodings
    return lossless if len(lossless) <= 1.2 * len(lossy) else lossy
