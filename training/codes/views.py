"""What a code cache is made of, drawn: rows as they are, or their crops and flips, then composed scenes."""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from dvae import DVAEImageProcessor

from ..pictures.crops import prior_crop
from ..pictures.data_arguments import DataArguments
from ..pictures.in_memory import Pictures, as_it_is, whole
from ..pictures.kinds import Parts
from ..pictures.layouts import OUTSIDE
from ..pictures.readers import Row
from ..pictures.rows import BrokenRow, open_picture
from ..pictures.splits import Split

CHUNK = 128  # pictures that the dVAE encodes at once, and the rest of the last row's views


class Views(NamedTuple):
    """crop: "center", or "dalle", the paper's for the prior. crops: of each picture. flips: each mirrored as well."""

    crop: str = "center"
    crops: int = 1
    flips: bool = False


CENTRE = Views()


@dataclass(frozen=True)
class Contents:
    """
    What is encoded: views of a source's rows, then `scenes` that its set composes; of what the set holds out, and of
    scenes alone, where `held_out`. Places count the rows, then the scenes.

    Raises a ValueError where more crops would all be the same, or where the set composes no scenes.
    """

    source: Split
    data: DataArguments
    image_size: int
    views: Views = CENTRE
    scenes: int = 0
    held_out: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.scenes > 0 and not self.source.kind.composes:
            raise ValueError(
                f"{self.scenes} scenes cannot be composed of {self.data.path}, which has captions and no cut-outs: "
                "set training.cached_scenes to 0"
            )
        if self.views.crops > 1 and not self.cropped:
            raise ValueError(f"crops={self.views.crops} of a picture would all be its centre: set data.crop to dalle")

    @property
    def cropped(self) -> bool:
        return self.views.crop == "dalle" and self.source.kind.crops

    @property
    def places(self) -> range:
        return range(len(self.source) if self.held_out else 0, len(self.source) + self.scenes)

    def settings(self) -> dict[str, Any]:
        """What the codes depend on beside the rows and the dVAE."""
        own = {
            "scenes": self.scenes,
            "layout": self.source.kind.version if self.scenes else 0,
            "held_out": self.held_out,
            "seed": self.seed if self.scenes > 0 or self.cropped else 0,  # else nothing depends on it
            **self.views._asdict(),
        }
        return own | ({"scene_kinds": self.data.scene_kinds} if self.scenes and self.data.scene_kinds else {})

    def drawn(self, shards: dict[int, range]) -> "DrawnShards":
        return DrawnShards(self, shards)

    def pictures(self, places: Iterable[range]) -> Pictures | None:
        """What the scenes among these places are composed of; None where there are none."""
        composed = any(part.stop > len(self.source) for part in places)
        return Pictures(self.source, self.data, self.image_size) if composed else None


@dataclass
class Chunk:
    """
    What a shard's next pictures are: `columns` has a row for each, the cache's but for the codes.

    seen, skipped: rows, and those of them that are left out, each (name, reason). last: the shard ends with it.
    ground: bool (n, N), the cells that show nothing of a piece; None of whole pictures.
    """

    shard: int
    columns: dict[str, list] = field(default_factory=lambda: {"parts": [], "composed": [], "row": []})
    seen: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    last: bool = False
    ground: np.ndarray | None = None

    def without_ground(self, codes: np.ndarray) -> np.ndarray:
        """Codes (n, N), those below 0 where only the ground is: OUTSIDE less what it was encoded as there."""
        return codes if self.ground is None else np.where(self.ground, np.int32(OUTSIDE) - codes, codes)


class DrawnShards(IterableDataset):
    """
    The chunks of some shards, each with its pictures, uint8 (n, 3, S, S): those of a shard in order. A worker draws
    whole shards, so that it reads a unit of rows once. Memory for scenes is taken here, before workers are forked.
    """

    def __init__(self, contents: Contents, shards: dict[int, range]):
        self.contents, self.shards = contents, shards
        self.pictures = contents.pictures(shards.values())
        self.processor = DVAEImageProcessor(contents.image_size)

    def __iter__(self) -> Iterator[tuple[Chunk, Tensor]]:
        worker = get_worker_info()
        own = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        for shard in list(self.shards)[own]:
            yield from self._chunks(shard)

    def _chunks(self, shard: int) -> Iterator[tuple[Chunk, Tensor]]:
        chunk, images = Chunk(shard), []
        for place, row in self._places(self.shards[shard]):
            chunk.seen += row is not None
            try:
                views, parts = self._scene(place) if row is None else self._views(row, place)
            except BrokenRow as broken:
                assert row is not None  # a scene is of rows that were read
                chunk.skipped.append((broken.at(row).where, str(broken)))
                continue
            images += views
            for name, value in (("parts", json.dumps(parts)), ("composed", row is None), ("row", place)):
                chunk.columns[name] += [value] * len(views)
            if len(images) >= CHUNK:
                yield chunk, torch.stack(images)
                chunk, images = Chunk(shard), []
        chunk.last, size = True, self.contents.image_size
        yield chunk, torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)

    def _places(self, places: range) -> Iterator[tuple[int, Row | None]]:
        """Each place and its row; None of a scene."""
        source, count = self.contents.source, len(self.contents.source)
        yield from zip(places, source.rows(places.start, min(places.stop, count)), strict=False)
        yield from ((place, None) for place in range(max(places.start, count), places.stop))

    def _views(self, row: Row, place: int) -> tuple[list[Tensor], Parts]:
        """A picture's crops, each followed by its flip, and its parts."""
        contents, kind, views = self.contents, self.contents.source.kind, []
        parts, image = kind.parts(row), open_picture(row.columns["image"], contents.data)
        for crop in range(contents.views.crops):
            if contents.cropped:
                rng = random.Random(f"{contents.seed}-{place}-{crop}")
                views.append(prior_crop(whole(image), contents.image_size, rng))
            else:
                views.append(as_it_is(image, parts, kind, self.processor))
            if contents.views.flips:
                views.append(views[-1].flip(-1))
        return views, parts

    def _scene(self, place: int) -> tuple[list[Tensor], Parts]:
        assert self.pictures is not None  # made where there are scenes
        rng = random.Random(f"scene-{self.contents.seed}-{place}")
        image, parts = self.pictures.scene(rng, self.contents.held_out)
        return [torch.from_numpy(image.copy()).permute(2, 0, 1)], parts
