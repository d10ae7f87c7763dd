"""Scenes composed of cut-outs, so that a prompt may combine what no single picture shows together.

    beside     above     small / large     two / three / four     colour           shape              colours
    . . . .    . A A .   . . . .  A A A A  . . . .  . A A .       A in another     an armchair whose  an armchair
    A A B B    . A A .   . A A .  A A A A  A A A A  . A A .       colour, a blue   back is B          in the colours
    A A B B    . B B .   . A A .  A A A A  A A A A  A A A A       cat                                 of B
    . . . .    . B B .   . . . .  A A A A  . . . .  A A A A

A kind has one place for each of its things, whole or at half their size, on white or on a coloured ground. That is a
kind of its own too, of a thing as in `small`. A thing of these kinds is sometimes recoloured, unless `colour` has no
weight. What kinds combine is held out by pair, of two names, of a name and a ground, a colour or a number: training
never shows such a pair, and the split `heldout-pairs` of an evaluation shows them alone.

A thing that is drawn in STYLE is shown in it alone. So a prior has 2,472 of 6,491 drawings to know at half their
size, those whose codes are learned soonest (training/LOG.md).
"""

import hashlib
from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from random import Random
from typing import Any

from .captions import is_countable, plain_name
from .recolouring import Colour

LAYOUT = 6  # of what is drawn: another number for another drawing, so that no cached codes are of an older one
HELDOUT_SHARE = 0.1  # of all pairs
KINDS = {  # weights
    "beside": 26, "above": 18, "ground": 14, "small": 8, "large": 3, "two": 6, "three": 6, "four": 6, "colour": 14,
    "shape": 8, "colours": 3
}  # fmt: skip
PLACES = {  # quarters of the canvas above and to the left of each thing, which is half as large as the canvas
    "beside": ((1, 0), (1, 2)), "above": ((0, 1), (2, 1)), "small": ((1, 1),), "ground": ((1, 1),),
    "two": ((1, 0), (1, 2)), "three": ((0, 1), (2, 0), (2, 2)), "four": ((0, 0), (0, 2), (2, 0), (2, 2))
}  # fmt: skip
WHOLE = ((0, 0),)  # the place of all other kinds' thing
PAIRS, COUNTS, ARMCHAIRS = ("beside", "above"), ("two", "three", "four"), ("shape", "colours")
HELD_OUT = (*PAIRS, "ground", *COUNTS, "colour", *ARMCHAIRS)  # the kinds that are of a pair
GROUND_SHARE, COLOUR_SHARE = 0.25, 0.1  # of other kinds: scenes on a coloured ground, things of another colour
COLOURS_HALF = 2  # of a thing's colours, that it has at half its size too
LONGEST_NAME = 3  # words, of a thing in a pair, in numbers or in another colour
TRIES, TRIES_FOR_STYLE = 200, 30
STYLE = "fluent flat"  # of what is drawn in several
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
SIZE_WORDS = {"small", "large", "little", "big", "tiny", "huge"}  # in a name: it has a size already
PEOPLE = ("man", "woman", "person", "men", "women", "people")  # make no good armchair
ARMCHAIR = {"name": "armchair", "keywords": ["chair", "furniture", "seat"], "style": "drawing"}
Thing = dict[str, Any]


def is_heldout_pair(name_a: str, name_b: str) -> bool:
    """Whether two things never meet in training: by a hash of the sorted pair, less a colour at a name's front."""
    return _is_heldout(plain_name(name_a), plain_name(name_b))


def is_heldout(name: str, kind: str, colour: str | None = None) -> bool:
    """The same of a thing and a ground, a colour or a number of it."""
    return _with_word(plain_name(name), f"{kind} {colour}" if colour else kind)


def _is_heldout(a: str, b: str) -> bool:
    pair = f"{a}|{b}" if a < b else f"{b}|{a}"
    return int.from_bytes(hashlib.sha256(pair.encode()).digest()[:4], "big") / 2**32 < HELDOUT_SHARE


_with_word = lru_cache(maxsize=2**17)(_is_heldout)  # names are few, grounds, colours and numbers too
_plain = cache(plain_name)


class Scenes:
    """
    What scenes of a set's things show, drawn at random.

    things: `name`, `keywords` and `style` of each row. colours: of each row those that it may have instead of its
    own; none of a long name.
    """

    def __init__(self, things: Sequence[Thing], colours: Sequence[Sequence[str]]):
        self.things, self.colours, self.names = things, colours, {thing["name"] for thing in things}
        self.shown = rows_shown(things)
        self.short = [i for i in self.shown if len(things[i]["name"].split()) <= LONGEST_NAME]
        self.of_style = defaultdict(list)
        for i in self.short:
            self.of_style[things[i]["style"]].append(i)
        self.rows: dict[tuple[str, bool], list[int]] = {}
        self.drawable: dict[tuple, tuple[list[str], list[float]]] = {}

    def sample(
        self, rng: Random, weights: Mapping[str, float], held_out: bool = False, kind: str | None = None
    ) -> dict[str, Any]:
        """
        Parts of a scene: `kind`, one of KINDS; `things` in the order the caption names them, each with its `colour`
        where that is another than its own; `rows`, their places in the set; `ground` where that is not white.

        weights: of the kinds; kind: that one. With held_out every scene shows a held-out pair; without it none does.
        Raises a ValueError when no such scene is found.
        """
        kind = kind or self._kind(rng, weights, held_out)
        rows = self._pair(rng, held_out) if kind in PAIRS else [self._one(rng, kind, held_out)]
        things = [self.things[row] for row in rows]
        parts = {"kind": kind, "things": [ARMCHAIR, *things] if kind in ARMCHAIRS else things, "rows": rows}
        if kind == "ground":
            parts["ground"] = self._ground(rng, things, held_out)
        elif kind == "colour":
            parts["things"] = [{**things[0], "colour": self._colour(rng, rows[0], held_out)}]
        elif not held_out:
            self._vary(rng, parts, recolour=weights["colour"] > 0)
        return parts

    def _kind(self, rng: Random, weights: Mapping[str, float], held_out: bool) -> str:
        asked = (*weights.items(), held_out)
        if asked not in self.drawable:
            self.drawable[asked] = self._kinds(weights, held_out)
        kinds, sums = self.drawable[asked]
        return kinds[bisect(sums, rng.random() * sums[-1], hi=len(kinds) - 1)]

    def _kinds(self, weights: Mapping[str, float], held_out: bool) -> tuple[list[str], list[float]]:
        """The kinds that there are things for, of a small set not all, and the sums of their weights."""
        kinds = [kind for kind in (HELD_OUT if held_out else KINDS) if weights[kind] > 0]
        kinds = [kind for kind in kinds if (self._pairs(held_out) if kind in PAIRS else self._rows(kind, held_out))]
        if not kinds:
            raise ValueError(
                f"no scene can be drawn of {len(self.things)} things with held_out={held_out} and the weights "
                f"{dict(weights)}: give more things, of short names, or another kind a weight above 0"
            )
        return kinds, list(accumulate(weights[kind] for kind in kinds))

    def _pairs(self, held_out: bool) -> bool:
        try:
            return bool(self._pair(Random(0), held_out))
        except ValueError:
            return False

    def _one(self, rng: Random, kind: str, held_out: bool) -> int:
        rows = self._rows(kind, held_out)
        if not rows:
            raise ValueError(
                f"no thing for a scene of kind {kind!r} among {len(self.things)} with held_out={held_out}: give more, "
                "of short names"
            )
        return rows[int(rng.random() * len(rows))]

    def _rows(self, kind: str, held_out: bool) -> list[int]:
        """The rows that a scene of one thing may show."""
        if (kind, held_out) not in self.rows:
            self.rows[kind, held_out] = [row for row in self.shown if self._fits(row, kind, held_out)]
        return self.rows[kind, held_out]

    def _fits(self, row: int, kind: str, held_out: bool) -> bool:
        name = self.things[row]["name"]
        if kind in COUNTS:
            short = len(name.split()) <= LONGEST_NAME
            return short and is_countable(name) and _with_word(_plain(name), kind) == held_out
        if kind in ARMCHAIRS:
            return makes_armchair(name) and _is_heldout(ARMCHAIR["name"], _plain(name)) == held_out
        if kind == "ground":
            return bool(self._grounds([self.things[row]], held_out))
        if kind in ("small", "large"):
            return not SIZE_WORDS & set(name.split())
        return kind != "colour" or bool(self._colours(row, held_out))

    def _pair(self, rng: Random, held_out: bool) -> list[int]:
        """Two rows, of one style if such are found soon."""
        for _ in range(TRIES if self.short else 0):
            first = self.short[int(rng.random() * len(self.short))]
            name, alike = _plain(self.things[first]["name"]), self.of_style[self.things[first]["style"]]
            for attempt in range(TRIES):
                others = alike if attempt < TRIES_FOR_STYLE else self.short
                second = others[int(rng.random() * len(others))]
                other = _plain(self.things[second]["name"])
                if other != name and _is_heldout(name, other) == held_out:
                    return [first, second]
        raise ValueError(
            f"no two things to pair among {len(self.things)} with held_out={held_out}: give more, of short names"
        )

    def _grounds(self, things: Sequence[Thing], held_out: bool) -> list[str]:
        """Colours of a ground that no name says, held out for the thing, or for none of the things."""
        free = [grounds_of(_plain(thing["name"]), held_out) for thing in things]
        words = {word for thing in things for word in (*thing["name"].split(), thing.get("colour"))}
        return [colour for colour in free[0] if colour not in words and all(colour in other for other in free[1:])]

    def _ground(self, rng: Random, things: Sequence[Thing], held_out: bool) -> str | None:
        found = self._grounds(things, held_out)
        return found[int(rng.random() * len(found))] if found else None

    def _colours(self, row: int, held_out: bool, half: bool = False) -> list[str]:
        name, own = _plain(self.things[row]["name"]), self.colours[row]
        own = own[:COLOURS_HALF] if half else own
        return [colour for colour in own if self.is_heldout_colour(name, colour) == held_out]

    def is_heldout_colour(self, name: str, colour: str) -> bool:
        """Of a plain name; none that a row has by its own name is, as training shows that."""
        return _with_word(name, f"colour {colour}") and f"{colour} {name}" not in self.names

    def _colour(self, rng: Random, row: int, held_out: bool, half: bool = False) -> str | None:
        found = self._colours(row, held_out, half)
        return found[int(rng.random() * len(found))] if found else None

    def _vary(self, rng: Random, parts: dict[str, Any], recolour: bool) -> None:
        """Things of other colours, if any are, and another ground, now and then; neither held out."""
        kind = parts["kind"]
        if recolour and kind not in ARMCHAIRS + COUNTS:
            for i, row in enumerate(parts["rows"]):
                if rng.random() < COLOUR_SHARE:
                    colour = self._colour(rng, row, held_out=False, half=kind in PLACES)
                    if colour:
                        parts["things"][i] = {**parts["things"][i], "colour": colour}
        if rng.random() < GROUND_SHARE:
            ground = self._ground(rng, parts["things"][-len(parts["rows"]) :], held_out=False)
            if ground:
                parts["ground"] = ground


def rows_shown(things: Sequence[Thing]) -> list[int]:
    """The rows that scenes show: of a name that is drawn in STYLE that drawing, of another each."""
    named = {thing["name"] for thing in things if thing["style"] == STYLE}
    return [i for i, thing in enumerate(things) if thing["style"] == STYLE or thing["name"] not in named]


@lru_cache(maxsize=2**14)
def grounds_of(name: str, held_out: bool) -> list[str]:
    """The grounds on which training never shows a thing, or those on which it may."""
    return [colour for colour in GROUNDS if _with_word(name, f"ground {colour}") == held_out]


def makes_armchair(name: str) -> bool:
    """Whether a thing may be an armchair's back."""
    short = len(name.split()) <= LONGEST_NAME
    return short and plain_name(name) != ARMCHAIR["name"] and not name.startswith(PEOPLE)
