"""A thing in another colour: where one hue rules it, or none does, that hue becomes the asked one; all else stays."""

from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
BINS = 36  # of hue
NEAR, FAR = 40 / 360, 65 / 360  # a hue so near moves with the ruling one; one so far stays
APART = 25 / 360  # hues nearer than that are one colour to the eye
COLOURED = 0.15  # chroma from which on a pixel has a hue
GREY = 0.25  # saturation below which a colour of the palette has no hue


class Rule(NamedTuple):
    """hue: in turns; None where all is grey. saturation, value: medians of what has it, in [0, 1]."""

    hue: float | None
    saturation: float
    value: float


def rule_of(rgba: np.ndarray) -> Rule | None:
    """What rules a cut-out, uint8 (H, W, 4): one hue, or none at all; None where several do, or next to black."""
    hsv = to_hsv(rgba)[rgba[..., 3] > 128]  # (N, 3)
    if len(hsv) == 0:
        return None
    chroma = hsv[:, 1] * hsv[:, 2]
    share = (chroma > COLOURED).mean()
    if share < 0.1:
        rule = Rule(None, 0.0, float(np.median(hsv[:, 2])))
        return rule if rule.value > 0.35 else None
    counts = np.bincount((hsv[:, 0] * BINS).astype(int) % BINS, chroma, BINS)
    windows = sum((np.roll(counts, shift) for shift in range(-3, 4)), start=np.zeros(BINS))
    peak = (int(windows.argmax()) + 0.5) / BINS
    near = np.abs(turn(hsv[:, 0] - peak)) < 3.5 / BINS
    if share < 0.3 or windows.max() < 0.75 * counts.sum():
        return None
    own = near & (chroma > COLOURED)
    hue = (peak + np.average(turn(hsv[own, 0] - peak), weights=chroma[own])) % 1
    return Rule(float(hue), float(np.median(hsv[own, 1])), float(np.median(hsv[own, 2])))


def may_become(rule: Rule, colour: Colour) -> bool:
    """Whether the colour is another than the one that rules."""
    hue, saturation, value = colour_hsv(colour)
    if rule.hue is None or saturation < GREY:
        return (rule.hue is None) != (saturation < GREY) and (value > 0.3 or rule.value > 0.5)
    if abs(turn(rule.hue - hue)) >= APART:
        return True
    return abs(rule.value - value) > 0.2 or abs(rule.saturation - saturation) > 0.3


def recolour(rgba: np.ndarray, rule: Rule, colour: Colour) -> np.ndarray:
    """A cut-out, uint8 (H, W, 4), what `rule` says of it in `colour`: shades, other hues and alpha stay."""
    hsv, (hue, saturation, value) = to_hsv(rgba), colour_hsv(colour)
    chroma = hsv[..., 1] * hsv[..., 2]
    if rule.hue is None:
        weight = np.clip((2 * COLOURED - chroma) / COLOURED, 0, 1)
        moved_hue, moved_saturation = np.full_like(chroma, hue), np.full_like(chroma, saturation)
    else:
        distance = np.abs(turn(hsv[..., 0] - rule.hue))
        weight = np.clip((FAR - distance) / (FAR - NEAR), 0, 1) * np.clip(2 * chroma / COLOURED, 0, 1)
        moved_hue = hue + 0.5 * turn(hsv[..., 0] - rule.hue)
        moved_saturation = hsv[..., 1] * saturation / max(rule.saturation, 1e-3)
    moved_value = hsv[..., 2] * value / max(rule.value, 1e-3)
    moved = to_rgb(np.stack([moved_hue % 1, moved_saturation.clip(0, 1), moved_value.clip(0, 1)], -1))
    mixed = weight[..., None] * moved + (1 - weight[..., None]) * rgba[..., :3]
    return np.concatenate([np.round(mixed).astype(np.uint8), rgba[..., 3:]], -1)


def turn(difference: np.ndarray | float) -> np.ndarray | float:
    """A difference of hues, in turns, the short way round: in [−½, ½)."""
    return (difference + 0.5) % 1 - 0.5


def to_hsv(rgb: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3 or more) -> float (H, W, 3) in [0, 1]."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb[..., :3])).convert("HSV")) / np.float32(255)


def to_rgb(hsv: np.ndarray) -> np.ndarray:
    """float (H, W, 3) in [0, 1] -> uint8 (H, W, 3)."""
    return np.asarray(Image.fromarray(np.round(255 * hsv).astype(np.uint8), "HSV").convert("RGB"))


@cache
def colour_hsv(colour: Colour) -> tuple[float, float, float]:
    hue, saturation, value = to_hsv(np.array([[colour]], np.uint8))[0, 0].tolist()
    return hue, saturation, value
