"""Scenes of two things judged thing by thing: each is cut from its half of the picture, enlarged, and named."""

import random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pictures.layouts import LaidOut
from .captions import with_article
from .scenes import PAIRS


class Pairs(NamedTuple):
    """images: (n, 3, S, S) in [0, 1]. prompts: n. vertical: (n,), whether the first thing is above. names: n pairs."""

    images: Tensor
    prompts: list[str]
    vertical: Tensor
    names: list[tuple[str, str]]


def heldout_pairs(composer: LaidOut, count: int, words: int = 2) -> Pairs:
    """
    `count` scenes, always the same, of two things with at most `words` words that training never puts together. Raises
    a ValueError where there are none.
    """
    images, prompts, vertical, names = [], [], [], []
    for draw in range(200 * count):
        rng = random.Random(f"pair-{draw}")
        layout, parts = composer.lay(rng, held_out=True, kind=rng.choice(PAIRS))
        pair = tuple(thing["name"] for thing in parts["things"])
        if any(len(name.split()) > words for name in pair):
            continue
        scene = composer.draw_layout(layout)
        images.append(torch.from_numpy(scene.copy()).permute(2, 0, 1) / 255)
        prompts.append(f"{with_article(pair[0])} {parts['kind']} {with_article(pair[1])}")
        vertical.append(parts["kind"] == "above")
        names.append(pair)
        if len(names) == count:
            break
    else:
        raise ValueError(f"{len(names)} of {count} pairs found in {200 * count} draws: give more rows, of short names")
    return Pairs(torch.stack(images), prompts, torch.tensor(vertical), names)


def cut_things(images: Tensor, vertical: Tensor) -> Tensor:
    """
    (n, 3, S, S) -> (2n, 3, S, S): of each picture the first thing, then the second.

    A thing is the square of half the side, in its half, that holds the most that is not white, enlarged twice.
    """
    upright = torch.where(vertical[:, None, None, None], images.transpose(2, 3), images)  # first thing on the left
    side = images.shape[-1] // 2
    things = []
    for picture, turned in zip(upright, vertical.tolist(), strict=True):
        for half in picture.split(side, dim=2):
            thing = half[:, fullest(1 - half.mean((0, 2)), side)]
            things.append(thing.transpose(1, 2) if turned else thing)
    enlarged = F.interpolate(torch.stack(things), scale_factor=2, mode="bicubic", antialias=True)
    return enlarged.clamp(0, 1)


def fullest(weights: Tensor, length: int) -> slice:
    """The window of `length` with the largest sum; of equal ones the middle one."""
    sums = weights.unfold(0, length, 1).sum(1)
    best = torch.nonzero(sums >= sums.max() - 1e-3).flatten()
    start = int(best[len(best) // 2])
    return slice(start, start + length)
