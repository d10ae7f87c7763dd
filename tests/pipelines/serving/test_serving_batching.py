"""The queue and the painter under any order of events: rows rest, go on, are dropped and fail, and nothing is lost."""

import asyncio
import random
import threading
import time

import pytest
import torch
from PIL import Image

from pipelines.drawing.settings import SamplingSettings
from pipelines.serving.batching import BEGUN, Batcher, Event, Job, PaintingFailed, QueueFull
from pipelines.serving.worker import Worker

PROMPTS = ["an armchair", "a red apple", "two cats", "a small sailboat"]


def own_settings(rng: random.Random) -> dict:
    scale = rng.choice([0.0, 1.0, 2.0, 5.0])
    negative = {} if scale == 1 or rng.random() < 0.5 else {"negative_prompt": rng.choice(PROMPTS)}
    return {
        "temperature": rng.choice([0.0, 0.7, 1.3]),
        "top_k": rng.choice([0, 1, 9]),
        "top_p": rng.choice([1.0, 0.6]),
        "guidance_scale": scale,
        **negative,
    }


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_and_goes_a_picture_is_the_pipelines_own(tiny_pipeline, seed):
    """At each pass any of the pictures go on, up to four, and the others rest; some are dropped half painted."""
    rng, worker, painted = random.Random(seed), Worker(tiny_pipeline), {}
    asked, pictures = {}, []
    for number in range(10):
        prompt, settings = rng.choice(PROMPTS), own_settings(rng)
        sampling = {name: value for name, value in settings.items() if name != "negative_prompt"}
        text_ids = tiny_pipeline.encode_prompt(prompt)
        other = settings.get("negative_prompt")
        negative = tiny_pipeline.prior.null(text_ids) if other is None else tiny_pipeline.encode_prompt(other)
        job = Job("", text_ids, negative, [number], tiny_pipeline.settings(**sampling))
        asked[job] = prompt, settings
        pictures += job.pictures
    waiting, dropped = list(pictures), rng.sample(pictures, 3)
    while waiting:
        for picture in worker.step(
            rng.sample(waiting, min(len(waiting), rng.randint(1, 4))),
            lambda picture, event: painted.__setitem__(picture, event.image),
        ):
            waiting.remove(picture)
        if rng.random() < 0.2 and dropped:
            gone = dropped.pop()
            gone.job.dropped = True
            waiting = [picture for picture in waiting if picture is not gone]
    worker.step([], lambda *_: None)
    assert len(painted) >= 7
    for picture, image in painted.items():
        prompt, settings = asked[picture.job]
        own = tiny_pipeline(prompt, seed=picture.seed, progress_bar=False, **settings).images[0]
        assert image.tobytes() == own.tobytes(), (prompt, settings)
    assert not worker._painted and not worker._resting and not worker._seen and len(worker.rows) == 0


class Steps:
    """
    A painter whose pictures take some passes each; one in thirty passes fails. wrong: passes of too many, or of none.
    """

    def __init__(self, rng: random.Random, max_batch: int):
        self.rng, self.max_batch, self.left, self.wrong, self.passes = rng, max_batch, {}, [], 0

    def step(self, pictures, report):
        time.sleep(0.0005)
        if not 0 < len(set(pictures)) == len(pictures) <= self.max_batch:
            self.wrong.append(pictures)
        self.passes += 1
        if self.passes % 30 == 10:
            raise RuntimeError
        self.left = {picture: left for picture, left in self.left.items() if not picture.job.dropped}
        for picture in pictures:
            self.left[picture] = self.left.get(picture, self.rng.randint(1, 4)) - 1
        if len(self.left) > BEGUN * self.max_batch:
            self.wrong.append(list(self.left))
        finished = [picture for picture, left in self.left.items() if left == 0]
        for picture in finished:
            del self.left[picture]
            report(picture, Event(picture.index, Image.new("RGB", (1, 1))))
        return finished

    def forget(self):
        self.left = {}


def test_who_stops_waits_for_no_pass_that_is_stuck():
    begun, go_on = threading.Event(), threading.Event()

    class Stuck:
        def step(self, pictures, report):
            begun.set()
            go_on.wait()
            return []

    async def stop() -> None:
        limits = {"max_batch": 1, "max_queue": 2, "batch_wait": 0.0, "patience": 20.0}
        batcher = Batcher(Stuck(), **limits, observe=lambda *_: None)
        job = Job("", torch.zeros(1, 6), torch.zeros(1, 6), [0], SamplingSettings())
        assert batcher.ends(0), "nothing was painted"
        batcher.submit(job)
        painting = asyncio.create_task(batcher.run())
        await asyncio.to_thread(begun.wait)
        painting.cancel()
        await asyncio.wait([painting])
        with pytest.raises(PaintingFailed):
            _ = [event async for event in job.events()]
        assert not batcher.ends(0)
        go_on.set()
        assert batcher.ends(20)

    try:
        asyncio.run(stop())
    finally:
        go_on.set()


@pytest.mark.parametrize("seed", range(3))
def test_whoever_stays_has_all_pictures_or_an_error(seed):
    rng, max_batch = random.Random(seed), 4
    painter = Steps(random.Random(seed), max_batch)
    batcher = Batcher(
        painter,
        max_batch=max_batch,
        max_queue=12,
        batch_wait=0.0,
        patience=20.0,
        observe=lambda *_: None,
    )
    results = {"all": 0, "failed": 0, "full": 0, "gone": 0}

    async def client(number: int) -> None:
        while painter.passes < number // 2 and batcher.waiting:  # later ones come while others are painted
            await asyncio.sleep(0)
        n = rng.choice([1, 1, 2, 5])
        job = Job("", torch.zeros(1, 6), torch.zeros(1, 6), list(range(n)), SamplingSettings())
        try:
            batcher.submit(job)
        except QueueFull:
            results["full"] += 1
            return
        try:
            async with asyncio.timeout(rng.uniform(0, 0.05) if rng.random() < 0.2 else 20):
                indices = [event.index async for event in job.events()]
            assert sorted(indices) == list(range(n))
            results["all"] += 1
        except PaintingFailed:
            results["failed"] += 1
        except TimeoutError:
            results["gone"] += 1
        finally:
            job.dropped = True

    async def crowd() -> None:
        painting = asyncio.create_task(batcher.run())
        await asyncio.gather(*[client(number) for number in range(120)])
        assert batcher.waiting == 0 and batcher.trouble() is None
        painting.cancel()
        await asyncio.gather(painting, return_exceptions=True)

    asyncio.run(crowd())
    assert painter.wrong == []
    assert sum(results.values()) == 120 and results["all"] > 0 and results["failed"] > 0, results
