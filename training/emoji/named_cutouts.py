"""A set of named cut-outs: captions are written from names, and scenes composed of the pictures."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from dvae import DVAEImageProcessor

from ..pictures.kinds import Captioned, Composer, Parts, texts_of
from ..pictures.readers import Row
from ..pictures.rows import BrokenRow
from .captions import write_caption
from .scenes import LAYOUT, draw_scene, sample_scene


class NamedCutouts(Captioned):
    """Rows of an RGBA picture of one thing, with its `name`, `keywords` and `style`."""

    named_by = ("name", "keywords", "style")
    composes, crops, channels, version = True, False, 4, LAYOUT

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
        """Of things what they are, however they are drawn and named."""
        return json.dumps([parts["kind"], parts.get("colour"), [thing["name"] for thing in parts["things"]]])

    def keep(self, image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
        premultiplied = image.convert("RGBa").resize((processor.size, processor.size), Image.Resampling.LANCZOS)
        return np.asarray(premultiplied.convert("RGBA"))

    def show(self, kept: np.ndarray, parts: Parts) -> np.ndarray:
        return draw_scene(parts, [kept], Random(0), len(kept))

    def composer(self, parts: Sequence[Parts], kept: Sequence[np.ndarray]) -> Composer:
        return CutoutScenes([part["things"][0] for part in parts], kept)


class CutoutScenes(Composer):
    """
    Scenes of several cut-outs, of a coloured ground, of another size or colour (scenes.py); some pairs are held out.

    things: name, keywords and style of each cut-out. cutouts: RGBA uint8 (S, S, 4), or none for captions alone.
    """

    version, holds_out = LAYOUT, True

    def __init__(self, things: Sequence[dict[str, Any]], cutouts: Sequence[np.ndarray]):
        self.things, self.cutouts = things, cutouts

    def draw(self, rng: Random, held_out: bool = False) -> tuple[Image.Image, Parts]:
        parts = sample_scene(self.things, rng, heldout=held_out)
        cutouts = [self.cutouts[i] for i in parts["rows"]]
        return Image.fromarray(draw_scene(parts, cutouts, rng, len(cutouts[0]))), parts

    def draw_caption(self, rng: Random) -> Parts:
        return sample_scene(self.things, rng)
