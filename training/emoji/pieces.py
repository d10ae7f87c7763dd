"""The pieces that scenes are laid out of: a thing whole or at half its size, as it is, in another colour, or as an
armchair.
"""

from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image

from .armchair import WOODS, ArmchairShape, draw_armchair
from .recolouring import Colour

ARMCHAIR_SIDE = 2  # of the canvas: drawn larger, then reduced


class Piece(NamedTuple):
    """row: of the set. look: "plain", a colour's name, "shape" or "colours". half: at half its size."""

    row: int
    look: str = "plain"
    half: bool = False


def reduce(picture: Image.Image, side: int) -> Image.Image:
    """Resize a square RGBA picture with premultiplied alpha; a picture of this size is returned as it is."""
    if picture.size == (side, side):
        return picture
    return picture.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")


def armchair(cutout: np.ndarray, rng: Random, *, is_back: bool) -> np.ndarray:
    """
    An armchair in a cut-out's colours, RGBA uint8 (S, S, 4) as the cut-out; its back is the thing itself, or one of
    its own. A thing's armchair is always the same, by its own `rng`.
    """
    thing = Image.fromarray(cutout)
    upholstery, cushion, *_ = palette(thing)
    shape, wood = ArmchairShape.sample(rng), rng.choice(WOODS)
    side = len(cutout)
    drawn = draw_armchair(
        shape,
        upholstery=upholstery,
        cushion=cushion,
        wood=wood,
        back=thing if is_back else None,
        canvas=ARMCHAIR_SIDE * side,
    )
    return np.asarray(reduce(drawn, side))


def palette(picture: Image.Image, count: int = 4) -> list[Colour]:
    """The main colours of what is opaque, most frequent first; at least two."""
    rgba = np.asarray(picture)
    opaque = rgba[rgba[..., 3] > 200][None, :, :3]  # (1, N, 3)
    if opaque.size == 0:
        raise ValueError("the thing whose colours are wanted has no opaque pixel")
    quantized = Image.fromarray(np.ascontiguousarray(opaque)).quantize(count)
    flat, counts = quantized.getpalette(), enumerate(quantized.histogram())
    assert flat is not None  # it is quantised
    used = [index for _, index in sorted(((count, index) for index, count in counts if count), reverse=True)]
    colours: list[Colour] = [(flat[3 * index], flat[3 * index + 1], flat[3 * index + 2]) for index in used]
    return colours if len(colours) > 1 else colours * 2
