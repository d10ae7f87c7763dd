"""The service under load, on this machine alone: python tests/benchmarks/serving.py [--model NAME] [--seconds 40]

Starts `python -m pipelines serve`, measures what it paints when asked one by one and when asked at once, and how long
one picture takes behind large requests, then asks for four times as much for a while. Each picture that comes back is
compared with the one that the pipeline paints for its prompt and seed, alone. Prints a table; exits 1 if an answer was
lost or wrong.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

import openai
import psutil
from PIL import Image

from pipelines import TextToImagePipeline

PROMPTS = ["an armchair shaped like an avocado", "red apple", "sailboat", "a cat face beside a red apple"]
SEEDS = range(4)
MAX_BATCH, MAX_QUEUE, AT_ONCE, OVERLOAD = 8, 24, 16, 4  # 24 may wait: two requests of ten, and some


@contextlib.contextmanager
def service(model: str | None, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """`python -m pipelines serve` on a free port, and the address that its clients are given."""
    named = ["--model", model] if model else []
    command = [sys.executable, "-m", "pipelines", "serve", "--port", "0", "--no-access-log", *options, *named]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield server.stdout.readline().split()[3], server
    finally:
        server.kill()


@dataclass
class Tally:
    """What came back. painted: (prompt, seed, the picture's pixels) of each 200; seconds: of each 200."""

    sent: int = 0
    answers: Counter = field(default_factory=Counter)
    painted: list[tuple[str, int, bytes]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


async def ask(client: openai.AsyncOpenAI, prompt: str, seed: int, tally: Tally) -> None:
    tally.sent += 1
    start = time.monotonic()
    try:
        answer = await client.images.generate(prompt=prompt, extra_body={"seed": seed})
    except openai.APIStatusError as error:
        tally.answers[error.status_code] += 1
        return
    except openai.APIConnectionError as error:
        tally.answers[repr(error.__cause__)] += 1
        return
    tally.answers[200] += 1
    tally.seconds.append(time.monotonic() - start)
    with Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))) as image:
        tally.painted.append((prompt, seed, image.tobytes()))


async def throughput(client: openai.AsyncOpenAI, at_once: int, number: int, tally: Tally) -> float:
    """Pictures a second with so many clients, each asking again when it has its answer."""
    orders = itertools.islice(itertools.cycle(itertools.product(PROMPTS, SEEDS)), number)

    async def one_client() -> None:
        for prompt, seed in orders:
            await ask(client, prompt, seed, tally)

    start = time.monotonic()
    await asyncio.gather(*[one_client() for _ in range(at_once)])
    return number / (time.monotonic() - start)


async def together_seconds(*asked: Awaitable[object]) -> list[float]:
    """Seconds until each of these answers, begun in this order, is there."""
    start = time.monotonic()

    async def seconds(answer: Awaitable[object]) -> float:
        await answer
        return time.monotonic() - start

    return await asyncio.gather(*[seconds(answer) for answer in asked])


async def fairness(client: openai.AsyncOpenAI, rounds: int = 3) -> dict[str, float]:
    """Medians, in seconds: one picture alone, behind two requests of ten; four seeds of one setting, and of four."""

    async def paint(n: int = 1, seed: int = 0, **more: float) -> None:
        await client.images.generate(prompt=PROMPTS[0], n=n, extra_body={"seed": seed, **more})

    async def later() -> float:
        await asyncio.sleep(0.3)
        start = time.monotonic()
        await paint()
        return time.monotonic() - start

    times: dict[str, list[float]] = {"alone": [], "behind": [], "alike": [], "different": []}
    for _ in range(rounds):
        times["alone"] += await together_seconds(paint())
        times["behind"].append((await asyncio.gather(later(), paint(10), paint(10)))[0])
        for name, scales in {"alike": [2.0] * 4, "different": [1.5, 2.0, 3.0, 4.0]}.items():
            four = [paint(seed=seed, guidance_scale=scale) for seed, scale in enumerate(scales)]
            times[name].append(max(await together_seconds(*four)))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


async def overload(client: openai.AsyncOpenAI, rate: float, seconds: float, tally: Tally, memory: list[int], pid: int):
    """Ask `rate` times a second, whether or not answers come, and note the server's memory twice a second."""
    server, asked = psutil.Process(pid), []
    orders = itertools.cycle(itertools.product(PROMPTS, SEEDS))
    start = time.monotonic()
    for i in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + i / rate - time.monotonic()))
        asked.append(asyncio.create_task(ask(client, *next(orders), tally)))
        if time.monotonic() - start > 0.5 * len(memory):
            memory.append(server.memory_info().rss)
    await asyncio.gather(*asked)
    memory.append(server.memory_info().rss)


async def refused(client: openai.AsyncOpenAI) -> int:
    """429s by the server's own count."""
    text = await client.with_options(base_url=str(client.base_url).removesuffix("v1/")).get("/metrics", cast_to=str)
    found = re.search(r'^armchair_requests_total\{route="generate_images",status="429"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


async def measure(address: str, pid: int, seconds: float) -> tuple[dict, Tally, Tally, list[int]]:
    calm, pressed, memory = Tally(), Tally(), []
    async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=120) as client:
        await throughput(client, AT_ONCE, AT_ONCE, Tally())  # warm-up
        alone, together = [], []
        for _ in range(3):  # in turn, so that what else the machine does hits both
            alone.append(await throughput(client, 1, 4, calm))
            together.append(await throughput(client, AT_ONCE, AT_ONCE, calm))
        rates = {"alone": statistics.median(alone), "together": statistics.median(together)}
        rates["fair"] = await fairness(client)
        await overload(client, OVERLOAD * rates["together"], seconds, pressed, memory, pid)
        rates["refused"] = await refused(client)
    return rates, calm, pressed, memory


def count_wrong(pipeline: TextToImagePipeline, painted: list[tuple[str, int, bytes]]) -> int:
    """Pictures that differ from the one of their prompt and seed, painted alone here."""
    expected = {
        (prompt, seed): pipeline(prompt, seed=seed, progress_bar=False).images[0].tobytes()
        for prompt, seed in {(prompt, seed) for prompt, seed, _ in painted}
    }
    return sum(expected[prompt, seed] != pixels for prompt, seed, pixels in painted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--seconds", type=float, default=40.0, help="of overload")
    args = parser.parse_args()
    with service(args.model, "--max-batch", str(MAX_BATCH), "--max-queue", str(MAX_QUEUE)) as (address, server):
        rates, calm, pressed, memory = asyncio.run(measure(address, server.pid, args.seconds))
        server.terminate()
        code = server.wait(timeout=60)
    wrong = count_wrong(TextToImagePipeline.from_pretrained(args.model), calm.painted + pressed.painted)
    lost = {answer: count for answer, count in pressed.answers.items() if answer not in (200, 429)}
    latency, fair = sorted(pressed.seconds), rates["fair"]
    half = len(memory) // 2
    early, late = (max(part) / 2**20 for part in (memory[2:half], memory[half:]))
    print(
        f"""
| {MAX_BATCH} pictures at once, {MAX_QUEUE} may wait | |
| --- | ---: |
| asked one by one, pictures/s | {rates["alone"]:.2f} |
| asked by {AT_ONCE} clients at once, pictures/s | {rates["together"]:.2f} |
| ratio | {rates["together"] / rates["alone"]:.2f} |
| one picture behind two requests of ten, to its time alone | {fair["behind"] / fair["alone"]:.2f} |
| four of different guidance at once, to four alike | {fair["different"] / fair["alike"]:.2f} |
| overload: requests a second, for {args.seconds:.0f} s | {OVERLOAD * rates["together"]:.2f} |
| sent | {pressed.sent} |
| painted (200) | {pressed.answers[200]}, one in {pressed.sent / pressed.answers[200]:.1f} |
| refused (429), and by the server's own count | {pressed.answers[429]}, {rates["refused"]} |
| lost, or any other answer | {lost or 0} |
| pictures compared, calm and overload | {len(calm.painted + pressed.painted)} |
| of them wrong | {wrong} |
| seconds to a picture, median and 95 % | {statistics.median(latency):.1f}, {latency[int(0.95 * len(latency))]:.1f} |
| server's memory, first and second half, MiB | {early:.0f}, {late:.0f} |
| exit code after SIGTERM | {code} |"""
    )
    return int(bool(lost) or wrong > 0 or code != 0)


if __name__ == "__main__":
    sys.exit(main())
