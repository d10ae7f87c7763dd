"""What feeds the loops that learn from pictures: from memory, where the set fits it, or streamed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..loop.loop_training import LoopTraining
from .assembled import AssembledPictures
from .data_arguments import DataArguments
from .in_memory import DrawnPictures, Pictures, in_order
from .kinds import Captioned
from .splits import both_splits
from .streaming import StreamedPictures, StreamLoader

TrainingPictures = Pictures | StreamedPictures


def load_pictures(
    data: DataArguments,
    image_size: int,
    accelerator: Accelerator,
    kinds: Sequence[type[Captioned]] = (),
    *,
    captions: bool = True,
    batch_size: int = 1,
) -> tuple[TrainingPictures, Pictures]:
    """
    Those to train on and those held out. On each machine one process finds the files, then all decode at once.
    captions: whether the set must have any. batch_size: of the run, which says where the set is smaller.
    """
    with accelerator.local_main_process_first():
        train, validation = both_splits(data, kinds, captions)
    held = StreamedPictures if data.streaming else Pictures
    pictures = held(train, data, image_size)
    say_if_few(len(pictures), batch_size, accelerator.print)
    return pictures, Pictures(validation, data, image_size)


def say_if_few(pictures: int, batch_size: int, say: Callable[[str], None]) -> None:
    """A set smaller than a batch trains, and is seldom what was meant."""
    if pictures < batch_size:
        say(f"{pictures} pictures to train on are fewer than batch_size={batch_size}: each batch repeats some of them")


def training_batches(
    pictures: TrainingPictures,
    data: DataArguments,
    training: LoopTraining,
    accelerator: Accelerator,
    *,
    length: int,
    flip: bool,
) -> DataLoader | StreamLoader:
    """uint8 (B, 3, S, S) of this process. length: pictures of the run. flip: mirror each with probability ½."""
    in_memory = isinstance(pictures, Pictures)
    drawn = DrawnPictures(pictures, length, training.seed, data.scenes, flip) if in_memory else pictures
    return own_batches(drawn, training, accelerator, flip=flip)


def assembled_batches(
    pictures: TrainingPictures,
    data: DataArguments,
    training: LoopTraining,
    accelerator: Accelerator,
    *,
    length: int,
    flip: bool,
    share: float,
    grid_size: int,
) -> DataLoader | StreamLoader:
    """The same, as `Assembly`, with a share of scenes to be put together on a grid of codes."""
    if not isinstance(pictures, Pictures):
        raise ValueError(f"assembled_share={share} needs cut-outs in memory: set data.streaming to false, or it to 0")
    drawn = DrawnPictures(pictures, length, training.seed, data.scenes, flip)
    assembled = AssembledPictures(drawn, share, grid_size)
    return own_batches(assembled, training, accelerator, collate=assembled.collate)


def own_batches(
    drawn: Dataset | StreamedPictures,
    training: LoopTraining,
    accelerator: Accelerator,
    *,
    flip: bool = False,
    collate: Callable[[list], Any] | None = None,
) -> DataLoader | StreamLoader:
    """This process's batches of draws; a stream, which flips by itself, saves and restores its own place."""
    batch_size = training.local_batch_size(accelerator.num_processes)
    if not isinstance(drawn, StreamedPictures):
        return accelerator.prepare(in_order(drawn, batch_size, training.num_workers, collate))
    return StreamLoader(
        drawn,
        batch_size=batch_size,
        seed=training.seed,
        flip=flip,
        num_workers=training.num_workers,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        collate=collate or torch.stack,
    )


def stream_parts(loader: DataLoader | StreamLoader) -> dict[str, StreamLoader]:
    """What a checkpoint holds of the place in the data: a stream's; in memory the step says it."""
    return {"stream": loader} if isinstance(loader, StreamLoader) else {}


def some_pictures(pictures: TrainingPictures, count: int, seed: int, scenes: float = 0.0) -> Iterator[Tensor]:
    """`count` draws of a seed in batches, uint8 (≤ 64, 3, S, S), the same on every process."""
    if isinstance(pictures, Pictures):
        yield from DataLoader(DrawnPictures(pictures, count, seed, scenes), 64)
        return
    for images in StreamLoader(pictures, batch_size=64, seed=seed):
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return
