"""Whole pictures of the embedded model, by how many codes of each a pass looks at.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.windows [--parts times passes equal assisted profile] [--windows 1 16]

"times": passes, seconds against those of one code a pass and against `generate` of a Llama of the embedded model's
size, and how many pictures are the same, code for code; windows take turns. "passes": those of each of 200 names, or
with `--passes_of composed` of as many pairs of them.
"equal": how many pictures are the same in other precisions, and what was missing where one is not. "assisted": the
passes of transformers' assisted generation, which guesses what followed the same two codes before (prompt lookup).
"profile": what a picture's time goes to. On a CPU seconds are those of the process, not of the clock.
"""

import argparse
import itertools
import random
import statistics
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from pipelines import TextToImagePipeline, TextToImagePipelineOutput
from pipelines.drawing.keys import draw_keys
from pipelines.drawing.prior import Prior
from pipelines.drawing.rows import Rows

from .generation import cpu_seconds, llama_loop, make_llama

# fmt: off
NAMES = [
    "avocado", "red apple", "cat face", "fire engine", "sailboat", "hamburger", "rocket", "octopus", "banana",
    "tomato", "grapes", "lemon", "pizza", "hot dog", "doughnut", "teapot", "bicycle", "airplane", "automobile",
    "tractor", "helicopter", "umbrella", "snowman", "sunflower", "tulip", "cactus", "mushroom", "maple leaf",
    "penguin", "elephant", "tiger face", "rabbit face", "panda", "frog", "whale", "butterfly", "snail", "guitar",
    "violin", "trophy",
]
# fmt: on
PARTS = ("times", "passes", "equal", "assisted", "profile")
KINDS = {  # of torch's operations, by a part of their names; the first that fits
    "the decoder's convolutions": ("conv",),
    "matrix products": ("addmm", "::mm", "bmm"),
    "attention": ("attention", "flash"),
    "norms and GELU": ("layer_norm", "gelu"),
    "copies and gathers": ("copy_", "index", "gather", "scatter", "::cat", "::where"),
}
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


def measure_passes(windows: list[int], prompts: str) -> None:
    """
    By default settings, seeds 0 to 199; ten at once, each at its pace. prompts: "names", 200 of the emoji set, or
    "composed", one of each beside the next.
    """
    pipeline, at_once = TextToImagePipeline.from_pretrained(), 10
    paths = sorted(DATA.glob("train-*.parquet"))
    names = {name for path in paths for name in pq.read_table(path, columns=["name"])["name"].to_pylist()}
    some, first = random.Random(0).sample(sorted(names), 200), None
    if prompts == "composed":
        some = [f"a {a} beside a {b}" for a, b in itertools.pairwise([*some, some[0]])]
    print("\n| window | passes, mean | median | least, most | the same pictures as in the first row |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for window in windows:
        passes, codes = [], []
        for i in range(0, len(some), at_once):
            drawn = draw_each(pipeline, some[i : i + at_once], i, Rows(pipeline.prior, window))
            passes += [count for count, _ in drawn]
            codes += [own for _, own in drawn]
        first = first or codes
        same = sum(map(torch.equal, codes, first))
        mean, median = statistics.mean(passes), statistics.median(passes)
        print(f"| {window} | {mean:.1f} | {median:.0f} | {min(passes)}, {max(passes)} | {same} |", flush=True)


class Gaps(Rows):
    """Rows that keep, of each draw, by how much the best code is ahead of the second."""

    def __init__(self, prior: Prior, window: int):
        super().__init__(prior, window)
        self.gaps: list[torch.Tensor] = []

    def _scores(self, *of: Any) -> torch.Tensor:
        scores = super()._scores(*of)
        best, second = scores.topk(2, dim=-1).values.unbind(-1)
        self.gaps.append(best - second)
        return scores


def draw_each(
    pipeline: TextToImagePipeline, prompts: list[str], seed: int, rows: Rows
) -> list[tuple[int, torch.Tensor]]:
    """Of each picture how many passes it took, and its codes (N,)."""
    prior, captions = pipeline.prior, pipeline.encode_prompt(prompts)
    keys = draw_keys(list(range(seed, seed + len(prompts))), prior.config.image_length)
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


def measure_equal(windows: list[int], num_prompts: int) -> None:
    """By default settings, ten names at once, against one code a pass in the same precision."""
    print("\n| weights | window | the same pictures | ahead at the first other code, median and most |")
    print("| --- | ---: | ---: | ---: |")
    for weights in ("float32", "bfloat16", "int8"):
        pipeline, at_once = TextToImagePipeline.from_pretrained(), 10
        if weights == "int8":
            pipeline.quantize("int8")
        else:
            pipeline.to(getattr(torch, weights))
        ahead: dict[int, list[float]] = {window: [] for window in windows}
        for i in range(0, num_prompts, at_once):
            alone = Gaps(pipeline.prior, 1)
            own = [codes for _, codes in draw_each(pipeline, NAMES[i : i + at_once], i, alone)]
            gaps = torch.cat(alone.gaps, dim=1)  # (A, N): all rows are at the same place
            for window in windows:
                others = draw_each(pipeline, NAMES[i : i + at_once], i, Rows(pipeline.prior, window))
                for row, (_, codes) in enumerate(others):
                    if differing := (codes != own[row]).nonzero().flatten().tolist():
                        ahead[window].append(gaps[row, differing[0]].item())
        for window, found in ahead.items():
            shown = f"{statistics.median(found):.1e}, {max(found):.1e}" if found else ""
            print(f"| {weights} | {window} | {num_prompts - len(found)} of {num_prompts} | {shown} |", flush=True)


def measure_assisted(windows: list[int], num_prompts: int) -> None:
    """
    Without guidance, which assisted generation does not have. Its passes are counted on the codes of this loop, its
    seconds a pass are of a Llama of the embedded model's size, one picture at once.
    """
    pipeline = TextToImagePipeline.from_pretrained()
    length, llama = pipeline.prior.config.image_length, make_llama(pipeline.prior.config)
    guesser = PromptLookupCandidateGenerator(max_length=length)
    seconds, passes = [], []
    for i, name in enumerate(NAMES[:num_prompts]):
        alone, assisted = seconds_a_pass(llama), seconds_a_pass(llama, prompt_lookup_num_tokens=10)
        drawn = [draw_alone(pipeline, name, i, window) for window in windows]
        count = count_passes(drawn[0][0].codes.flatten(), guesser)
        seconds.append([alone * (length - 1), assisted * count, *(own for _, own in drawn)])
        passes.append([length - 1, count, *(output.passes for output, _ in drawn)])
    print("\n| | passes, mean | CPU time to `generate` |\n| --- | ---: | ---: |")
    rows = ["`generate`", "the same, assisted", *(f"this loop, window {window}" for window in windows)]
    for row, count, own in zip(rows, zip(*passes, strict=True), zip(*seconds, strict=True), strict=True):
        ratio = statistics.median(a / b[0] for a, b in zip(own, seconds, strict=True))
        print(f"| {row} | {statistics.mean(count):.1f} | {ratio:.2f} |", flush=True)


def draw_alone(
    pipeline: TextToImagePipeline, name: str, seed: int, window: int
) -> tuple[TextToImagePipelineOutput, float]:
    start = time.process_time()
    output = pipeline(name, seed=seed, window=window, guidance_scale=1.0, progress_bar=False)
    return output, time.process_time() - start


def measure_profile(windows: list[int]) -> None:
    """Of a picture by default settings, in shares of its time under torch's profiler, which makes Python slower."""
    pipeline, shares = TextToImagePipeline.from_pretrained(), []
    for window in windows:
        pipeline(NAMES[0], seed=0, window=window, progress_bar=False)
        with torch.profiler.profile() as profiler:
            start = time.perf_counter()
            pipeline(NAMES[0], seed=0, window=window, progress_bar=False)
            seconds = time.perf_counter() - start
        own = dict.fromkeys([*KINDS, "other operations"], 0.0)
        for event in profiler.key_averages():
            found = (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts))
            own[next(found, "other operations")] += event.self_cpu_time_total / 1e6 / seconds
        shares.append(own | {"outside of operations: Python": 1 - sum(own.values())})
    print(f"\n| window | {' | '.join(map(str, windows))} |\n| --- | {'---: | ' * len(windows)}")
    for kind in shares[0]:
        print(f"| {kind} | {' | '.join(f'{100 * own[kind]:.0f} %' for own in shares)} |")


def seconds_a_pass(llama: PreTrainedModel, tokens: int = 32, **kind: int) -> float:
    """Of `generate` of one picture's first tokens, behind the pass of the prompt."""
    length, passes = llama.config.max_position_embeddings, []
    input_ids = torch.randint(1, llama.config.vocab_size, (1, 16))
    options = {"attention_mask": torch.ones_like(input_ids), "do_sample": True, "top_k": 0, **kind}
    if not kind:
        options |= {"cache_implementation": "static", "max_cache_len": length}
    hook = llama.register_forward_hook(lambda *_: passes.append(1))
    first = cpu_seconds(lambda: llama.generate(input_ids, max_new_tokens=1, **options))
    before = len(passes)
    some = cpu_seconds(lambda: llama.generate(input_ids, max_new_tokens=1 + tokens, **options))
    hook.remove()
    return (some - first) / (len(passes) - 2 * before)


def count_passes(codes: torch.Tensor, guesser: PromptLookupCandidateGenerator) -> int:
    """Of codes (N,), the first of which the prompt's own pass drew: a pass keeps what is guessed right, and one."""
    there, passes = 1, 0
    while there < len(codes):
        guessed = guesser.get_candidates(codes[None, :there])[0][0, there:]
        actual = codes[there : there + len(guessed)]
        there += int((guessed[: len(actual)] == actual).long().cumprod(0).sum()) + 1
        passes += 1
    return passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["times"], choices=list(PARTS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 8, 16, 32, 64], help="1 first, for times")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--passes_of", default="names", choices=["names", "composed"])
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread")
    if "times" in arguments.parts:
        measure_times(arguments.batches, [*arguments.windows, None], arguments.prompts)
    if "passes" in arguments.parts:
        measure_passes(arguments.windows, arguments.passes_of)
    if "equal" in arguments.parts:
        measure_equal(arguments.windows, arguments.prompts)
    if "assisted" in arguments.parts:
        measure_assisted(arguments.windows, arguments.prompts)
    if "profile" in arguments.parts:
        measure_profile(arguments.windows)


if __name__ == "__main__":
    main()
