"""A set of named cut-outs: captions are written from names, and scenes composed of the pictures."""

import json
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from dvae import DVAEImageProcessor

from ..pictures.kinds import Captioned, Parts, texts_of
from ..pictures.layouts import QUARTERS, LaidOut, Layout, Put
from ..pictures.readers import Row
from ..pictures.rows import BrokenRow
from .captions import COLOUR_WORDS, plain_name, write_caption
from .pieces import Piece, armchair, reduce
from .recolouring import Colour, Rule, may_become, recolour, rule_of
from .scenes import (
    ARMCHAIRS,
    COLOURS_HALF,
    GROUNDS,
    KINDS,
    LAYOUT,
    LONGEST_NAME,
    PLACES,
    WHOLE,
    Scenes,
    makes_armchair,
    rows_shown,
)

COLOURS_A_THING = 4
GROUND_PLACES = {colour: place for place, colour in enumerate((None, *GROUNDS))}


class NamedCutouts(Captioned):
    """Rows of an RGBA picture of one thing, with its `name`, `keywords` and `style`."""

    named_by = ("name", "keywords", "style")
    composes, lays_out, holds_out, rows_are_pieces = True, True, True, True
    crops, channels, version = False, 4, LAYOUT

    def __init__(self):
        self.columns = list(self.named_by)

    def parts(self, row: Row) -> Parts:
        """Raises BrokenRow as `Captioned` does; of keywords and style what is no text counts as none."""
        name, keywords, style = Captioned("name").parts(row)["text"], *map(row.columns.get, ("keywords", "style"))
        if not isinstance(name, str):
            raise BrokenRow("caption is no text")
        keywords = keywords.split(",") if isinstance(keywords, str) else texts_of(keywords)
        thing = {"name": name, "keywords": [word.strip() for word in keywords if word.strip()]}
        return {"kind": "single", "things": [{**thing, "style": style if isinstance(style, str) else ""}]}

    @staticmethod
    def caption(parts: Parts, rng: Random) -> str:
        return write_caption(parts, rng)

    @staticmethod
    def shown(parts: Parts) -> str:
        """Of things what they are, however they are drawn and named; one alone has a size, whatever is said of it."""
        kind = parts["kind"]
        size = "whole" if kind in ("single", "large", "colour") else "half" if kind in ("small", "ground") else kind
        names = [
            f"{thing['colour']} {plain_name(thing['name'])}" if thing.get("colour") else thing["name"]
            for thing in parts["things"]
        ]
        return json.dumps([size, parts.get("ground"), names])

    def keep(self, image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
        premultiplied = image.convert("RGBa").resize((processor.size, processor.size), Image.Resampling.LANCZOS)
        return np.asarray(premultiplied.convert("RGBA"))

    def show(self, kept: np.ndarray, parts: Parts) -> np.ndarray:
        return CutoutScenes([], [kept]).draw_layout(Layout(0, (Put(0, 0, 0),)))

    def composer(self, parts: Sequence[Parts], kept: Sequence[np.ndarray]) -> LaidOut:
        return CutoutScenes([part["things"][0] for part in parts], kept)


class CutoutScenes(LaidOut):
    """
    Scenes of several cut-outs, of a coloured ground, of another size, colour or number (scenes.py); what they combine
    is held out by pair.

    things: name, keywords and style of each cut-out. cutouts: RGBA uint8 (S, S, 4), or none for captions alone.
    """

    version, holds_out, kinds = LAYOUT, True, KINDS
    grounds = ((255, 255, 255), *GROUNDS.values())

    def __init__(self, things: Sequence[dict[str, Any]], cutouts: Sequence[np.ndarray]):
        self.things, self.cutouts = things, cutouts

    @cached_property
    def rules(self) -> list[Rule | None]:
        """What colour rules each cut-out that scenes show, told by a quarter of its pixels."""
        shown = set(rows_shown(self.things))
        return [rule_of(cutout[::2, ::2]) if row in shown else None for row, cutout in enumerate(self.cutouts)]

    @cached_property
    def colours(self) -> list[list[str]]:
        """
        COLOURS_A_THING of those that each thing of scenes may have instead of its own, so that there are not too many
        pieces. Without pictures all colours are taken to be other than its own.
        """
        rules, colours = self.rules or [Rule(None, 0.0, 1.0)] * len(self.things), []
        for row, (thing, rule) in enumerate(zip(self.things, rules, strict=True)):
            words = thing["name"].split()
            found = []
            has_colour = bool(COLOUR_WORDS & set(plain_name(thing["name"]).split()))  # not at its front alone
            if rule is not None and len(words) <= LONGEST_NAME and not has_colour:
                found = [name for name in GROUNDS if name not in words and may_become(rule, GROUNDS[name])]
            colours.append(Random(f"colours {row}").sample(found, min(COLOURS_A_THING, len(found))))
        return colours

    @cached_property
    def scenes(self) -> Scenes:
        return Scenes(self.things, self.colours)

    @cached_property
    def table(self) -> list[Piece]:
        """All pieces: the rows as they are first, so that a row's number is that of its piece."""
        table = [Piece(row) for row in range(len(self.cutouts))]
        for row in rows_shown(self.things):
            table += [Piece(row, half=True)]
            table += [Piece(row, colour) for colour in self.colours[row]]
            table += [Piece(row, colour, half=True) for colour in self.colours[row][:COLOURS_HALF]]
            table += [Piece(row, kind) for kind in ARMCHAIRS if makes_armchair(self.things[row]["name"])]
        return table

    @cached_property
    def places(self) -> dict[Piece, int]:
        return {piece: i for i, piece in enumerate(self.table)}

    @property
    def pieces(self) -> int:
        return len(self.table)

    def quarters(self, piece: int) -> int:
        return QUARTERS // 2 if self.table[piece].half else QUARTERS

    def piece(self, piece: int) -> np.ndarray:
        row, look, half = self.table[piece]
        cutout = self.cutouts[row]
        if look in ARMCHAIRS:
            cutout = armchair(cutout, Random(f"{look} {row}"), is_back=look == "shape")
        elif look in GROUNDS:
            rule = self.rules[row]
            assert rule is not None  # what nothing rules has no other colours
            cutout = recolour(cutout, rule, GROUNDS[look])
        return np.asarray(reduce(Image.fromarray(cutout), len(cutout) // 2)) if half else cutout

    def name(self, piece: int) -> str:
        return self.things[self.table[piece].row]["name"]

    def colour(self, piece: int) -> Colour | None:
        return GROUNDS.get(self.table[piece].look)

    def single(self, row: int) -> Layout:
        return Layout(0, (Put(row, 0, 0),))

    def lay(self, rng: Random, held_out: bool = False, kind: str | None = None) -> tuple[Layout, Parts]:
        parts = self.scenes.sample(rng, self.kinds, held_out, kind)
        return self.layout_of(parts), parts

    def draw_caption(self, rng: Random) -> Parts:
        return self.scenes.sample(rng, self.kinds)

    def layout_of(self, parts: Parts) -> Layout:
        """Where the things of a scene stand; of several places for one thing it stands at each."""
        kind, rows = parts["kind"], parts["rows"]
        half, pieces = kind in PLACES, []
        for row, thing in zip(rows, parts["things"][-len(rows) :], strict=True):
            look = kind if kind in ARMCHAIRS else thing.get("colour", "plain")
            pieces.append(self.places[Piece(row, look, half)])
        spots = PLACES[kind] if half else WHOLE
        pieces = pieces if len(pieces) == len(spots) else pieces * len(spots)
        puts = tuple(Put(piece, top, left) for piece, (top, left) in zip(pieces, spots, strict=True))
        return Layout(GROUND_PLACES[parts.get("ground")], puts)
