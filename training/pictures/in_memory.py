"""Captioned pictures: from any set that `sources` opens, to batches that depend on the seed and the place alone.

Picture i of a run is drawn by a generator seeded with (seed, i): the same picture whatever the number of workers or
processes, and whether or not the run was stopped before.
"""

import functools
import os
import random

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from dvae import DVAEImageProcessor

from ..loop.stopping import deaf
from .crops import LARGEST_ZOOM, dvae_crop
from .data_arguments import DataArguments
from .kinds import Captioned, Composer, Parts, parts_of
from .layouts import LaidOut
from .rows import BrokenRow, Tally, open_picture
from .splits import Split


def bytes_decoded(pictures: Split, data: DataArguments, image_size: int) -> int:
    """What `Pictures` takes in memory. With the paper's crops, of squares that are large enough for all of them."""
    kind = pictures.kind
    side = round(LARGEST_ZOOM * image_size) if data.crop == "dalle" and kind.crops else image_size
    return kind.channels * len(pictures) * side**2


def check_memory(pictures: Split, data: DataArguments, image_size: int) -> None:
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
    Pictures of a set, decoded once to uint8 and kept in memory, (3, S, S), or (S, S, 4) with alpha where scenes are
    composed of them. Rows that cannot be used are left out and counted in `tally`. With the paper's crops a picture
    keeps what these may show.
    """

    def __init__(self, pictures: Split, data: DataArguments, image_size: int):
        check_memory(pictures, data, image_size)
        self.source, self.data, self.image_size = pictures, data, image_size
        self.kind, self.scene_kinds = pictures.kind, data.scene_kinds
        self.crops = data.crop == "dalle" and self.kind.crops
        self.processor = DVAEImageProcessor(image_size)
        self.tally = Tally(pictures.whole, data.max_broken_share)
        self.images, self.parts = [], []
        for row in tqdm(pictures.rows(), total=len(pictures), desc="decoding", leave=False):
            self.tally.seen += 1
            try:
                parts = self.kind.parts(row)
                image = open_picture(row.columns["image"], data)
            except BrokenRow as broken:
                self.tally.add(broken.at(row), str(broken))
                continue
            self.images.append(larger(image, self.processor) if self.crops else self.kind.keep(image, self.processor))
            self.parts.append(parts)
        if len(pictures) and not self.images:
            raise ValueError(f"{data.path} has no picture that can be used: {self.tally} of {len(pictures)} rows")
        if self.tally.broken:
            tqdm.write(f"{self.tally.broken} of {self.tally.seen} rows of {data.path} skipped: {self.tally}")

    def __len__(self) -> int:
        return len(self.images)

    def single(self, index: int) -> tuple[np.ndarray, Parts]:
        """Picture `index` as it is, its centre: RGB uint8 (S, S, 3) and its parts."""
        image, parts = self.images[index], self.parts[index]
        return np.asarray(self.processor.fit(image)) if self.crops else self.kind.show(image, parts), parts

    def captions(self, count: int) -> list[str]:
        """A caption of each of the first `count` pictures, always the same."""
        return [self.kind.caption(parts, random.Random(i)) for i, parts in enumerate(self.parts[:count])]

    def drawn(self, index: int, rng: random.Random) -> np.ndarray:
        """Picture `index` as training sees it: a random crop, where the set is drawn so; RGB uint8 (S, S, 3)."""
        if not self.crops:
            return self.single(index)[0]
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1)  # (3, H, W)
        return dvae_crop(image, self.image_size, rng).permute(1, 2, 0).numpy()

    @functools.cached_property
    def composer(self) -> Composer:
        """Raises a ValueError where the set composes no scenes."""
        return self.kind.composer(self.parts, self.images).weigh(self.scene_kinds)

    @property
    def laid_out(self) -> LaidOut:
        """The composer of a set whose kind `lays_out`."""
        composer = self.composer
        assert isinstance(composer, LaidOut)
        return composer

    def scene(self, rng: random.Random, held_out: bool = False) -> tuple[np.ndarray, Parts]:
        """A scene that the set composes: RGB uint8 (S, S, 3) and its parts."""
        image, caption = self.composer.draw(rng, held_out)
        return np.asarray(self.processor.fit(image)), parts_of(caption)


def as_it_is(image: Image.Image, parts: Parts, kind: Captioned, processor: DVAEImageProcessor) -> Tensor:
    """uint8 (3, S, S): a picture's centre, or a cut-out on its ground."""
    return torch.from_numpy(kind.show(kind.keep(image, processor), parts).copy()).permute(2, 0, 1)


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
