"""What a code cache is made of, drawn: rows as they are, or their crops and flips, then composed scenes."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..pictures.crops import prior_crop
from ..pictures.in_memory import Pictures, as_it_is, caption_column, whole
from ..pictures.readers import Row
from ..pictures.rows import BrokenRow, open_picture, row_parts

if TYPE_CHECKING:
    from .cache import CodeCache

CHUNK = 128  # pictures that the dVAE encodes at once, and the rest of the last row's views


class Views(NamedTuple):
    """crop: "center", or "dalle", the paper's for the prior. crops: of each picture. flips: each mirrored as well."""

    crop: str = "center"
    crops: int = 1
    flips: bool = False


CENTRE = Views()


@dataclass
class Chunk:
    """
    What a shard's next pictures are: `columns` has a row for each, the cache's but for the codes.

    seen, skipped: rows, and those of them that are left out, each (name, reason). last: the shard ends with it.
    """

    shard: int
    columns: dict[str, list] = field(default_factory=lambda: {"parts": [], "composed": [], "row": []})
    seen: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    last: bool = False


class DrawnShards(IterableDataset):
    """
    The chunks of a cache's shards, each with its pictures, uint8 (n, 3, S, S): those of a shard in order. A worker
    draws whole shards, so that it reads a unit of rows once. pictures: what scenes are composed of.
    """

    def __init__(self, cache: "CodeCache", shards: list[int], pictures: Pictures | None):
        self.cache, self.shards, self.pictures = cache, shards, pictures
        self.column = caption_column(cache.data, cache.source)

    def __iter__(self) -> Iterator[tuple[Chunk, Tensor]]:
        worker = get_worker_info()
        own = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        for shard in self.shards[own]:
            yield from self._chunks(shard)

    def _chunks(self, shard: int) -> Iterator[tuple[Chunk, Tensor]]:
        chunk, images = Chunk(shard), []
        for place, row in self._places(*self.cache.bounds(shard)):
            chunk.seen += row is not None
            try:
                views, parts = self._scene(place) if row is None else self._views(row, place)
            except BrokenRow as broken:
                chunk.skipped.append((row.where, str(broken)))
                continue
            images += views
            for name, value in (("parts", json.dumps(parts)), ("composed", row is None), ("row", place)):
                chunk.columns[name] += [value] * len(views)
            if len(images) >= CHUNK:
                yield chunk, torch.stack(images)
                chunk, images = Chunk(shard), []
        chunk.last, size = True, self.cache.image_size
        yield chunk, torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)

    def _places(self, start: int, stop: int) -> Iterator[tuple[int, Row | None]]:
        """Each place and its row; None of a scene."""
        count = len(self.cache.source)
        yield from zip(range(start, stop), self.cache.source.rows(start, min(stop, count)), strict=False)
        yield from ((place, None) for place in range(max(start, count), stop))

    def _views(self, row: Row, place: int) -> tuple[list[Tensor], dict[str, Any]]:
        """A picture's crops, each followed by its flip, and its parts."""
        cache, parts = self.cache, row_parts(row, self.column)
        image, views = open_picture(row.columns["image"], cache.data), []
        for crop in range(cache.views.crops):
            if cache.views.crop == "dalle" and "things" not in parts:
                rng = random.Random(f"{cache.seed}-{place}-{crop}")
                views.append(prior_crop(whole(image), cache.image_size, rng))
            else:
                views.append(as_it_is(image, parts, cache.image_size))
            if cache.views.flips:
                views.append(views[-1].flip(-1))
        return views, parts

    def _scene(self, place: int) -> tuple[list[Tensor], dict[str, Any]]:
        image, parts = self.pictures.scene(random.Random(f"scene-{self.cache.seed}-{place}"), self.cache.held_out)
        return [torch.from_numpy(image.copy()).permute(2, 0, 1)], parts
