"""The kinds of sets that there are beside pictures with captions: the one place that knows them all."""

from random import Random

from .emoji.about import About, about_emoji
from .emoji.named_cutouts import NamedCutouts
from .pictures.kinds import Captioned, Parts

KINDS: tuple[type[Captioned], ...] = (NamedCutouts,)


def caption(parts: Parts, rng: Random) -> str:
    """Of parts that a cache holds, of whichever kind of set."""
    return (Captioned if "text" in parts else NamedCutouts).caption(parts, rng)


def about(path: str) -> About | None:
    """What is known of the set at a path: the one that comes with the project is."""
    return about_emoji(path)
