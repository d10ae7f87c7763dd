"""The queue: pictures wait in it, and at every pass of the painter it says which are painted.

All of this file but the painting runs on the event loop, so nothing needs a lock. The one thread that paints reports
back with `call_soon_threadsafe`, and reads `Job.dropped`, a flag that is only ever raised.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from ..drawing.settings import SamplingSettings

logger = logging.getLogger("uvicorn.error")

FAILING = 3  # passes that fail one after the other say that the next one will, too
BEGUN = 2  # times as many pictures as are painted at once may be begun: those that rest take memory


@dataclass(frozen=True)
class Event:
    """A picture of a job, the index-th. partial: which of its partial pictures this is, None for the finished one."""

    index: int
    image: Image.Image
    partial: int | None = None


class Job:
    """What one request asks for: a picture a seed, all of one prompt and settings.

    request_id: what the log calls it.
    text_ids, negative_ids: (1, T) int64, of the prompt and of what guidance steers away from, as a rule nothing.
    partial_images: how many partial pictures are reported of each before the finished one.
    `dropped` says that nobody waits for it any more: its pictures leave the queue and the painter.
    """

    def __init__(
        self,
        request_id: str,
        text_ids: Tensor,
        negative_ids: Tensor,
        seeds: list[int],
        settings: SamplingSettings,
        partial_images: int = 0,
    ):
        self.request_id = request_id
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


Report = Callable[[WorkItem, Event], object]


class Painter(Protocol):
    def step(self, pictures: list[WorkItem], report: Report) -> list[WorkItem]:
        """A pass of these pictures, begun or gone on with; the others rest. Returns those that are finished.

        Called on a thread. Calls report(picture, event) for each event.
        """
        ...

    def forget(self) -> None:
        """After a pass that failed: nothing is begun."""
        ...


class QueueFull(Exception):
    """retry_after: seconds until there will be room, as far as the pictures so far tell."""

    def __init__(self, message: str, retry_after: int):
        super().__init__(message)
        self.retry_after = retry_after


class PaintingFailed(Exception):
    """A pass raised what it should not have; the log has it."""

    def __init__(self):
        super().__init__("the server failed at this request; its log says how")


class Batcher:
    """Paints up to max_batch pictures at once, of any settings; at every pass some may join and some leave.

    Requests take turns, a picture each, the oldest first: so none waits for another's second picture, and while one
    has no picture yet, none has two painted at once.

    patience: seconds of one pass after which it is taken for stuck.
    observe: called as observe(pictures of the pass, how many it finished, seconds it took) after each pass.
    """

    def __init__(
        self,
        painter: Painter,
        *,
        max_batch: int,
        max_queue: int,
        batch_wait: float,
        patience: float,
        observe: Callable[[int, int, float], None],
    ):
        self.painter, self.observe = painter, observe
        self.max_batch, self.max_queue, self.batch_wait, self.patience = max_batch, max_queue, batch_wait, patience
        self._unfinished: dict[Job, list[WorkItem]] = {}  # of each request, by age; those begun come first
        self._begun: set[WorkItem] = set()
        self._arrival = asyncio.Event()
        self._seconds, self._finished = 0.0, 0  # of all passes
        self._pass: Future[Any] | None = None  # the last one, on the painter's thread
        self._pass_start: float | None = None  # of the one that is being painted
        self._failed = 0  # passes, since one did not
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Pictures that someone still waits for and that are not begun."""
        return sum(
            picture not in self._begun
            for job, pictures in self._unfinished.items()
            if not job.dropped
            for picture in pictures
        )

    @property
    def has_room(self) -> bool:
        """For a picture more."""
        return self.waiting < self.max_queue

    def trouble(self) -> str | None:
        """Why this process had better be started anew; None while it paints, or has nothing to paint."""
        if self._stopped:
            return "the painter has stopped; the log says why"
        if self._pass_start is not None and (seconds := time.monotonic() - self._pass_start) > self.patience:
            return f"the painter is stuck: a pass has taken {seconds:.0f} s, of the {self.patience} of a whole request"
        if self._failed >= FAILING:
            return f"the last {self._failed} passes failed; the log says how"
        return None

    def submit(self, job: Job) -> None:
        """Put the job's pictures into the queue. Raises `QueueFull` when there is no room for all of them, and
        `PaintingFailed` when nothing is painted any more.
        """
        if self._stopped:
            raise PaintingFailed
        waiting = self.waiting
        if waiting + len(job.pictures) > self.max_queue:
            seconds = self._seconds / self._finished if self._finished else 1.0  # a picture
            raise QueueFull(
                f"{waiting} pictures wait and n={len(job.pictures)} more would exceed this server's {self.max_queue}; "
                "try again later",
                retry_after=max(1, math.ceil((waiting + len(self._begun)) * seconds)),
            )
        self._unfinished[job] = list(job.pictures)
        self._arrival.set()

    async def run(self) -> None:
        """Paint until cancelled, which waits for no pass. One that fails fails the jobs that are begun alone."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="painter")
        try:
            while True:
                await self._paint(await self._next_pass(), thread)
        except asyncio.CancelledError:
            raise
        except BaseException:
            logger.critical("nothing is painted any more", exc_info=True)
            raise
        finally:
            self._stopped = True
            for job in self._unfinished:
                job.fail(PaintingFailed())
            thread.shutdown(wait=False, cancel_futures=True)

    def ends(self, seconds: float) -> bool:
        """After `run`: whether the pass that was being painted ends within so many seconds."""
        return self._pass is None or not wait([self._pass], timeout=seconds).not_done

    async def _paint(self, pictures: list[WorkItem], thread: ThreadPoolExecutor) -> None:
        """One pass."""
        loop, finished = asyncio.get_running_loop(), []
        start = self._pass_start = time.monotonic()
        try:
            self._pass = thread.submit(self.painter.step, pictures, _from_thread(loop))
            finished = await asyncio.wrap_future(self._pass)
            self._failed = 0
        except Exception:
            self._failed += 1
            jobs = {picture.job for picture in self._begun}
            logger.exception("a pass failed, of requests %s", ", ".join(job.request_id for job in jobs))
            for job in jobs:
                job.fail(PaintingFailed())
            await loop.run_in_executor(thread, self.painter.forget)
        finally:
            self._pass_start = None
        self._leave(finished)
        seconds = time.monotonic() - start
        self._seconds, self._finished = self._seconds + seconds, self._finished + len(finished)
        self.observe(len(pictures), len(finished), seconds)

    async def _next_pass(self) -> list[WorkItem]:
        """Which pictures are painted next."""
        while True:
            for job in [job for job in self._unfinished if job.dropped]:
                self._begun -= set(self._unfinished.pop(job))
            if self._unfinished:
                break
            self._arrival.clear()
            await self._arrival.wait()
            await asyncio.sleep(self.batch_wait)
        room, pictures = BEGUN * self.max_batch - len(self._begun), []
        for picture in deal(list(self._unfinished.values()), self.max_batch):
            room -= picture not in self._begun
            if picture in self._begun or room >= 0:
                pictures.append(picture)
        self._begun |= set(pictures)
        return pictures

    def _leave(self, finished: list[WorkItem]) -> None:
        for picture in finished:
            self._begun.discard(picture)
            if picture.job in self._unfinished:
                self._unfinished[picture.job].remove(picture)
                if not self._unfinished[picture.job]:
                    del self._unfinished[picture.job]


def deal(requests: list[list[WorkItem]], places: int) -> list[WorkItem]:
    """Who of the unfinished pictures of each request, oldest first, is painted: each request one in turn.

    Only one of each, while one of them has no finished picture yet, so that first answers come soon.
    """
    first = any(len(pictures) == len(pictures[0].job.pictures) for pictures in requests)
    rounds = 1 if first and len(requests) > 1 else places
    turns = [pictures[i] for i in range(rounds) for pictures in requests if i < len(pictures)]
    return turns[:places]


def _from_thread(loop: asyncio.AbstractEventLoop) -> Report:
    return lambda picture, event: loop.call_soon_threadsafe(picture.job.report, event)
