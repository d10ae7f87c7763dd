"""What the prior learns from: cached codes, with captions written at the draw.

Codes are a dataset with the columns `parts` (JSON, what a caption is written from), `codes` (N integers) and
`composed` (whether it is a scene), as cache.py makes it.
"""

import bisect
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from ..pictures.in_memory import shuffled
from ..pictures.kinds import Parts


class MappedCodes:
    """The columns of a dataset of codes where they lie: a memory map's, no copy of them, no Python list."""

    def __init__(self, encoded: Dataset):
        table = encoded.with_format("arrow")[:]
        self.codes = [chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in table["codes"].chunks]  # (m, N)
        self.starts = np.cumsum([0, *map(len, self.codes)])
        self.parts = table["parts"]
        self.composed = table["composed"].to_numpy()  # (M,)

    def row(self, i: int) -> tuple[dict[str, Any], Tensor]:
        """Row i: its parts, and its codes, int64 (N,)."""
        chunk = bisect.bisect_right(self.starts, i) - 1
        codes = self.codes[chunk][i - self.starts[chunk]].astype(np.int64)
        return json.loads(self.parts[i].as_py()), torch.from_numpy(codes)


class CodeSource(ABC):
    """What codes are drawn from: `singles`, the pictures of the set, and scenes. A row is its parts and codes (N,)."""

    singles: Sized
    composes = True  # whether there are scenes

    @abstractmethod
    def single(self, i: int) -> tuple[Parts, Tensor]:
        """Picture i."""

    @abstractmethod
    def scene(self, rng: random.Random) -> tuple[Parts, Tensor]:
        """One at random."""


class CachedCodes(CodeSource):
    """Pictures and scenes as a cache holds them."""

    singles: np.ndarray

    def __init__(self, encoded: Dataset):
        self.encoded = MappedCodes(encoded)
        self.singles = np.flatnonzero(~self.encoded.composed)
        self.scenes = np.flatnonzero(self.encoded.composed)
        self.composes = len(self.scenes) > 0

    def single(self, i: int) -> tuple[Parts, Tensor]:
        return self.encoded.row(int(self.singles[i]))

    def scene(self, rng: random.Random) -> tuple[Parts, Tensor]:
        return self.encoded.row(int(self.scenes[rng.randrange(len(self.scenes))]))


class DrawnCodes(torch.utils.data.Dataset):
    """
    `length` draws for the prior, each (caption, codes (N,), whether the caption is dropped): a scene with probability
    `scene_share`, else the next picture of an epoch's order. Captions are written, by `write`, and dropped with
    probability `caption_dropout`, at the draw.
    """

    def __init__(
        self,
        source: CodeSource,
        length: int,
        seed: int,
        *,
        scene_share: float,
        caption_dropout: float,
        write: Callable[[Parts, random.Random], str],
    ):
        if scene_share > 0 and not source.composes:
            raise ValueError(f"scene_share={scene_share} needs scenes: set training.cached_scenes above 0")
        self.source, self.write = source, write
        self.length, self.seed, self.scene_share, self.caption_dropout = length, seed, scene_share, caption_dropout

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[str, Tensor, bool]:
        rng = random.Random(f"{self.seed}-{i}")
        if rng.random() < self.scene_share:
            parts, codes = self.source.scene(rng)
        else:
            parts, codes = self.source.single(shuffled(i, len(self.source.singles), self.seed))
        dropped = rng.random() < self.caption_dropout
        return self.write(parts, rng), codes, dropped


class Collate:
    """
    Captions, codes and what is dropped -> {"text_ids": (B, T), "codes": (B, N), "dropped": (B,) bool}: the prior has
    an empty caption in place of each that is.
    """

    def __init__(self, tokenizer, bpe_dropout: float = 0.0):
        self.tokenizer, self.bpe_dropout = tokenizer, bpe_dropout

    def __call__(self, draws: list[tuple[str, Tensor, bool]]) -> dict[str, Tensor]:
        captions, codes, dropped = zip(*draws, strict=True)
        text_ids = self.tokenizer.encode_captions(list(captions), bpe_dropout=self.bpe_dropout)
        return {"text_ids": text_ids, "codes": torch.stack(codes), "dropped": torch.tensor(dropped)}


class FirstCaptions(torch.utils.data.Dataset):
    """Every row once, its caption drawn by its own place: the same captions at every evaluation, none dropped."""

    def __init__(self, encoded: Dataset, write: Callable[[Parts, random.Random], str]):
        self.encoded, self.write = encoded, write

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, i: int) -> tuple[str, Tensor, bool]:
        row = self.encoded[i]
        return self.write(json.loads(row["parts"]), random.Random(i)), torch.tensor(row["codes"]), False


def captions_of(encoded: Dataset, count: int, write: Callable[[Parts, random.Random], str]) -> list[str]:
    """A caption of each of the first `count` rows that have one, always the same."""
    captions = [write(json.loads(parts), random.Random(i)) for i, parts in enumerate(encoded["parts"][:count])]
    return [text for text in captions if text.strip()]
