"""Scenes judged thing by thing: what is painted for a prompt, the drawing it asks for, and that through the codes.

A layout says where each thing is to stand: it is cut from there, enlarged, and named by a scorer among all names of
the set. Of a ground, a colour or a number it is asked whether it is the one that the prompt says, by the pixels alone.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pictures.kinds import Captioned
from ..pictures.layouts import QUARTERS, Colour, LaidOut, Layout
from .feature_metrics import TextExtractor, similarities

SINGLE = "one thing"
LONGEST_NAME = 2  # words
APART = 0.12  # a pixel so far from the ground in a channel is no ground
NOTHING = 0.01  # of the pixels: a picture with no more than that is empty
FILLED = 0.4
DRAWS = 200  # for each scene that is wanted
WAYS = ("painted", "through the codes", "real")


class Asked(NamedTuple):
    """A scene, its prompt, and the drawing that it asks for, float (3, S, S) in [0, 1]."""

    layout: Layout
    prompt: str
    drawn: Tensor


@dataclass
class Scores:
    """
    Shares: of things whose name is among the first five, and first; of scenes where the ground, the colour or the
    number is the one that is asked for (None where the kind asks for none), where it is and most things are named
    among the first five too, and where there is nothing at all.
    """

    first_five: float
    first: float
    as_asked: float | None
    both: float | None
    empty: float


def ask(composer: LaidOut, kind: Captioned, rows: int, name: str, count: int) -> list[Asked]:
    """
    `count` scenes of a kind, of what is held out where the kind is of pairs, or rows alone; always the same. Things
    have short names, which their prompts say. Raises a ValueError where there are too few.
    """
    asked = []
    for draw in range(DRAWS * count):
        rng = random.Random(f"{name}-{draw}")
        if name == SINGLE:
            layout = composer.single(rng.randrange(rows))
            prompt = composer.name(layout.puts[0].piece)
        else:
            layout, parts = composer.lay(rng, held_out=True, kind=name)
            prompt = kind.caption(parts, rng)
        names = [composer.name(put.piece) for put in layout.puts]
        if all(len(one.split()) <= LONGEST_NAME and is_said(one, prompt) for one in names):
            drawn = torch.from_numpy(composer.draw_layout(layout).copy()).permute(2, 0, 1) / 255
            one = Asked(layout, prompt, drawn)
            if as_asked(composer, one, drawn) is not False:  # else it cannot be told of what is painted either
                asked.append(one)
        if len(asked) == count:
            return asked
    raise ValueError(f"{len(asked)} of {count} scenes of kind {name!r} found: ask for fewer, or give more things")


def is_said(name: str, prompt: str) -> bool:
    """Whether a prompt has a name, its last word in any number."""
    *before, last = name.split()
    return " ".join([*before, last[: max(len(last) - 2, 2)]]) in prompt


def judge_scenes(
    composer: LaidOut,
    kind: Captioned,
    rows: int,
    scorer: TextExtractor,
    paint: Callable[[list[str]], Tensor],
    reconstruct: Callable[[Tensor], Tensor],
    count: int,
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, Scores]]:
    """
    {kind of scene: {way: scores}}, of `count` scenes each; a kind that a small set has too few things for is left out,
    which is said. paint: prompts -> pictures (n, 3, S, S) in [0, 1]; reconstruct: pictures -> through the codes.
    """
    names = sorted({composer.name(row) for row in range(rows)})
    found = {}
    for name in (SINGLE, *composer.kinds):
        try:
            asked = ask(composer, kind, rows, name, count)
        except ValueError as error:
            say(f"{name} is left out: {error}")
            continue
        real = torch.stack([one.drawn for one in asked])
        pictures = (paint([one.prompt for one in asked]).to(real), reconstruct(real).to(real), real)
        found[name] = {
            way: judge(composer, asked, part, scorer, names) for way, part in zip(WAYS, pictures, strict=True)
        }
    return found


def judge(
    composer: LaidOut, asked: Sequence[Asked], pictures: Tensor, scorer: TextExtractor, names: list[str]
) -> Scores:
    """Pictures (n, 3, S, S) in [0, 1], one for each scene."""
    things, own = [], []
    for one, picture in zip(asked, pictures, strict=True):
        clean = torch.where(thing_mask(picture), picture, torch.ones_like(picture))
        for put in one.layout.puts:
            things.append(cut(clean, put.top, put.left, composer.quarters(put.piece)))
            own.append(names.index(composer.name(put.piece)))
    cosines = similarities(scorer, torch.stack(things), names)
    ranks = (cosines > cosines.gather(1, torch.tensor(own)[:, None])).sum(1)
    named = (ranks < 5).float()
    right = [as_asked(composer, one, picture) for one, picture in zip(asked, pictures, strict=True)]
    shares = [part.mean() for part in named.split([len(one.layout.puts) for one in asked])]
    known = [value for value in right if value is not None]
    both = [bool(value and share > 0.5) for value, share in zip(right, shares, strict=True)]
    return Scores(
        first_five=named.mean().item(),
        first=(ranks == 0).float().mean().item(),
        as_asked=sum(known) / len(known) if known else None,
        both=sum(both) / len(both) if known else None,
        empty=sum(is_empty(picture) for picture in pictures) / len(pictures),
    )


def cut(picture: Tensor, top: int, left: int, quarters: int) -> Tensor:
    """The square of a thing, enlarged to the picture's size: (3, S, S)."""
    size = picture.shape[-1]
    unit = size // QUARTERS
    part = picture[:, top * unit : (top + quarters) * unit, left * unit : (left + quarters) * unit]
    if part.shape[-1] == size:
        return part
    return F.interpolate(part[None], (size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)


def ground_of(picture: Tensor) -> Tensor:
    """The colour of the ground, (3,): the median along the border."""
    border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], dim=1)
    return border.median(dim=1).values


def thing_mask(picture: Tensor) -> Tensor:
    """Where a picture (3, S, S) shows no ground: bool (S, S)."""
    return (picture - ground_of(picture)[:, None, None]).abs().amax(0) > APART


def is_empty(picture: Tensor) -> bool:
    return thing_mask(picture).float().mean().item() <= NOTHING


def as_asked(composer: LaidOut, asked: Asked, picture: Tensor) -> bool | None:
    """Whether ground, colour and number are those that are asked for; None where none is."""
    layout, told = asked.layout, []
    if layout.ground:
        told.append(nearest(ground_of(picture), composer.grounds) == layout.ground)
    colour = composer.colour(layout.puts[0].piece)
    if colour is not None:
        told.append(colour_of(picture, composer.grounds) == composer.grounds.index(colour))
    if len(layout.puts) > 1 and len({put.piece for put in layout.puts}) == 1:
        told.append(has_number(picture, asked.drawn, layout, composer.quarters(layout.puts[0].piece)))
    return all(told) if told else None


def nearest(colour: Tensor, palette: Sequence[Colour]) -> int:
    distances = (torch.tensor(palette) / 255 - colour).square().sum(1)
    return int(distances.argmin())


def colour_of(picture: Tensor, palette: Sequence[Colour]) -> int:
    """Which of a palette most of a picture's thing is nearest to, by hue and saturation first; 0 is the ground."""
    pixels = picture[:, thing_mask(picture)].T  # (n, 3)
    if len(pixels) == 0:
        return 0
    distances = torch.cdist(chromatic(pixels), chromatic(torch.tensor(palette[1:]) / 255))
    return 1 + int(distances.argmin(1).bincount(minlength=len(palette) - 1).argmax())


def chromatic(rgb: Tensor) -> Tensor:
    """(n, 3) in [0, 1] -> two differences of channels and half the lightness, (n, 3): shades of a colour are near."""
    strongest = rgb.amax(1, keepdim=True).clamp_min(1e-3)
    chroma = (rgb - rgb.mean(1, keepdim=True)) / strongest.clamp_min(0.25)
    return torch.cat([1.5 * chroma, 0.5 * rgb.mean(1, keepdim=True)], dim=1)


def has_number(picture: Tensor, drawn: Tensor, layout: Layout, quarters: int) -> bool:
    """
    Whether each place of a layout is filled, by FILLED of what the drawing has there, and little else is: less than
    that share of one thing.
    """
    painted, wanted = thing_mask(picture), thing_mask(drawn)
    elsewhere, fullest = painted.clone(), 0
    for put in layout.puts:
        unit = picture.shape[-1] // QUARTERS
        rows, columns = (slice(start * unit, (start + quarters) * unit) for start in (put.top, put.left))
        there = (rows, columns)
        if painted[there].sum() < FILLED * wanted[there].sum():
            return False
        elsewhere[there], fullest = False, max(fullest, int(wanted[there].sum()))
    return elsewhere.sum().item() < FILLED * fullest


def flat(found: dict[str, dict[str, Scores]]) -> dict[str, float]:
    """By one name each, for programs."""
    return {
        f"scenes/{kind}/{way}/{name}": value
        for kind, ways in found.items()
        for way, scores in ways.items()
        for name, value in asdict(scores).items()
        if value is not None
    }


def table(found: dict[str, dict[str, Scores]]) -> str:
    """A row a kind, in Markdown: of what is painted in per cent, in brackets through the codes, and real."""
    titles = ("first five", "first", "ground, colour, number", "and the thing", "empty")
    lines = [f"| scenes, % | {' | '.join(titles)} |", f"| --- {'| ---: ' * len(titles)}|"]
    for kind, ways in found.items():
        cells = []
        for name in asdict(ways[WAYS[0]]):
            values = [getattr(ways[way], name) for way in WAYS]
            shown = [f"{100 * value:.0f}" for value in values if value is not None]
            cells.append(f"{shown[0]} ({', '.join(shown[1:])})" if shown else "")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)
