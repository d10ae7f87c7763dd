"""Pictures decoded when they are drawn: shared among lanes, shuffled, resumed at the example where a run stopped.

A lane is one worker of one process. In an epoch the units of the set are shuffled by its seed, the rows of each unit
too, and the whole is cut into one span of rows a lane: equal to within one row, so that no row is drawn twice or left
out, whatever the files' sizes, and few units are read by two lanes. A lane reads its span a block of `shuffle_buffer`
rows at a time and draws from the block in a random order. An epoch follows the other without end. The last batch of
an epoch is filled from the next.

                 units, shuffled by the epoch  | 7 7 7 7 7 7 | 2 2 2 2 | 9 9 9 9 9 | 4 4 …
                 lanes                         | 0 0 0 0 0 0 0 0 | 1 1 1 1 1 1 1 1 | 2 …
                 blocks of lane 1                                | a a a a a | b b b |
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from dvae import DVAEImageProcessor

from ..loop.endless import EndlessLoader
from ..loop.stopping import deaf
from .crops import dvae_crop
from .data_arguments import DataArguments
from .in_memory import as_it_is, whole
from .readers import Row
from .rows import BrokenRow, Tally, open_picture
from .sources import Source
from .splits import Split


class Place(NamedTuple):
    """Where a lane stands: its epoch, and how many rows of its span it has been through."""

    epoch: int = 0
    rows: int = 0


class LaneBatch(NamedTuple):
    """
    drawn: uint8 (B, 3, S, S), or what `collate` made. place: the lane's after it. seen: rows it took. skipped: names,
    reasons.
    """

    drawn: Any
    place: Place
    seen: int
    skipped: list[tuple[str, str]]


def epoch_rows(
    source: Source, seed: int, epoch: int, lane: int, lanes: int, buffer: int, skip: int = 0
) -> Iterator[Row]:
    """A lane's rows of an epoch in order, but for the first `skip`; blocks that are skipped whole are not read."""
    units = np.random.default_rng([seed, epoch]).permutation(len(source.units))
    span = list(span_rows(source, seed, epoch, units, lane, lanes))  # [(unit, rows of it)]
    pairs = np.concatenate([np.stack([np.full_like(rows, unit), rows], axis=1) for unit, rows in span])
    held: dict[int, Sequence[Row]] = {}
    for start in range(skip // buffer * buffer, len(pairs), buffer):
        block = pairs[start : start + buffer]
        block = block[np.random.default_rng([seed, epoch, lane, start]).permutation(len(block))]
        held = {unit: held.get(unit) or source.read(unit) for unit in np.unique(block[:, 0]).tolist()}
        for unit, row in block[max(skip - start, 0) :].tolist():
            yield held[unit][row]


def span_rows(
    source: Source, seed: int, epoch: int, units: np.ndarray, lane: int, lanes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The units that a lane's span meets, and which rows of each are the lane's."""
    total = len(source)
    first, last = lane * total // lanes, (lane + 1) * total // lanes
    start = 0
    for unit in units.tolist():
        rows = source.own_rows(unit)
        lo, hi = max(first - start, 0), min(last - start, len(rows))
        start += len(rows)
        if lo < hi:
            yield unit, np.random.default_rng([seed, epoch, unit]).permutation(rows)[lo:hi]


class StreamedPictures:
    """
    The pictures of a set, none of them decoded before it is drawn. Raises a ValueError where scenes are asked for,
    which are composed of pictures in memory.
    """

    def __init__(self, source: Split, data: DataArguments, image_size: int):
        if data.scenes > 0:
            raise ValueError(
                f"scenes={data.scenes} are composed of cut-outs in memory: set data.streaming to false, or "
                "data.scenes to 0"
            )
        self.source, self.data, self.image_size, self.kind = source, data, image_size, source.kind
        self.processor = DVAEImageProcessor(image_size)

    def __len__(self) -> int:
        return len(self.source)

    def draw(self, row: Row, rng: random.Random) -> Tensor:
        """uint8 (3, S, S), a crop as training sees it. Raises BrokenRow."""
        parts = self.kind.parts(row)
        image = open_picture(row.columns["image"], self.data)
        if self.data.crop == "center" or not self.kind.crops:
            return as_it_is(image, parts, self.kind, self.processor)
        return dvae_crop(whole(image), self.image_size, rng)


class LaneBatches(IterableDataset):
    """Batches of one process's lanes, without end; a lane goes on where its `Place` says."""

    def __init__(
        self,
        pictures: StreamedPictures,
        *,
        batch_size: int,
        seed: int,
        flip: bool,
        own_lanes: range,
        lanes: int,
        collate: Callable[[list], Any] = torch.stack,
    ):
        self.pictures, self.batch_size, self.seed, self.flip = pictures, batch_size, seed, flip
        self.collate = collate
        self.first_lane, self.lanes = own_lanes.start, lanes
        self.places = [Place()] * len(own_lanes)
        self.turn = 0  # which of them gives the next batch

    def __iter__(self) -> Iterator[LaneBatch]:
        worker = get_worker_info()
        own = (self.turn + (worker.id if worker else 0)) % len(self.places)
        rows = self._rows(self.first_lane + own, self.places[own])
        tally = Tally(
            self.pictures.source.whole, self.pictures.data.max_broken_share, quiet=True
        )  # as a lane meets clusters
        while True:
            drawn, skipped, seen = [], [], tally.seen
            while len(drawn) < self.batch_size:
                place, row = next(rows)
                tally.seen += 1
                try:
                    drawn.append(self._draw(row, place.epoch))
                except BrokenRow as broken:
                    skipped.append((broken.at(row).where, str(broken)))
                    tally.add(broken.at(row), str(broken))
            yield LaneBatch(self.collate(drawn), place, tally.seen - seen, skipped)

    def _rows(self, lane: int, place: Place) -> Iterator[tuple[Place, Row]]:
        """The lane's rows from a place on, each with the place after it."""
        source, buffer, skip = self.pictures.source, self.pictures.data.shuffle_buffer, place.rows
        for epoch in itertools.count(place.epoch):
            rows = epoch_rows(source, self.seed, epoch, lane, self.lanes, buffer, skip)
            for done, row in enumerate(rows, skip + 1):
                yield Place(epoch, done), row
            skip = 0

    def _draw(self, row: Row, epoch: int) -> Any:
        """The crop and the flip depend on (seed, epoch, row) alone."""
        rng = random.Random(f"{self.seed}-{epoch}-{row.where}")
        drawn = self.pictures.draw(row, rng)
        return drawn.flip(-1) if self.flip and rng.random() < 0.5 else drawn


class StreamLoader(EndlessLoader):
    """
    Batches uint8 (B, 3, S, S), or what `collate` makes of a list of draws, of one process: from `num_workers` workers,
    or from itself where these are 0.

    It is a part of a checkpoint: its state holds the places of every process's lanes after the batches that
    were taken, however many the workers have made ahead. On as many processes and workers, with the same seed and
    shuffle_buffer, it goes on with the very next batch; with others with the epoch after the furthest, so that still
    no row is drawn twice in an epoch. How many rows it skipped it prints where it ends.
    """

    def __init__(
        self,
        pictures: StreamedPictures,
        *,
        batch_size: int,
        seed: int,
        flip: bool = False,
        num_workers: int = 0,
        process: int = 0,
        processes: int = 1,
        collate: Callable[[list], Any] = torch.stack,
    ):
        self.num_workers, self.process, self.processes = num_workers, process, processes
        own = max(num_workers, 1)
        if len(pictures) < processes * own:
            raise ValueError(
                f"{len(pictures)} rows cannot be shared among {processes} processes × {own} workers: take fewer "
                "num_workers"
            )
        self.batches = LaneBatches(
            pictures,
            batch_size=batch_size,
            seed=seed,
            flip=flip,
            own_lanes=range(process * own, (process + 1) * own),
            lanes=processes * own,
            collate=collate,
        )
        self.tally = Tally(pictures.source.whole, pictures.data.max_broken_share)

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(0)  # its own: a loader draws a seed from the global one otherwise
        lanes = self.batches
        loading = {"num_workers": self.num_workers, "worker_init_fn": deaf, "generator": generator}
        try:
            for batch in DataLoader(lanes, batch_size=None, **loading):
                lanes.places[lanes.turn] = batch.place
                lanes.turn = (lanes.turn + 1) % len(lanes.places)
                self.tally.count(batch.seen, batch.skipped)
                self.tally.check()
                yield batch.drawn
        finally:
            if self.tally.broken:
                path = lanes.pictures.data.path
                tqdm.write(f"{self.tally.broken} of {self.tally.seen} rows of {path} skipped: {self.tally}")

    def state_dict(self) -> dict[str, Any]:
        """The same on every process: each process's places, whose turn it is, and what it has skipped."""
        own = {"places": [tuple(place) for place in self.batches.places], "turn": self.batches.turn}
        own |= {"seen": self.tally.seen, "skipped": dict(self.tally.reasons)}
        states = [own] * self.processes
        if self.processes > 1:
            torch.distributed.all_gather_object(states, own)
        return {"processes": states, "order": self._order()}

    def _order(self) -> dict[str, int]:
        """What the order of an epoch's rows depends on beside the lanes."""
        return {"seed": self.batches.seed, "shuffle_buffer": self.batches.pictures.data.shuffle_buffer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        states, lanes = state["processes"], self.batches
        same = len(states) == self.processes and len(states[0]["places"]) == len(lanes.places)
        if same and state.get("order") == self._order():
            own = states[self.process]
            lanes.places, lanes.turn = [Place(*place) for place in own["places"]], own["turn"]
            self.tally.seen = own["seen"]
            self.tally.reasons.update(own["skipped"])
        else:
            furthest = max(epoch for other in states for epoch, _ in other["places"])
            lanes.places, lanes.turn = [Place(furthest + 1)] * len(lanes.places), 0
