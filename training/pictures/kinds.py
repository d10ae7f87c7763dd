"""What a set is made of: how a row becomes a picture and a caption, and what the set draws by itself.

Whatever reads pictures knows this interface alone. A set of captioned pictures is `Captioned`; a set that composes
pictures of its own gives a `Composer`, whose pictures are called scenes.
"""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Self

import numpy as np
from PIL import Image

from dvae import DVAEImageProcessor

from .data_arguments import DataArguments
from .readers import Row
from .rows import BrokenRow

Parts = dict[str, Any]  # what a caption is written from, as JSON holds it; {"text": …} is a caption as it stands


class Composer(ABC):
    """
    Draws pictures, as many as are asked for: a set of cut-outs, or a class of one's own.

    version: of what is drawn; with another number no cached codes are of older drawings. pictures: how many are taken
        as the rows of the set, where it has no others. holds_out: whether it keeps some of what it can draw apart.
    kinds: of what it draws, each with its weight; none where there is but one.
    """

    version: int = 1
    pictures: int = 10_000
    holds_out: bool = False
    kinds: Mapping[str, float] = {}

    @abstractmethod
    def draw(self, rng: Random, held_out: bool = False) -> tuple[Image.Image, str | Parts]:
        """A picture of any size, and its caption or the parts of it. All chance is `rng`'s, so that a draw can be
        repeated. held_out: one of those that are kept apart, which are never drawn otherwise.
        """

    def weigh(self, weights: Mapping[str, float]) -> Self:
        """The same with other weights of some kinds. Raises a ValueError for a kind that it has not."""
        if unknown := set(weights) - set(self.kinds):
            known = ", ".join(self.kinds) or "none"
            raise ValueError(f"data.scene_kinds has no kind {min(unknown)!r}: those of this set are {known}")
        other = copy.copy(self)
        other.kinds = {**self.kinds, **weights}
        return other

    def draw_caption(self, rng: Random) -> Parts:
        """What the caption of a draw is written from, without the picture where that is less work."""
        return parts_of(self.draw(rng)[1])


def parts_of(caption: str | Parts) -> Parts:
    return {"text": caption} if isinstance(caption, str) else caption


class Captioned:
    """Rows of a picture and its caption, which stands in one column, or of several captions, of which one is drawn."""

    named_by: tuple[str, ...] = ()  # the columns that tell a set of this kind from one of captions
    composes = False  # whether it draws scenes
    lays_out = False  # whether these are laid out of pieces (layouts.LaidOut)
    holds_out = False  # whether training never draws some of them
    rows_are_pieces = False  # whether the composer's first pieces are the rows
    crops = True  # whether a picture may be cropped, as the paper does in training
    channels = 3  # of what stays in memory
    version = 0  # of the scenes

    def __init__(self, *columns: str):
        """columns: where the caption may stand; the first that has one counts. None: there are no captions."""
        self.columns = list(columns)

    def parts(self, row: Row) -> Parts:
        """What a row's caption is written from. Raises BrokenRow: why the row cannot be read, "empty caption" or
        "caption is no text".
        """
        if row.broken or all(value is None for value in row.columns.values()):
            raise BrokenRow(row.broken or "unreadable row")
        if not self.columns:
            return {}
        values = [row.columns.get(name) for name in self.columns]
        for value in values:
            if texts := texts_of(value):
                return {"text": texts if len(texts) > 1 else texts[0]}
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        raise BrokenRow(
            "empty caption" if all(isinstance(text, str | None) for text in texts) else "caption is no text"
        )

    @staticmethod
    def caption(parts: Parts, rng: Random) -> str:
        """A caption of the parts; where several fit, chance is `rng`'s."""
        text = parts.get("text", "")  # of a set without captions
        return text if isinstance(text, str) else rng.choice(text)

    @staticmethod
    def shown(parts: Parts) -> str:
        """Names what is to be seen: of equal names either's caption fits both pictures."""
        return json.dumps(parts, sort_keys=True)

    def keep(self, image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
        """What stays in memory of a picture: uint8 (S, S, 3), or with alpha (S, S, 4)."""
        return np.asarray(processor.fit(image))

    def show(self, kept: np.ndarray, parts: Parts) -> np.ndarray:
        """The picture itself, RGB uint8 (S, S, 3)."""
        return kept

    def composer(self, parts: Sequence[Parts], kept: Sequence[np.ndarray]) -> Composer:
        """Of the set's rows. kept: what `keep` made of each; [] where captions alone are wanted."""
        raise ValueError("pictures with captions are no cut-outs to compose scenes of: set data.scenes to 0")


def texts_of(value: Any) -> list[str]:
    """The captions in a cell, those with words: of a string, or of a list; a lone surrogate becomes "?"."""
    values = value if isinstance(value, list) else [value]
    return [text.encode(errors="replace").decode() for text in values if isinstance(text, str) and text.strip()]


CAPTION_COLUMNS = ("text", "caption", "captions", "prompt")  # in any case


class NoCaptions(ValueError):
    """A set of pictures without captions, which a dVAE learns from, and no prior."""


def kind_of(
    data: DataArguments, columns: list[str], kinds: Sequence[type[Captioned]] = (), captions: bool = True
) -> Captioned:
    """
    kinds: those that a set of names without captions may be, by its columns. captions: whether there must be any.

    Raises a ValueError that names the columns where there is no `image`; NoCaptions where there are neither captions
    nor names.
    """
    wanted = [data.text_column] if data.text_column else [*CAPTION_COLUMNS, "name"]
    if data.text_column:
        found = [name for name in columns if name == data.text_column]
    else:
        found = [name for want in CAPTION_COLUMNS for name in columns if name.lower() == want]
        found = found or [name for name in columns if name == "name"]
    if "image" not in columns:
        raise ValueError(f"{data.path} has columns {columns}: {no_pictures(columns, wanted)}")
    if data.text_column is None and found == ["name"]:
        for kind in kinds:
            if set(kind.named_by) <= set(columns):
                return kind()
    if not found and not captions:
        return Captioned()
    if columns == ["image"]:
        raise NoCaptions(
            f"{data.path} has pictures and no captions: give it a metadata.jsonl, or a .txt beside each picture; the "
            "dVAE alone learns without (training.train_dvae)"
        )
    if not found:
        raise NoCaptions(f"{data.path} has columns {columns}: it needs `image` and one of {wanted}")
    return Captioned(*found)


def no_pictures(columns: list[str], captions: list[str]) -> str:
    """What a set without pictures needs."""
    if {"url", "URL"} & set(columns):
        return "the pictures at its addresses are not fetched: download them first, with img2dataset for one"
    return f"it needs `image` and one of {captions}"
