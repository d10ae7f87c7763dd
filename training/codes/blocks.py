"""Scenes put together of blocks of codes: each piece encoded once, alone on white, its cells laid on the ground's
codes. Fresh scenes without end, for any set that lays its scenes out (pictures/layouts.py).
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from dvae import FirstStage

from ..pictures.assembled import to_image
from ..pictures.data_arguments import DataArguments
from ..pictures.in_memory import Pictures, to_pixel_values
from ..pictures.kinds import Parts
from ..pictures.layouts import OUTSIDE, QUARTERS, LaidOut, Layout, check_grid, check_laid_out, put_together
from ..pictures.splits import Split
from .cached import CodeSource, MappedCodes
from .views import CHUNK, Chunk


@dataclass(frozen=True)
class PieceContents:
    """
    What is encoded of a source that lays scenes out: all pieces, or with `singles` its rows alone, as they are; each
    in the middle of a picture, on white. Places count the pieces, the rows first.
    """

    source: Split
    data: DataArguments
    image_size: int
    grid_size: int
    singles: bool = False

    def __post_init__(self):
        check_laid_out(self.source.kind.lays_out, "training.blocks to false")
        if not self.source.kind.rows_are_pieces:
            raise ValueError(
                f"{self.data.path} draws its rows by itself, and blocks are of cut-outs: set training.blocks to false"
            )
        check_grid(self.grid_size)

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.source, self.data, self.image_size)

    @property
    def composer(self) -> LaidOut:
        return self.pictures.laid_out

    @property
    def places(self) -> range:
        return range(len(self.pictures) if self.singles else self.composer.pieces)

    def settings(self) -> dict[str, Any]:
        """What the codes depend on beside the rows and the dVAE."""
        return {"pieces": "rows" if self.singles else "all", "layout": self.source.kind.version}

    def drawn(self, shards: dict[int, range]) -> "ShownPieces":
        return ShownPieces(self, shards)


class ShownPieces(IterableDataset):
    """The chunks of some shards, each with its pictures, uint8 (n, 3, S, S); a worker draws whole shards."""

    def __init__(self, contents: PieceContents, shards: dict[int, range]):
        self.contents, self.shards = contents, shards

    def __iter__(self) -> Iterator[tuple[Chunk, Tensor]]:
        worker = get_worker_info()
        own = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        for shard in list(self.shards)[own]:
            places = self.shards[shard]
            for start in range(places.start, places.stop, CHUNK):
                yield self._chunk(shard, range(start, min(start + CHUNK, places.stop)), start + CHUNK >= places.stop)

    def _chunk(self, shard: int, places: range, last: bool) -> tuple[Chunk, Tensor]:
        contents, side = self.contents, self.contents.grid_size
        images, ground = [], []
        for place in places:
            shown = contents.composer.show(place)
            block = shown.block(np.zeros((side, side), np.int32))
            images.append(to_image(shown.picture))
            ground.append((put_together([shown.put], {place: block}.__getitem__, side) == OUTSIDE).ravel())
        known = contents.pictures.parts[places.start : places.stop]  # rows come first, and pieces have no captions
        parts = [json.dumps(known[i] if i < len(known) else {"text": ""}) for i in range(len(places))]
        columns = {"parts": parts, "composed": [False] * len(places), "row": list(places)}
        return Chunk(shard, columns, last=last, ground=np.stack(ground)), torch.stack(images)


class Blocks(CodeSource):
    """
    Scenes of `contents`, put together of the blocks that are cached of its pieces.

    encoded: the cache of `contents`. grounds: int64 (G, N, N), `ground_codes` of its composer.
    """

    singles: range

    def __init__(self, encoded: Dataset, contents: PieceContents, grounds: np.ndarray):
        self.composer, self.parts, self.grounds = contents.composer, contents.pictures.parts, grounds
        self.singles, self.side = range(len(self.parts)), contents.grid_size
        grids = np.concatenate(MappedCodes(encoded).codes).reshape(-1, self.side, self.side)
        if len(grids) != self.composer.pieces:
            raise ValueError(f"{len(grids)} blocks are cached of {self.composer.pieces} pieces: remove the codes")
        self.grids = grids.astype(np.int16 if abs(grids).max() < 2**15 else np.int32)
        self.middles = {}
        for quarters in {self.composer.quarters(piece) for piece in range(len(grids))}:
            n = quarters * self.side // QUARTERS
            start = (self.side - n) // 2
            self.middles[quarters] = slice(start, start + n)

    def block(self, piece: int) -> np.ndarray:
        """(n, n), OUTSIDE where the ground is."""
        middle = self.middles[self.composer.quarters(piece)]
        return self.grids[piece, middle, middle].clip(min=OUTSIDE)

    def codes(self, layout: Layout) -> Tensor:
        """int64 (N,). A whole piece on the first ground is what was encoded, with the ground around it."""
        if layout.ground == 0 and self.composer.quarters(layout.puts[0].piece) == QUARTERS:
            return torch.from_numpy(as_encoded(self.grids[layout.puts[0].piece]).ravel())
        grid = put_together(layout.puts, self.block, self.side, self.grounds[layout.ground])
        return torch.from_numpy(grid.ravel())

    def single(self, i: int) -> tuple[Parts, Tensor]:
        return self.parts[i], self.codes(self.composer.single(i))

    def scene(self, rng: random.Random, held_out: bool = False, kind: str | None = None) -> tuple[Parts, Tensor]:
        layout, parts = self.composer.lay(rng, held_out, kind)
        return parts, self.codes(layout)


@torch.no_grad()
def ground_codes(dvae: FirstStage, composer: LaidOut, device: torch.device) -> np.ndarray:
    """
    The codes of each flat ground: int64 (G, N, N); with zeros as padding they are others at the border than inside.
    """
    size = dvae.config.image_size
    flat = torch.tensor(composer.grounds, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, size, size)
    return dvae.encode(to_pixel_values(flat, device)).cpu().numpy()


def as_encoded(codes: np.ndarray) -> np.ndarray:
    """Of a cache of pieces: int64, with what the ground was encoded as."""
    codes = codes.astype(np.int64)
    return np.where(codes < 0, OUTSIDE - codes, codes)


def whole_rows(encoded: Dataset) -> Dataset:
    """A cache of rows as pieces, as they were encoded."""
    return dataset_of(encoded["parts"], as_encoded(np.concatenate(MappedCodes(encoded).codes)))


def scenes_of(blocks: Blocks, count: int, seed: int, held_out: bool = True) -> Dataset:
    """`count` scenes in memory, the columns those of a cache."""
    drawn = [blocks.scene(random.Random(f"scene-{seed}-{i}"), held_out) for i in range(count)]
    return dataset_of([json.dumps(parts) for parts, _ in drawn], np.stack([codes for _, codes in drawn]))


def singles_of(blocks: Blocks) -> Dataset:
    """The rows of the set, likewise."""
    drawn = [blocks.single(i) for i in blocks.singles]
    return dataset_of([json.dumps(parts) for parts, _ in drawn], np.stack([codes for _, codes in drawn]))


def dataset_of(parts: list[str], codes: np.ndarray) -> Dataset:
    return Dataset.from_dict({"parts": list(parts), "codes": list(codes)})
