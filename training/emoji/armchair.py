"""Draw armchairs, plain or after another picture: data that no open collection of captioned drawings holds enough of.

An armchair here is a back, two arms, a base, a seat cushion and legs, each a shape filled with a shaded colour. Given
the cutout of another thing, the thing itself is the back, and its colours are the upholstery.
"""

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw

CANVAS = 512  # pixels: drawn at this size, reduced by the caller
Colour = tuple[int, int, int]
COLOURS: dict[str, Colour] = {
    "red": (214, 51, 47),
    "orange": (240, 130, 40),
    "yellow": (242, 192, 50),
    "green": (67, 154, 72),
    "blue": (52, 103, 205),
    "purple": (146, 84, 190),
    "pink": (238, 128, 170),
    "brown": (140, 88, 54),
    "grey": (128, 132, 140),
}
WOODS: list[Colour] = [(110, 70, 40), (70, 48, 36), (160, 110, 64)]
Box = tuple[float, float, float, float]  # left, top, right, bottom; fractions of the canvas


@dataclass(frozen=True)
class ArmchairShape:
    """The proportions of an armchair, as fractions of the canvas."""

    back: Box
    back_radius: float
    arm_width: float
    arm_top: float
    arm_radius: float
    seat_top: float
    floor: float
    leg: float
    flare: float
    buttons: int

    @classmethod
    def sample(cls, rng: Random) -> "ArmchairShape":
        left = rng.uniform(0.14, 0.20)
        arm_width = rng.uniform(0.15, 0.2)
        return cls(
            back=(left, rng.uniform(0.04, 0.12), 1 - left, 0.8),
            back_radius=rng.choice((0.08, 0.14, 0.2, 0.3)),
            arm_width=arm_width,
            arm_top=rng.uniform(0.42, 0.5),
            arm_radius=rng.uniform(0.4, 1.0) * arm_width / 2,
            seat_top=rng.uniform(0.58, 0.64),
            floor=0.95,
            leg=rng.uniform(0.05, 0.12),
            flare=rng.uniform(-0.02, 0.04),
            buttons=rng.choice((0, 0, 2, 3)),
        )


def draw_armchair(
    shape: ArmchairShape,
    *,
    upholstery: Colour,
    cushion: Colour,
    wood: Colour,
    back: Image.Image | None = None,
    canvas: int = CANVAS,
) -> Image.Image:
    """Draw an armchair, RGBA of canvas x canvas; `back` is the RGBA cutout that takes the place of its back."""
    picture = Image.new("RGBA", (canvas, canvas))
    draw_legs(picture, shape, wood)
    if back is None:
        fill(picture, rounded(canvas, shape.back, shape.back_radius), upholstery, light=1.05, dark=0.8)
        draw_buttons(picture, shape, upholstery)
    else:
        paste_back(picture, back)
    bottom = shape.floor - shape.leg
    fill(picture, rounded(canvas, (0.14, shape.seat_top + 0.08, 0.86, bottom), 0.03), upholstery, light=0.9, dark=0.7)
    inner = 0.06 + shape.arm_width - 0.02
    seat = (inner, shape.seat_top, 1 - inner, shape.seat_top + 0.13)
    fill(picture, rounded(canvas, seat, 0.05), cushion, light=1.15, dark=0.85)
    for arm in arm_boxes(shape, bottom):
        fill(picture, rounded(canvas, arm, shape.arm_radius), upholstery, light=1.2, dark=0.75)
    return picture


def tint(colour: Colour) -> Colour:
    """The paler colour of a cushion."""
    red, green, blue = (min(255, int(0.6 * channel + 100)) for channel in colour)
    return red, green, blue


def arm_boxes(shape: ArmchairShape, bottom: float) -> list[Box]:
    left = (0.06, shape.arm_top, 0.06 + shape.arm_width, bottom + 0.01)
    return [left, (1 - left[2], left[1], 1 - left[0], left[3])]


def rounded(canvas: int, box: Box, radius: float) -> Image.Image:
    """The mask of a rounded rectangle, in fractions of the canvas."""
    mask = Image.new("L", (canvas, canvas))
    ImageDraw.Draw(mask).rounded_rectangle([canvas * edge for edge in box], canvas * radius, fill=255)
    return mask


def fill(picture: Image.Image, mask: Image.Image, colour: Colour, *, light: float, dark: float) -> None:
    """Fill a mask with a colour that runs from `light` times itself at the mask's top to `dark` at its foot."""
    box = mask.getbbox()
    assert box is not None  # a mask is not empty
    _, top, _, bottom = box
    side, line = mask.width, max(1, mask.width // 128)
    rows = np.clip((np.arange(side) - top) / max(1, bottom - top), 0, 1)[:, None]  # (H, 1)
    column = np.clip(np.asarray(colour) * (light + (dark - light) * rows), 0, 255).astype(np.uint8)  # (H, 3)
    filled = Image.fromarray(np.repeat(column[:, None], side, axis=1))
    inner = mask.resize((side - 2 * line, side - 2 * line)).crop((-line, -line, side - line, side - line))
    picture.paste(filled, mask=mask)
    outline = ImageChops.subtract(mask, inner).point([value // 3 for value in range(256)])
    picture.paste(tuple(int(0.55 * channel) for channel in colour), mask=outline)


def draw_legs(picture: Image.Image, shape: ArmchairShape, wood: Colour) -> None:
    draw = ImageDraw.Draw(picture)
    top, bottom = shape.floor - shape.leg - 0.03, shape.floor
    for left in (0.16, 0.78):
        lean = shape.flare if left > 0.5 else -shape.flare
        corners = [(left, top), (left + 0.06, top), (left + 0.05 + lean, bottom), (left + 0.01 + lean, bottom)]
        draw.polygon([(picture.width * x, picture.width * y) for x, y in corners], fill=wood)


def draw_buttons(picture: Image.Image, shape: ArmchairShape, upholstery: Colour) -> None:
    draw = ImageDraw.Draw(picture)
    dark = tuple(int(0.55 * channel) for channel in upholstery)
    for row in range(2 if shape.buttons else 0):
        for index in range(shape.buttons):
            x = 0.5 + (index - (shape.buttons - 1) / 2) * 0.14
            y = shape.back[1] + 0.15 + 0.14 * row
            button = (x - 0.014, y - 0.014, x + 0.014, y + 0.014)
            draw.ellipse([picture.width * edge for edge in button], fill=dark)


def paste_back(picture: Image.Image, back: Image.Image) -> None:
    """Stand the cutout behind the seat, its visible part as wide and high as it goes with its aspect within reason."""
    cutout = back.crop(back.getchannel("A").getbbox())
    scale = min(0.84 / cutout.width, 0.82 / cutout.height) * picture.width
    width, height = round(cutout.width * scale), round(cutout.height * scale)
    width, height = max(width, int(0.62 * picture.width)), max(height, int(0.66 * picture.width))
    cutout = cutout.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (picture.width - width) // 2, max(int(0.02 * picture.width), int(0.84 * picture.width) - height)
    picture.alpha_composite(cutout, (left, top))
