"""The service under a crowd: python -m tests.benchmarks.load [--clients 64] [--seconds 60] [--compared 100]

Each client asks again and again, for what a seeded draw says: prompt, n, seed, settings, a stream or not, a size, an
address or the picture itself; some go away while they wait. Nothing may be lost: whoever stays has its n pictures of
its seeds, or a 429. Some pictures are then painted by the pipeline, alone, and compared. Prints a table; exits 1 if
an answer was lost or wrong, or if the service is not as before when all have gone.
"""

import argparse
import asyncio
import base64
import io
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import psutil
from PIL import Image

from pipelines import TextToImagePipeline
from tests.benchmarks.serving import service

PROMPTS = [
    "an armchair shaped like an avocado",
    "red apple",
    "a cat face beside a red apple",
    "SAILBOAT, 3d",
    "a house with a garden on a blue background",
    "猫",
    "a very long prompt of far more words than this model's text tokens hold " * 4,
]
GOES = 0.15  # share of requests whose client goes
IMPATIENT = 15.0  # seconds after which, at the latest, it does
TIMEOUT = 600.0  # seconds that a request may take: what is lost is asked here, not how fast this machine is


@dataclass(frozen=True)
class Asked:
    """A request. goes: seconds after which its client goes, None for one that stays."""

    prompt: str
    n: int
    seed: int
    settings: dict[str, Any]
    packed: dict[str, Any]
    goes: float | None


@dataclass
class Tally:
    """What came of it. seconds: by n, of each answer with pictures. painted: request, index and PNG's pixels."""

    sent: int = 0
    answers: Counter = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    seconds: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: [], 4: [], 10: []})
    painted: list[tuple[Asked, int, bytes]] = field(default_factory=list)


def draw(rng: random.Random) -> Asked:
    settings = {
        "temperature": rng.choice([None, 0.0, 0.7, 1.0, 1.3]),
        "top_k": rng.choice([None, 0, 1, 12]),
        "top_p": rng.choice([None, 0.5, 0.95]),
        "min_p": rng.choice([None, 0.05]),
        "guidance_scale": rng.choice([None, 0.0, 1.0, 2.0, 5.0]),
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if settings.get("guidance_scale") != 1.0 and rng.random() < 0.2:
        settings["negative_prompt"] = rng.choice(PROMPTS)
    n, packed = rng.choices([1, 2, 4, 10], [12, 4, 3, 1])[0], {"output_format": "png"}
    if n == 1 and rng.random() < 0.3:
        packed |= {"stream": True, "partial_images": rng.randrange(4)}
    elif rng.random() < 0.3:
        packed |= {"response_format": "url"}
    if rng.random() < 0.2:
        packed |= {"size": "256x256"}
    goes = rng.uniform(0, IMPATIENT) if rng.random() < GOES else None
    return Asked(rng.choice(PROMPTS), n, rng.randrange(2**53), settings, packed, goes)


async def files_of(client: openai.AsyncOpenAI, asked: Asked) -> list[bytes]:
    """The pictures of the answer in their order. Raises AssertionError where it is not what was asked for."""
    more = {"seed": asked.seed, **asked.settings}
    answer = await client.images.generate(prompt=asked.prompt, n=asked.n, extra_body=more, **asked.packed)
    if asked.packed.get("stream"):
        events = [event async for event in answer]
        partial = [event.partial_image_index for event in events[:-1]]
        assert partial == list(range(asked.packed["partial_images"])), f"partial pictures {partial}"
        assert events[-1].seed == asked.seed, f"seed {events[-1].seed}"
        return [base64.b64decode(events[-1].b64_json)]
    seeds = [one.seed for one in answer.data]
    assert seeds == [asked.seed + i for i in range(asked.n)], f"seeds {seeds}"
    if asked.packed.get("response_format") == "url":
        async with httpx.AsyncClient() as web:
            return [(await web.get(one.url)).raise_for_status().content for one in answer.data]
    return [base64.b64decode(one.b64_json) for one in answer.data]


async def ask(client: openai.AsyncOpenAI, asked: Asked, tally: Tally) -> None:
    tally.sent += 1
    start = time.monotonic()
    try:
        async with asyncio.timeout(asked.goes):
            files = await files_of(client, asked)
    except TimeoutError:
        tally.answers["gone"] += 1
    except openai.RateLimitError as error:
        tally.answers["429"] += 1
        await asyncio.sleep(min(int(error.response.headers["Retry-After"]), 5))
    except (openai.APIError, httpx.HTTPError, AssertionError) as error:
        tally.lost.append(f"{type(error).__name__}: {error}")
    else:
        tally.answers["200"] += 1
        tally.seconds[asked.n].append(time.monotonic() - start)
        for index, file in enumerate(files):
            with Image.open(io.BytesIO(file)) as image:
                tally.painted.append((asked, index, image.tobytes()))


async def crowd(address: str, clients: int, seconds: float, tally: Tally, pid: int) -> tuple[list[int], dict]:
    """The server's memory twice a second while the crowd asks, and what its health says once all have gone."""
    end, memory = time.monotonic() + seconds, []

    async def one_client(number: int) -> None:
        rng = random.Random(number)
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=2 * TIMEOUT) as client:
            while time.monotonic() < end:
                await ask(client, draw(rng), tally)

    asking = asyncio.gather(*[one_client(number) for number in range(clients)])
    while not asking.done():
        memory.append(psutil.Process(pid).memory_info().rss)
        await asyncio.sleep(0.5)
    await asking
    await asyncio.sleep(1)  # for those that have just gone to be noticed
    async with httpx.AsyncClient(base_url=address.removesuffix("/v1")) as web:
        return memory, (await web.get("/ready")).json()


def wrong_ones(pipeline: TextToImagePipeline, painted: list[tuple[Asked, int, bytes]]) -> list[str]:
    """Those whose pixels are not what the pipeline paints, one after the other."""
    wrong = []
    for asked, index, pixels in painted:
        seed = asked.seed + index
        image = pipeline(asked.prompt, seed=seed, progress_bar=False, **asked.settings).images[0]
        if side := int(asked.packed.get("size", "0x").split("x")[0]):
            image = image.resize((side, side), Image.Resampling.LANCZOS)
        if image.tobytes() != pixels:
            wrong.append(f"{asked.prompt[:40]!r}, seed {seed}, {asked.settings}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--compared", type=int, default=100, help="pictures that the pipeline paints, too")
    args = parser.parse_args()
    tally = Tally()
    with service(args.model, "--timeout", str(TIMEOUT)) as (address, server):
        memory, after = asyncio.run(crowd(address, args.clients, args.seconds, tally, server.pid))
        server.terminate()
        code = server.wait(timeout=60)
    random.Random(0).shuffle(tally.painted)
    compared = tally.painted[: args.compared]
    wrong = wrong_ones(TextToImagePipeline.from_pretrained(args.model), compared)
    one = sorted(tally.seconds[1])
    third = max(len(memory) // 3, 1)
    print(
        f"""
| {args.clients} clients for {args.seconds:.0f} s | |
| --- | ---: |
| requests sent | {tally.sent} |
| painted (200), and their pictures | {tally.answers["200"]}, {len(tally.painted)} |
| refused (429) / client gone | {tally.answers["429"]} / {tally.answers["gone"]} |
| lost, or any other answer | {len(tally.lost)} |
| pictures compared / wrong | {len(compared)} / {len(wrong)} |
| seconds to an n=1 answer, median and 99 % | {statistics.median(one):.1f}, {one[int(0.99 * len(one))]:.1f} |
| server's memory, first and last third at most, MiB | {max(memory[:third]) >> 20}, {max(memory[-third:]) >> 20} |
| after it | {after} |
| exit code after SIGTERM | {code} |"""
    )
    print(*tally.lost, *wrong, sep="\n")
    return int(bool(tally.lost or wrong) or after != {"status": "ok", "waiting": 0} or code != 0)


if __name__ == "__main__":
    sys.exit(main())
