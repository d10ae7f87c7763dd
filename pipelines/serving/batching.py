"""The queue: pictures wait in it, and those of equal settings are painted together, a batch at a time.

All of this file but the painting runs on the event loop, so nothing needs a lock. The one thread that paints reports
back with `call_soon_threadsafe`, and reads `Job.dropped`, a flag that is only ever raised.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from ..drawing.settings import SamplingSettings

logger = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Event:
    """A picture of a job, the index-th. partial: which of its partial pictures this is, None for the finished one."""

    index: int
    image: Image.Image
    partial: int | None = None


class Job:
    """What one request asks for: a picture a seed, all of one prompt and settings.

    text_ids, negative_ids: (1, T) int64, of the prompt and of what guidance steers away from, as a rule nothing.
    partial_images: how many partial pictures are reported of each before the finished one.
    `dropped` says that nobody waits for it any more: its pictures leave the queue, and a batch of nothing but dropped
    pictures stops.
    """

    def __init__(
        self,
        text_ids: Tensor,
        negative_ids: Tensor,
        seeds: list[int],
        settings: SamplingSettings,
        partial_images: int = 0,
    ):
        self.text_ids, self.negative_ids = text_ids, negative_ids
        self.settings, self.partial_images = settings, partial_images
        self.pictures = [WorkItem(self, index, seed) for index, seed in enumerate(seeds)]
        self.dropped = False
        self._reports: asyncio.Queue[Event | Exception] = asyncio.Queue()

    def report(self, event: Event) -> None:
        self._reports.put_nowait(event)

    def fail(self, error: Exception) -> None:
        """Nothing more is painted of it, and whoever waits for it gets this error."""
        self.dropped = True
        self._reports.put_nowait(error)

    async def events(self) -> AsyncIterator[Event]:
        """Until all are finished: each picture's partial ones in order, then itself. Raises what `fail` was given."""
        unfinished = len(self.pictures)
        while unfinished:
            report = await self._reports.get()
            if isinstance(report, Exception):
                raise report
            unfinished -= report.partial is None
            yield report


@dataclass(frozen=True, eq=False)
class WorkItem:
    """One picture to paint, the index-th of its job."""

    job: Job
    index: int
    seed: int


Report = Callable[[WorkItem, Event], None]
Paint = Callable[[list[WorkItem], Report], None]


class QueueFull(Exception):
    """retry_after: seconds until there will be room, as far as the last batch tells."""

    def __init__(self, message: str, retry_after: int):
        super().__init__(message)
        self.retry_after = retry_after


class PaintingFailed(Exception):
    """A batch raised what it should not have; the log has it."""


class Batcher:
    """Paints jobs in the order they came, max_batch pictures of equal settings at a time.

    paint: called on a thread as paint(pictures, report); it calls report(picture, event) for each event.
    observe: called as observe(pictures in the batch, seconds it took) after each batch.
    """

    def __init__(
        self, paint: Paint, *, max_batch: int, max_queue: int, batch_wait: float, observe: Callable[[int, float], None]
    ):
        self.paint, self.observe = paint, observe
        self.max_batch, self.max_queue, self.batch_wait = max_batch, max_queue, batch_wait
        self._batch: list[WorkItem] = []  # being painted
        self._queue: deque[WorkItem] = deque()
        self._arrival = asyncio.Event()
        self._seconds = 1.0  # of the last batch

    @property
    def waiting(self) -> int:
        """Pictures in the queue that someone still waits for."""
        return sum(not picture.job.dropped for picture in self._queue)

    def submit(self, job: Job) -> None:
        """Put the job's pictures at the end of the queue. Raises `QueueFull` when there is no room for all of them."""
        waiting = self.waiting
        if waiting + len(job.pictures) > self.max_queue:
            batches = math.ceil((waiting + len(self._batch)) / self.max_batch)
            raise QueueFull(
                f"{waiting} pictures wait and n={len(job.pictures)} more would exceed this server's {self.max_queue}; "
                "try again later",
                retry_after=max(1, math.ceil(batches * self._seconds)),
            )
        self._queue.extend(job.pictures)
        self._arrival.set()

    async def run(self) -> None:
        """Paint until cancelled. A batch that fails fails its own jobs, and the next one is painted all the same."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="painter") as thread:
            try:
                while True:
                    self._batch, start = await self._next_batch(), time.monotonic()
                    try:
                        await loop.run_in_executor(thread, self.paint, self._batch, _from_thread(loop))
                    except Exception:
                        logger.exception("a batch of %d pictures failed", len(self._batch))
                        for job in {picture.job for picture in self._batch}:
                            job.fail(PaintingFailed("the server failed at this picture; its log says how"))
                    self._seconds = time.monotonic() - start
                    self.observe(len(self._batch), self._seconds)
                    self._batch = []
            finally:
                for picture in [*self._batch, *self._queue]:
                    picture.job.dropped = True  # so that the thread stops at its next code

    async def _next_batch(self) -> list[WorkItem]:
        """The first picture that waits, and those behind it that can be painted with it."""
        while True:
            self._queue = deque(picture for picture in self._queue if not picture.job.dropped)
            if self._queue:
                break
            self._arrival.clear()
            await self._arrival.wait()
            await asyncio.sleep(self.batch_wait)
        settings = self._queue[0].job.settings
        batch = list(itertools.islice((p for p in self._queue if p.job.settings == settings), self.max_batch))
        taken = set(batch)
        self._queue = deque(picture for picture in self._queue if picture not in taken)
        return batch


def _from_thread(loop: asyncio.AbstractEventLoop) -> Report:
    return lambda picture, event: loop.call_soon_threadsafe(picture.job.report, event)
