"""Captioned pictures: from any set that `sources` opens, to batches that depend on the seed and the place alone.

Picture i of a run is drawn by a generator seeded with (seed, i): the same picture whatever the number of workers or
processes, and whether or not the run was stopped before.
"""

import functools
import hashlib
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from dvae import DVAEImageProcessor

from .crops import LARGEST_ZOOM, dvae_crop
from .data_arguments import DataArguments
from .rows import CUTOUT_COLUMNS, BrokenRow, Tally, open_picture, row_parts
from ..loop.stopping import deaf
from ..emoji.scenes import draw_scene, sample_scene
from .sources import Source, open_splits

CAPTION_COLUMNS = ("text", "caption")
SCENES = ("scenes", "cached_scenes", "scene_share")  # what a preset asks of them, in `data` and in `training`
STREAMED_VALIDATION = 1000  # pictures of a validation split that are kept in memory where the training split is not


def load_split(data: DataArguments, split: str) -> Source:
    """
    The rows of `data.path`; split is "train" or "validation".

    Raises a ValueError that names the columns when the set has no `image`, or neither captions nor names; or where
    there are not two pictures, one of them to hold out.
    """
    splits = open_splits(data.path, data.streaming)
    hold_out = data.validation_split not in splits
    wanted = data.train_split if split == "train" or hold_out else data.validation_split
    if wanted not in splits:
        raise ValueError(f"{data.path} has no split {wanted!r}: it has {', '.join(splits)}; say --data.train_split")
    pictures = splits[wanted]
    caption_column(data, pictures)
    if len(pictures) < 1 + hold_out:
        need = "two pictures, one of them to hold out" if hold_out else "a picture"
        raise ValueError(f"{data.path} has {len(pictures)} in its split {wanted!r}: a set needs {need}")
    if hold_out:
        pictures = pictures.select(_held_out(len(pictures), held_out=split == "validation"))
    limit = len(pictures) if data.max_pictures is None else data.max_pictures
    if data.streaming and split == "validation":
        limit = min(limit, STREAMED_VALIDATION)
    return pictures.select(range(limit)) if limit < len(pictures) else pictures


def _held_out(count: int, held_out: bool) -> np.ndarray:
    """5 % of the places, from 1 to 1,000, those of the smallest hashes; or the others."""
    hashes = (int.from_bytes(hashlib.sha1(str(i).encode()).digest()[:8]) for i in range(count))
    order = np.argsort(np.fromiter(hashes, np.uint64, count), kind="stable")
    chosen = min(max(count // 20, 1), 1000)
    return np.sort(order[:chosen] if held_out else order[chosen:])


def caption_column(data: DataArguments, pictures: Source) -> str | None:
    """The column of captions; None where they are written from the columns of named cut-outs."""
    columns = pictures.columns
    candidates = [data.text_column] if data.text_column else [*CAPTION_COLUMNS, "name"]
    found = [column for column in candidates if column in columns]
    if "image" not in columns or not found:
        raise ValueError(f"{data.path} has columns {columns}: it needs `image` and one of {candidates}")
    for reader in pictures.readers:
        if reader.lengths and "image" not in reader.columns:
            raise ValueError(f"{reader.path} has columns {reader.columns}: it needs `image`, as other files have it")
    named = data.text_column is None and found[0] == "name" and set(CUTOUT_COLUMNS) <= set(columns)
    return None if named else found[0]


def is_cutouts(pictures: Source, data: DataArguments) -> bool:
    """Whether the set is one of named cut-outs, of which scenes are composed: it has no captions."""
    return caption_column(data, pictures) is None


def fit_scenes(args: Any, say: Callable[[str], None] = print) -> None:
    """
    Takes the scenes that a preset asks for, in `args.data` or `args.training`, as 0 where the set is none of cut-outs,
    of which alone they are composed, and says so in a line. Every command does it that draws from a set.
    """
    asked = [(part, name) for part in (args.data, args.training) for name in SCENES if vars(part).get(name)]
    if not asked or is_cutouts(load_split(args.data, "train"), args.data):
        return
    for part, name in asked:
        setattr(part, name, type(getattr(part, name))())
    names = ", ".join(name for _, name in asked)
    say(f"{args.data.path} has captions and no cut-outs to compose scenes of: {names} taken as 0")


def bytes_decoded(pictures: Source, data: DataArguments, image_size: int) -> int:
    """What `Pictures` takes in memory. With the paper's crops, of squares that are large enough for all of them."""
    if is_cutouts(pictures, data):
        return 4 * len(pictures) * image_size**2
    side = round(LARGEST_ZOOM * image_size) if data.crop == "dalle" else image_size
    return 3 * len(pictures) * side**2


def check_memory(pictures: Source, data: DataArguments, image_size: int) -> None:
    """Raises a ValueError where the machine's processes cannot all hold the pictures."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # as torchrun says
    need, free = processes * bytes_decoded(pictures, data, image_size), psutil.virtual_memory().available
    if need > free:
        raise ValueError(
            f"{len(pictures):,} pictures in the memory of {processes} processes take {need / 2**30:.3g} GiB of the "
            f"{free / 2**30:.3g} that are free: set data.streaming to true"
        )


class Pictures:
    """
    Pictures of a set, decoded once to uint8 and kept in memory: (3, S, S), or cut-outs (S, S, 4) with alpha. Rows that
    cannot be used are left out and counted in `tally`. With the paper's crops a picture keeps what these may show.
    """

    def __init__(self, pictures: Source, data: DataArguments, image_size: int):
        check_memory(pictures, data, image_size)
        self.image_size = image_size
        self.cutouts = is_cutouts(pictures, data)
        self.crops = data.crop == "dalle" and not self.cutouts
        self.processor = DVAEImageProcessor(image_size)
        self.tally = Tally(len(pictures), data.max_broken_share)
        self.images, self.parts = [], []
        column = caption_column(data, pictures)
        for row in tqdm(pictures.rows(), total=len(pictures), desc="decoding", leave=False):
            self.tally.seen += 1
            try:
                parts = row_parts(row, column)
                image = open_picture(row.columns["image"], data)
            except BrokenRow as broken:
                self.tally.add(row, str(broken))
                continue
            self.images.append(self._fit(image))
            self.parts.append(parts)
        if not self.images:
            raise ValueError(f"{data.path} has no picture that can be used: {self.tally} of {len(pictures)} rows")
        if self.tally.broken:
            tqdm.write(f"{self.tally.broken} of {self.tally.seen} rows of {data.path} skipped: {self.tally}")
        self.rows = [parts["things"][0] for parts in self.parts] if self.cutouts else []

    def _fit(self, image: Image.Image) -> np.ndarray:
        if self.cutouts:
            return _cutout(image, self.processor)
        return larger(image, self.processor) if self.crops else np.asarray(self.processor.fit(image))

    def __len__(self) -> int:
        return len(self.images)

    def single(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Picture `index` as it is, its centre: RGB uint8 (S, S, 3) and its parts."""
        parts = self.parts[index]
        if self.cutouts:
            return draw_scene(parts, [self.images[index]], random.Random(0), self.image_size), parts
        return np.asarray(self.processor.fit(self.images[index])) if self.crops else self.images[index], parts

    def drawn(self, index: int, rng: random.Random) -> np.ndarray:
        """Picture `index` as training sees it: a random crop, where the set is drawn so; RGB uint8 (S, S, 3)."""
        if not self.crops:
            return self.single(index)[0]
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1)  # (3, H, W)
        return dvae_crop(image, self.image_size, rng).permute(1, 2, 0).numpy()

    def scene(self, rng: random.Random, held_out: bool = False) -> tuple[np.ndarray, dict[str, Any]]:
        """A composed scene: RGB uint8 (S, S, 3) and its parts. For sets of cut-outs alone."""
        if not self.cutouts:
            raise ValueError(f"scenes need cut-outs, with columns {CUTOUT_COLUMNS} alone: set data.scenes to 0")
        parts = sample_scene(self.rows, rng, heldout=held_out)
        images = [self.images[i] for i in parts["rows"]]
        return draw_scene(parts, images, rng, self.image_size), parts


def _cutout(image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
    premultiplied = image.convert("RGBa").resize((processor.size, processor.size), Image.Resampling.LANCZOS)
    return np.asarray(premultiplied.convert("RGBA"))


def as_it_is(image: Image.Image, parts: dict[str, Any], image_size: int) -> Tensor:
    """uint8 (3, S, S): a picture's centre, or a cut-out, told by its parts, on its ground."""
    processor = DVAEImageProcessor(image_size)
    if "things" not in parts:
        return torch.from_numpy(np.array(processor.fit(image))).permute(2, 0, 1)
    drawn = draw_scene(parts, [_cutout(image, processor)], random.Random(0), image_size)
    return torch.from_numpy(drawn.copy()).permute(2, 0, 1)


def whole(image: Image.Image) -> Tensor:
    """uint8 (3, H, W), transparency on white."""
    return torch.from_numpy(np.array(DVAEImageProcessor(1).on_background(image))).permute(2, 0, 1)


def larger(image: Image.Image, processor: DVAEImageProcessor) -> np.ndarray:
    """RGB uint8 (H, W, 3), whole, the shorter side no larger than the paper's crops need it."""
    image = processor.on_background(image)
    scale = round(LARGEST_ZOOM * processor.size) / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return np.array(image)


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
            image = self.pictures.drawn(shuffled(i, len(self.pictures), self.seed), rng)
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


def in_order(
    dataset: torch.utils.data.Dataset, batch_size: int | None, num_workers: int, collate_fn=None
) -> DataLoader:
    """
    Batches in the dataset's own order; a batch_size of None takes what it yields as it is. Its generator is its own: a
    loader draws a seed for its workers from the global one otherwise, and a resumed run, which makes a second loader,
    would go on with other noise.
    """
    generator = torch.Generator().manual_seed(0)
    loading = {"num_workers": num_workers, "worker_init_fn": deaf, "collate_fn": collate_fn, "generator": generator}
    return DataLoader(dataset, batch_size, **loading)
