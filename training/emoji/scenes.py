"""Scenes composed of cutouts, so that a prompt may combine what no single picture shows together.

    beside          above           ground          large / small   shape               colours             tint
    [ A   B ]       [  A  ]         [#######]       A beyond the    an armchair whose   A in the palette    A in shades
                    [  B  ]         [## A ##]       frame / a       back is B           of B, dark to dark  of a colour
                                                    small A

Some pairs of names are held out: `is_heldout_pair` never lets them meet in training, and the split `heldout-pairs` of
an evaluation composes them alone.
"""

import hashlib
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from .armchair import WOODS, ArmchairShape, Colour, draw_armchair
from .captions import plain_name

LAYOUT = 2  # of what is drawn: another number for another drawing, so that no cached codes are of an older one
HELDOUT_SHARE = 0.1  # of all pairs of names
KINDS = {  # weights
    "beside": 30, "above": 20, "ground": 20, "large": 4, "small": 10, "shape": 10, "colours": 4, "tint": 10
}  # fmt: skip
PAIRS = ("beside", "above", "shape", "colours")
COLOURED = ("ground", "tint")
LONGEST_NAME = 3  # words, of a thing in a pair
TRIES, TRIES_FOR_STYLE = 200, 10
GROUNDS: dict[str, Colour] = {
    "red": (226, 60, 56),
    "orange": (250, 150, 60),
    "yellow": (252, 216, 84),
    "green": (104, 186, 100),
    "blue": (76, 138, 232),
    "purple": (160, 108, 208),
    "pink": (250, 170, 200),
    "brown": (150, 104, 72),
    "grey": (160, 164, 170),
    "black": (28, 28, 32),
}
PEOPLE = ("man", "woman", "person", "men", "women", "people")  # make no good armchair
ARMCHAIR = {"name": "armchair", "keywords": ["chair", "furniture", "seat"], "style": "drawing"}


def is_heldout_pair(name_a: str, name_b: str) -> bool:
    """Whether two things never meet in training: by a hash of the sorted pair, less a colour at a name's front."""
    pair = "|".join(sorted((plain_name(name_a), plain_name(name_b))))
    return int.from_bytes(hashlib.sha256(pair.encode()).digest()[:4], "big") / 2**32 < HELDOUT_SHARE


def sample_scene(rows: list[dict[str, Any]], rng: Random, heldout: bool = False) -> dict[str, Any]:
    """
    Choose what a scene shows.

    `rows` have `name`, `keywords` and `style`. Returns parts: `kind` (of KINDS), `things` in the order the caption
    names them, `rows`, the places of the things whose cutouts `draw_scene` needs, and `colour` of a coloured ground.
    With `heldout` every scene is a held-out pair; without it none is. Raises a ValueError when no such pair is found.
    """
    kinds = PAIRS if heldout else tuple(KINDS)
    (kind,) = rng.choices(kinds, [KINDS[kind] for kind in kinds])
    if kind == "shape":
        place = _sample_partner(rows, ARMCHAIR, rng, heldout)
        return {"kind": kind, "things": [ARMCHAIR, rows[place]], "rows": [place]}
    if kind in PAIRS:
        first, second = _sample_pair(rows, rng, heldout)
        return {"kind": kind, "things": [rows[first], rows[second]], "rows": [first, second]}
    first = rng.randrange(len(rows))
    parts = {"kind": kind, "things": [rows[first]], "rows": [first]}
    if kind in COLOURED:
        named = rows[first]["name"].split()
        parts["colour"] = rng.choice([colour for colour in GROUNDS if colour not in named])
    return parts


def _sample_pair(rows: list[dict[str, Any]], rng: Random, heldout: bool) -> tuple[int, int]:
    for _ in range(TRIES):
        first = rng.randrange(len(rows))
        if _is_short(rows[first]):
            second = _find_partner(rows, rows[first], rng, heldout)
            if second is not None:
                return first, second
    raise ValueError(f"no two things to pair among {len(rows)} rows with heldout={heldout}: give more, of short names")


def _sample_partner(rows: list[dict[str, Any]], thing: dict[str, Any], rng: Random, heldout: bool) -> int:
    place = _find_partner(rows, thing, rng, heldout, tries=10 * TRIES)
    if place is None:
        raise ValueError(f"nothing to pair with {thing['name']!r} among {len(rows)} rows with heldout={heldout}")
    return place


def _find_partner(
    rows: list[dict[str, Any]], thing: dict[str, Any], rng: Random, heldout: bool, tries: int = TRIES
) -> int | None:
    """The place of a second thing, of the first one's style if one is found soon; None when none is found."""
    found = None
    for attempt in range(tries):
        if found is not None and attempt >= TRIES_FOR_STYLE:
            break
        place = rng.randrange(len(rows))
        if _may_meet(thing, rows[place], heldout):
            found = place
            if rows[place]["style"] == thing["style"]:
                break
    return found


def _may_meet(thing: dict[str, Any], other: dict[str, Any], heldout: bool) -> bool:
    if not _is_short(other) or plain_name(other["name"]) == plain_name(thing["name"]):
        return False
    if thing is ARMCHAIR and other["name"].startswith(PEOPLE):
        return False
    return is_heldout_pair(thing["name"], other["name"]) == heldout


def _is_short(thing: dict[str, Any]) -> bool:
    return len(thing["name"].split()) <= LONGEST_NAME


def draw_scene(parts: dict[str, Any], cutouts: list[np.ndarray], rng: Random, size: int) -> np.ndarray:
    """
    Draw the scene that `parts` say: RGB uint8 (size, size, 3).

    `cutouts` are RGBA uint8 (H, W, 4) squares of any size, those of `parts["rows"]`. "single" is the canonical
    picture: the cutout on white, without any choice.
    """
    pictures = [Image.fromarray(cutout) for cutout in cutouts]
    ground = GROUNDS[parts["colour"]] if parts["kind"] == "ground" else (255, 255, 255)
    canvas = Image.new("RGBA", (size, size), (*ground, 255))
    if parts["kind"] == "tint":
        pictures = [recolour(pictures[0], shades_of(GROUNDS[parts["colour"]]))]
    DRAWERS[parts["kind"]](canvas, pictures, rng)
    return np.asarray(canvas.convert("RGB"))


def place(canvas: Image.Image, picture: Image.Image, *, x: float, y: float, scale: float) -> None:
    """Put a cutout on the canvas, its centre at (x, y) and its side `scale`, in fractions of the canvas."""
    side = max(1, round(scale * canvas.width))
    left, top = round(x * canvas.width - side / 2), round(y * canvas.width - side / 2)
    resized = reduce(picture, side)
    corner = max(0, -left), max(0, -top)  # what lies beyond the frame is cut
    resized = resized.crop((*corner, min(side, canvas.width - left), min(side, canvas.width - top)))
    canvas.alpha_composite(resized, (max(0, left), max(0, top)))


def shift(rng: Random) -> float:
    """
    By an eighth of the canvas to a side, or not at all. All that `place` is told are eighths too: whole codes of a
    grid of 8 and of its multiples, so that a thing of half the size keeps its codes wherever it stands.
    """
    return rng.choice((-1, 0, 1)) / 8


def reduce(picture: Image.Image, side: int) -> Image.Image:
    """Resize a square RGBA picture with premultiplied alpha; a picture of this size is returned as it is."""
    if picture.size == (side, side):
        return picture
    return picture.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")


def draw_single(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    place(canvas, pictures[0], x=0.5, y=0.5, scale=1)


def draw_beside(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    height = 0.5 + shift(rng)
    for picture, x in zip(pictures, (0.25, 0.75), strict=True):
        place(canvas, picture, x=x, y=height, scale=0.5)


def draw_above(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    middle = 0.5 + shift(rng)
    for picture, y in zip(pictures, (0.25, 0.75), strict=True):
        place(canvas, picture, x=middle, y=y, scale=0.5)


def draw_ground(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    place(canvas, pictures[0], x=0.5, y=0.5, scale=0.75)


def draw_large(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    place(canvas, pictures[0], x=0.5, y=0.5, scale=1.25)


def draw_small(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    place(canvas, pictures[0], x=0.5 + shift(rng), y=0.5 + shift(rng), scale=0.5)


def draw_shape(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    """An armchair whose back is the thing and whose upholstery has the thing's colours."""
    upholstery, cushion, *_ = palette(pictures[0])
    shape = ArmchairShape.sample(rng)
    armchair = draw_armchair(
        shape,
        upholstery=upholstery,
        cushion=cushion,
        wood=rng.choice(WOODS),
        back=pictures[0],
        canvas=2 * canvas.width,
    )
    place(canvas, armchair, x=0.5, y=0.5, scale=1)


def draw_colours(canvas: Image.Image, pictures: list[Image.Image], rng: Random) -> None:
    """The first thing, its luminance mapped onto the second one's colours, from dark to light."""
    place(canvas, recolour(pictures[0], colour_ramp(pictures[1])), x=0.5, y=0.5, scale=1)


def recolour(picture: Image.Image, ramp: np.ndarray) -> Image.Image:
    """An RGBA picture, the luminance of what is opaque mapped onto a ramp from dark to light, uint8 (L, 3)."""
    thing = np.asarray(picture)
    shades = luminance(thing[..., :3])  # (H, W)
    dark, light = np.percentile(shades[thing[..., 3] > 128], (2, 98))
    steps = (shades - dark) / max(light - dark, 1) * (len(ramp) - 1)
    mapped = ramp[np.clip(np.round(steps), 0, len(ramp) - 1).astype(int)]  # (H, W, 3)
    return Image.fromarray(np.concatenate([mapped, thing[..., 3:]], -1))


def colour_ramp(picture: Image.Image, steps: int = 12, length: int = 64) -> np.ndarray:
    """A picture's opaque colours from dark to light, each of `steps` the mean of as many pixels: uint8 (length, 3)."""
    rgba = np.asarray(picture)
    colours = rgba[rgba[..., 3] > 128][:, :3]  # (N, 3)
    if len(colours) < steps:
        raise ValueError(f"{len(colours)} opaque pixels are too few for a palette of {steps} steps")
    ordered = colours[np.argsort(luminance(colours), kind="stable")]
    means = np.stack([part.mean(0) for part in np.array_split(ordered, steps)])  # (steps, 3)
    at = np.linspace(0, steps - 1, length)
    return np.stack([np.interp(at, np.arange(steps), means[:, c]) for c in range(3)], -1).astype(np.uint8)


def shades_of(colour: Colour, length: int = 64) -> np.ndarray:
    """From a third of a colour's light through the colour to half way to white: uint8 (length, 3)."""
    stops = np.array([np.array(colour) / 3, colour, (np.array(colour) + 255) / 2])  # (3, 3)
    at = np.linspace(0, 1, length)
    return np.stack([np.interp(at, (0, 0.7, 1), stops[:, c]) for c in range(3)], -1).astype(np.uint8)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Rec. 601 luma of (..., 3) colours, in the colours' unit."""
    return rgb @ np.array([0.299, 0.587, 0.114])


def palette(picture: Image.Image, count: int = 4) -> list[Colour]:
    """The main colours of what is opaque, most frequent first; at least two."""
    rgba = np.asarray(picture)
    opaque = rgba[rgba[..., 3] > 200][None, :, :3]  # (1, N, 3)
    if opaque.size == 0:
        raise ValueError("the thing whose colours are wanted has no opaque pixel")
    quantized = Image.fromarray(np.ascontiguousarray(opaque)).quantize(count)
    flat = quantized.getpalette()
    colours = [tuple(flat[3 * index : 3 * index + 3]) for _, index in sorted(quantized.getcolors(), reverse=True)]
    return colours if len(colours) > 1 else colours * 2


DRAWERS = {
    "single": draw_single,
    "beside": draw_beside,
    "above": draw_above,
    "ground": draw_ground,
    "large": draw_large,
    "small": draw_small,
    "shape": draw_shape,
    "colours": draw_colours,
    "tint": draw_single,
}
