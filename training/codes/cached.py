"""What the prior learns from: cached codes, with captions written at the draw.

Codes are a dataset with the columns `parts` (JSON, what a caption is written from), `codes` (N integers) and
`composed` (whether it is a scene): of cache.py, or of `encode_pictures` for a set in memory.
"""

import bisect
import json
import random
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from dvae import DVAE

from ..pictures.in_memory import Pictures, shuffled, to_pixel_values
from ..pictures.rows import caption


@torch.no_grad()
def encode_pictures(
    dvae: DVAE, pictures: Pictures, scenes: int, seed: int, device: torch.device, held_out: bool = False
) -> Dataset:
    """Every picture as it is, then `scenes` composed ones; or, held out, scenes of held-out pairs alone. By argmax."""
    dvae = dvae.eval()
    rows: list[dict[str, Any]] = []
    first, total = len(pictures) if held_out else 0, len(pictures) + scenes
    for start in tqdm(range(first, total, 128), desc="encoding", leave=False):
        drawn = [draw_picture(pictures, i, seed, held_out) for i in range(start, min(start + 128, total))]
        images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2)
        codes = dvae.encode(to_pixel_values(images, device)).flatten(1).cpu()
        for i, (_, parts), row in zip(range(start, total), drawn, codes.tolist(), strict=False):
            rows.append({"parts": json.dumps(parts), "codes": row, "composed": i >= len(pictures)})
    return Dataset.from_list(rows)


def draw_picture(pictures: Pictures, i: int, seed: int, held_out: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """Picture i of the set, or after the last one the scene of (seed, i): uint8 (S, S, 3) and its parts."""
    if i < len(pictures):
        return pictures.single(i)
    return pictures.scene(random.Random(f"scene-{seed}-{i}"), held_out)


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


class CachedCodes(torch.utils.data.Dataset):
    """
    `length` draws for the prior, each (caption, codes (N,)): a scene with probability `scene_share`, else the next
    picture of an epoch's order. Captions are written, and dropped with probability `caption_dropout`, at the draw.
    """

    def __init__(self, encoded: Dataset, length: int, seed: int, scene_share: float, caption_dropout: float):
        self.encoded = MappedCodes(encoded)
        self.singles = np.flatnonzero(~self.encoded.composed)
        self.scenes = np.flatnonzero(self.encoded.composed)
        if scene_share > 0 and len(self.scenes) == 0:
            raise ValueError(f"scene_share={scene_share} needs scenes: set training.cached_scenes above 0")
        self.length, self.seed, self.scene_share, self.caption_dropout = length, seed, scene_share, caption_dropout

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[str | None, Tensor]:
        rng = random.Random(f"{self.seed}-{i}")
        if rng.random() < self.scene_share:
            index = self.scenes[rng.randrange(len(self.scenes))]
        else:
            index = self.singles[shuffled(i, len(self.singles), self.seed)]
        parts, codes = self.encoded.row(int(index))
        dropped = rng.random() < self.caption_dropout
        return None if dropped else caption(parts, rng), codes


class Collate:
    """Captions and codes -> {"text_ids": (B, T), "codes": (B, N)}; a dropped caption (None) is the empty one."""

    def __init__(self, tokenizer, bpe_dropout: float = 0.0):
        self.tokenizer, self.bpe_dropout = tokenizer, bpe_dropout

    def __call__(self, draws: list[tuple[str | None, Tensor]]) -> dict[str, Tensor]:
        captions = ["" if text is None else text for text, _ in draws]
        text_ids = self.tokenizer.encode_captions(captions, bpe_dropout=self.bpe_dropout)
        text_ids[[i for i, (text, _) in enumerate(draws) if text is None]] = self.tokenizer.pad_token_id
        return {"text_ids": text_ids, "codes": torch.stack([codes for _, codes in draws])}


def captions_of(encoded: Dataset, count: int) -> list[str]:
    """A caption of each of the first `count` rows that have one, always the same."""
    captions = [caption(json.loads(parts), random.Random(i)) for i, parts in enumerate(encoded["parts"][:count])]
    return [text for text in captions if text.strip()]
