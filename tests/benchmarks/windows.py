"""Whole pictures of the embedded model, by how many codes of each a pass looks at.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.windows [--parts times passes] [--windows 1 8 16 32 64]

"times": passes, seconds against those of one code a pass and against `generate` of a Llama of the embedded model's
size, and how many pictures are the same, code for code; windows take turns. "passes": those of each of 200 names. On a
CPU seconds are those of the process, not of the clock.
"""

import argparse
import itertools
import random
import statistics
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch

from pipelines import TextToImagePipeline
from pipelines.drawing.keys import draw_keys
from pipelines.drawing.rows import Rows

from .generation import llama_loop

# fmt: off
NAMES = [
    "avocado", "red apple", "cat face", "fire engine", "sailboat", "hamburger", "rocket", "octopus", "banana",
    "tomato", "grapes", "lemon", "pizza", "hot dog", "doughnut", "teapot", "bicycle", "airplane", "automobile",
    "tractor", "helicopter", "umbrella", "snowman", "sunflower", "tulip", "cactus", "mushroom", "maple leaf",
    "penguin", "elephant", "tiger face", "rabbit face", "panda", "frog", "whale", "butterfly", "snail", "guitar",
    "violin", "trophy",
]
# fmt: on
DATA = Path(__file__).parents[2] / "training" / "data" / "emoji"


def measure_times(batches: list[int], windows: list[int | None], num_prompts: int) -> None:
    """By default settings, names and scenes of two of them. None of windows is the measured one."""
    pipeline = TextToImagePipeline.from_pretrained()
    prompts = {
        "names": NAMES[:num_prompts],
        "composed": [f"a {a} beside a {b}" for a, b in itertools.pairwise(NAMES)][:num_prompts],
    }
    print("\n| prompts | batch | window | passes | CPU time to window 1 | codes/s to `generate` | the same pictures |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, batch_size in itertools.product(prompts, batches):
        seconds, passes, codes = {w: [] for w in windows}, {w: [] for w in windows}, {w: [] for w in windows}
        generate, generated = llama_loop(pipeline.prior.config, 2 * batch_size), []  # guidance has two rows a picture
        for i in range(0, len(prompts[kind]), batch_size):
            generated.append(generate())
            for window in windows:  # in turn
                start = time.process_time()
                output = pipeline(prompts[kind][i : i + batch_size], seed=i, window=window, progress_bar=False)
                seconds[window].append(time.process_time() - start)
                passes[window].append(output.passes)
                codes[window].append(output.codes)
        for window in windows:
            same = sum(int((a == b).all((1, 2)).sum()) for a, b in zip(codes[window], codes[1], strict=True))
            ratio = statistics.median(a / b for a, b in zip(seconds[window], seconds[1], strict=True))
            faster = statistics.median(a / b for a, b in zip(generated, seconds[window], strict=True))
            print(
                f"| {kind} | {batch_size} | {window or 'measured'} | {statistics.mean(passes[window]):.0f} "
                f"| {ratio:.2f} | {faster:.2f}× | {same} of {len(prompts[kind])} |",
                flush=True,
            )


def measure_passes(windows: list[int]) -> None:
    """Of each of 200 names of the emoji set, by default settings, seeds 0 to 199; ten at once, each at its pace."""
    pipeline, at_once = TextToImagePipeline.from_pretrained(), 10
    paths = sorted(DATA.glob("train-*.parquet"))
    names = {name for path in paths for name in pq.read_table(path, columns=["name"])["name"].to_pylist()}
    some, first = random.Random(0).sample(sorted(names), 200), None
    print("\n| window | passes, mean | median | least, most | the same pictures as in the first row |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for window in windows:
        passes, codes = [], []
        for i in range(0, len(some), at_once):
            drawn = draw_each(pipeline, some[i : i + at_once], i, window)
            passes += [count for count, _ in drawn]
            codes += [own for _, own in drawn]
        first = first or codes
        same = sum(map(torch.equal, codes, first))
        mean, median = statistics.mean(passes), statistics.median(passes)
        print(f"| {window} | {mean:.1f} | {median:.0f} | {min(passes)}, {max(passes)} | {same} |", flush=True)


def draw_each(
    pipeline: TextToImagePipeline, prompts: list[str], seed: int, window: int
) -> list[tuple[int, torch.Tensor]]:
    """Of each picture how many passes it took, and its codes (N,)."""
    prior, captions = pipeline.prior, pipeline.encode_prompt(prompts)
    keys = draw_keys(list(range(seed, seed + len(prompts))), prior.config.image_length)
    rows = Rows(prior, window)
    names = rows.add(
        captions,
        keys,
        pipeline.sampling,
        codes=torch.zeros_like(keys),
        given=torch.zeros_like(keys, dtype=torch.bool),
        other_captions=prior.null(captions),
    )
    finished = {}
    while len(rows):
        progress = rows.collect()
        for name, done, codes in zip(*progress, strict=True):
            if done == keys.shape[1]:
                finished[name] = rows.passes, codes.clone()
        if len(rows):
            rows.step()
    return [finished[name] for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["times"], choices=["times", "passes"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 8, 16, 32, 64], help="1 first, for times")
    parser.add_argument("--prompts", type=int, default=40)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread")
    if "times" in arguments.parts:
        measure_times(arguments.batches, [*arguments.windows, None], arguments.prompts)
    if "passes" in arguments.parts:
        measure_passes(arguments.windows)


if __name__ == "__main__":
    main()
