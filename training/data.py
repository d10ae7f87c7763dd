"""Captioned pictures: from any set that `datasets` loads, to batches that depend on the seed and the place alone.

Picture i of a run is drawn by a generator seeded with (seed, i): the same picture whatever the number of workers or
processes, and whether or not the run was stopped before.
"""

import functools
import hashlib
import random
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, load_dataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from dvae import DVAEImageProcessor

from .captions import write_caption
from .data_arguments import DataArguments
from .scenes import draw_scene, sample_scene

CAPTION_COLUMNS = ("text", "caption")


def load_split(data: DataArguments, split: str) -> Dataset:
    """
    The pictures of `data.path`; split is "train" or "validation".

    Raises a ValueError that names the columns when the set has no `image`, or neither captions nor names.
    """
    splits = _load(data.path)
    wanted = data.train_split if split == "train" else data.validation_split
    if wanted in splits:
        pictures = splits[wanted]
    elif split == "validation":
        pictures = _held_out(splits[data.train_split], held_out=True)
    else:
        raise ValueError(f"{data.path} has no split {wanted!r}: it has {', '.join(splits)}; say --data.train_split")
    if split == "train" and data.validation_split not in splits:
        pictures = _held_out(pictures, held_out=False)
    caption_column(data, pictures)
    if data.max_pictures is not None:
        pictures = pictures.select(range(min(data.max_pictures, len(pictures))))
    return pictures


def _load(path: str) -> DatasetDict:
    try:
        return load_dataset(path)
    except (OSError, ValueError) as error:  # no such folder, nothing to read in it, an unknown id, offline
        reason = str(error).splitlines()[0]
        remedy = "give a folder of pictures with metadata.jsonl, of Parquet, or a Hub id"
        raise ValueError(f"no data at {path}: {remedy} ({reason})") from error


def _held_out(pictures: Dataset, held_out: bool) -> Dataset:
    """5 % of the places, at most 1,000, by a hash; or the others."""
    chosen = [i for i in range(len(pictures)) if hashlib.sha1(str(i).encode()).digest()[0] < 13][:1000]
    if held_out:
        return pictures.select(chosen)
    return pictures.select(sorted(set(range(len(pictures))) - set(chosen)))


def caption_column(data: DataArguments, pictures: Dataset) -> str | None:
    """The column of captions; None where captions are written from `name` and `keywords`."""
    columns = pictures.column_names
    candidates = [data.text_column] if data.text_column else [*CAPTION_COLUMNS, "name"]
    found = [column for column in candidates if column in columns]
    if "image" not in columns or not found:
        raise ValueError(f"{data.path} has columns {columns}: it needs `image` and one of {candidates}")
    return None if found[0] == "name" else found[0]


def is_cutouts(pictures: Dataset) -> bool:
    """Whether the set is one of named cut-outs, of which scenes are composed: it has names and no captions."""
    return "name" in pictures.column_names and not set(CAPTION_COLUMNS) & set(pictures.column_names)


def row_parts(row: dict[str, Any], column: str | None) -> dict[str, Any]:
    """A row without its picture -> the parts that a caption is written from."""
    if column is not None:
        return {"text": row[column] or ""}
    return {"kind": "single", "things": [{key: row[key] for key in ("name", "keywords", "style")}]}


def caption(parts: dict[str, Any], rng: random.Random) -> str:
    """A caption as it is, or one written from the parts."""
    return parts["text"] if "text" in parts else write_caption(parts, rng)


class Pictures:
    """Pictures of a set, decoded once to uint8 and kept in memory: (3, S, S), or cut-outs (S, S, 4) with alpha."""

    def __init__(self, pictures: Dataset, data: DataArguments, image_size: int):
        self.image_size = image_size
        self.cutouts = is_cutouts(pictures)
        column = caption_column(data, pictures)
        self.parts = [row_parts(row, column) for row in pictures.remove_columns("image")]
        processor = DVAEImageProcessor(image_size)
        decode = _cutout if self.cutouts else _rgb
        self.images = [decode(row["image"], processor) for row in tqdm(pictures, desc="decoding", leave=False)]
        self.rows = [parts["things"][0] for parts in self.parts] if self.cutouts else []

    def __len__(self) -> int:
        return len(self.images)

    def single(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Picture `index` as it is: RGB uint8 (S, S, 3) and its parts."""
        parts = self.parts[index]
        if not self.cutouts:
            return self.images[index], parts
        return draw_scene(parts, [self.images[index]], random.Random(0), self.image_size), parts

    def scene(self, rng: random.Random, held_out: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
        """A composed scene: RGB uint8 (S, S, 3) and its parts. For sets of cut-outs alone."""
        if not self.cutouts:
            raise ValueError("scenes need a set of named cut-outs, with a `name` column: set data.scenes to 0")
        parts = sample_scene(self.rows, rng, heldout=held_out)
        images = [self.images[i] for i in parts["rows"]]
        return draw_scene(parts, images, rng, self.image_size), parts


def _cutout(image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
    premultiplied = image.convert("RGBa").resize((processor.size, processor.size), Image.Resampling.LANCZOS)
    return np.asarray(premultiplied.convert("RGBA"))


def _rgb(image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
    return np.asarray(processor.fit(image))


class DrawnPictures(torch.utils.data.Dataset):
    """`length` draws for the dVAE: picture i is a scene with probability `scenes`, else the next one of an epoch."""

    def __init__(self, pictures: Pictures, length: int, seed: int, scenes: float = 0.0, flip: bool = False):
        self.pictures, self.length, self.seed, self.scenes, self.flip = pictures, length, seed, scenes, flip

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Tensor:
        rng = random.Random(f"{self.seed}-{i}")
        if rng.random() < self.scenes:
            image, _ = self.pictures.scene(rng)
        else:
            image, _ = self.pictures.single(shuffled(i, len(self.pictures), self.seed))
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        return torch.from_numpy(image.copy()).permute(2, 0, 1)  # (3, S, S) uint8


def shuffled(i: int, size: int, seed: int) -> int:
    """Place i of a stream of epochs, each its own permutation of `size` places."""
    return int(_permutation(i // size, size, seed)[i % size])


@functools.lru_cache(maxsize=2)
def _permutation(epoch: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


def to_pixel_values(images: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 3, S, S) -> float (B, 3, S, S) in [0, 1] on `device`, channels last."""
    return (images.to(device).float() / 255).contiguous(memory_format=torch.channels_last)


def in_order(dataset: torch.utils.data.Dataset, batch_size: int, num_workers: int, collate_fn=None) -> DataLoader:
    """Batches in the dataset's own order. Its generator is its own: a loader draws a seed for its workers from the
    global one otherwise, and a resumed run, which makes a second loader, would go on with other noise."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=collate_fn, generator=generator)
