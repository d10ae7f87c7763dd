"""Run by torchrun in test_streaming.py: three processes draw an epoch, and again with a stop half-way.

One that stands still, or a worker of it, says where, and ends before the others give it up.
"""

import itertools
import json
import multiprocessing
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from training.pictures.data_arguments import DataArguments
from training.pictures.splits import load_split
from training.pictures.streaming import StreamedPictures, StreamLoader


def places(images) -> list[int]:
    """Row i's picture has the first pixel's red at i (broken_sets.row), its column 2 at 24 pixels' width."""
    return images[:, 0, 0, 0].tolist()


def draw(path: str, num_workers: int, batches: int) -> list[dict]:
    """Of every process: the rows of its batches, and the same with a stop half-way."""
    rank, world = dist.get_rank(), dist.get_world_size()
    data = DataArguments(path=path, streaming=True, validation_split="train", shuffle_buffer=7, max_broken_share=0.5)
    pictures = StreamedPictures(load_split(data, "train"), data, 20)
    sharing = {"batch_size": 3, "seed": 5, "num_workers": num_workers, "process": rank, "processes": world}
    whole, first, second = (StreamLoader(pictures, **sharing) for _ in range(3))
    drawn = [places(images) for images in itertools.islice(whole, batches)]
    half = [places(images) for images in itertools.islice(first, batches // 2)]
    second.load_state_dict(first.state_dict())
    rest = [places(images) for images in itertools.islice(second, batches - batches // 2)]
    states = [None] * world
    dist.all_gather_object(states, {"rows": drawn, "resumed": half + rest})
    return states


def tell_where() -> None:
    """PYTHONFAULTHANDLER, which processes.py sets, shows of each what its threads do."""
    for worker in multiprocessing.active_children():
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGABRT)
    os.abort()


def main() -> None:
    watch = threading.Timer(200, tell_where)
    watch.daemon = True
    watch.start()
    path, batches, report = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", timeout=timedelta(seconds=250))
    states = [draw(path, num_workers, batches) for num_workers in (0, 2)]
    if dist.get_rank() == 0:
        Path(report).write_text(json.dumps(states))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
