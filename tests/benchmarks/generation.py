"""Codes a second of the loop, as ratios to three references measured in the same run.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.generation [--parts loop cold memory plot] [--rounds 3]

d 512, 8 layers, 8 heads × 64, text 64 of 4,096, image 16×16 of 2,048; random weights, which cost what trained ones do.
The references:

1. the plain loop: no cache, the whole stream again for each code.
2. transformers' `generate` of a Llama of the same size (27 M) with a static cache, 65 tokens in, 256 out. It knows no
   guidance over a doubled batch, so guided rows are set against its own of twice the batch.
3. the floor: the weights that a step reads, in their own precision, at the rate at which this machine sums a tensor of
   105 MB.

What is read and every 16th code, drawn from its logits as in the loop, are timed, and the codes' seconds taken 16
times (of the plain loop every 32nd, of `generate` its first 17). That is the loop of one code a pass;
windows.py has that of several.
Variants take turns, round after round (A B C A B C …); a row is the median of its rounds. On a CPU seconds are those
of the process, not of the clock: what else runs there disturbs them least, though it still takes cache and bandwidth.
int8 and int4 need torchao.
"""

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from pipelines import TextToImagePipeline
from pipelines.drawing.keys import draw_by_keys, draw_keys
from pipelines.drawing.sampling import filter_logits, guide
from pipelines.quantization import quantize_prior
from prior_transformer import PriorTransformer, PriorTransformerConfig

FIGURE = Path(__file__).parent / "generation.png"
EVERY = 16  # one code in so many is timed
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 0.625}  # a weight; int4 with its group's scale and zero


def make_prior(weights: str, grid_size: int = 16) -> PriorTransformer:
    """The benchmark's shape, with float32 weights by columns, or bfloat16, int8 or int4 ones."""
    torch.manual_seed(0)
    config = PriorTransformerConfig(
        text_vocab_size=4096,
        codebook_size=2048,
        text_length=64,
        grid_size=grid_size,
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
    )
    prior = PriorTransformer(config).eval()
    if weights == "float32":
        prior.store_by_columns()
    elif weights == "bfloat16":
        prior.bfloat16()
    else:
        quantize_prior(prior, weights)
    return prior


def step_weights(prior: PriorTransformer) -> int:
    """How many weights of matrices a step reads."""
    layers = sum(m.weight.numel() for m in prior.layers.modules() if isinstance(m, nn.Linear))
    return layers + prior.image_head.weight.numel()


def make_texts(batch_size: int) -> torch.Tensor:
    return torch.randint(1, 4096, (batch_size, 64), generator=torch.Generator().manual_seed(0))


def look(prior: PriorTransformer, codes: torch.Tensor, place: int, cache: object) -> torch.Tensor:
    """Codes (R, 1), all at one place -> logits (R, K)."""
    return prior.look(codes, torch.full((len(codes),), place), cache)[:, 0]


def our_loop(prior: PriorTransformer, batch_size: int, guided: bool, every: int = EVERY) -> Callable[[], float]:
    text_ids, length = make_texts(batch_size), prior.config.image_length
    keys = draw_keys(list(range(batch_size)), length)
    codes = torch.zeros(batch_size * (1 + guided), 1, dtype=torch.long)

    def draw(logits: torch.Tensor, i: int) -> torch.Tensor:
        if guided:
            logits = guide(*logits.chunk(2), 3.0)
        return draw_by_keys(filter_logits(logits), keys[:, i])

    if guided:
        text_ids = torch.cat([text_ids, prior.null(text_ids)])

    def run() -> float:
        with torch.inference_mode():
            start = time.process_time()
            hidden_states, cache = prior.read(text_ids)
            draw(prior.image_logits(hidden_states), 0)
            seconds = time.process_time() - start
            for i in range(every // 2, length, every):
                seconds += every * cpu_seconds(lambda i=i: draw(look(prior, codes, i - 1, cache), i))
            return seconds

    return run


def plain_loop(prior: PriorTransformer, batch_size: int, every: int = 2 * EVERY) -> Callable[[], float]:
    text_ids, length = make_texts(batch_size), prior.config.image_length
    keys = draw_keys(list(range(batch_size)), length)
    codes = torch.zeros(batch_size, length, dtype=torch.long)

    def one_code(i: int) -> None:
        logits = prior(prior.join(text_ids, codes[:, :i])).image_logits[:, -1]
        codes[:, i] = draw_by_keys(filter_logits(logits), keys[:, i])

    def run() -> float:
        with torch.inference_mode():
            return every * sum(cpu_seconds(lambda i=i: one_code(i)) for i in range(every // 2, length, every))

    return run


def make_llama(config: PriorTransformerConfig) -> PreTrainedModel:
    """Of the prior's width, depth and vocabulary, and about as many weights; its prompts are as long."""
    from transformers import LlamaConfig, LlamaForCausalLM

    prompt_length, length = config.prefix_length, config.image_length
    sizes = {
        "hidden_size": config.hidden_size,
        "intermediate_size": 2 * config.intermediate_size // 3,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "max_position_embeddings": prompt_length + length,
    }
    tokens = {"vocab_size": config.codebook_size, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(**sizes, **tokens)).eval()


def llama_loop(config: PriorTransformerConfig, batch_size: int, every: int = EVERY) -> Callable[[], float]:
    llama, prompt_length, length = make_llama(config), config.prefix_length, config.image_length
    llama.generation_config.cache_implementation = "static"
    llama.generation_config.max_cache_len = prompt_length + length  # as for all tokens
    input_ids = torch.randint(1, config.codebook_size, (batch_size, prompt_length))
    options = {"attention_mask": torch.ones_like(input_ids), "do_sample": True, "top_k": 0}

    def run() -> float:
        first = cpu_seconds(lambda: llama.generate(input_ids, max_new_tokens=1, **options))
        some = cpu_seconds(lambda: llama.generate(input_ids, max_new_tokens=1 + length // every, **options))
        return first + every * (some - first)

    return run


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def bandwidth(repeats: int = 20) -> float:
    """Bytes a second of one thread that sums 105 MB, the best of some runs."""
    numbers = torch.randn(26_214_400)
    return numbers.nbytes / min(cpu_seconds(numbers.sum) for _ in range(repeats))


def measure_loop(rounds: int, batches: list[int], kinds: list[str]) -> None:
    priors = {weights: make_prior(weights) for weights in kinds}
    weights_of_a_step = step_weights(make_prior("float32"))
    for batch_size in batches:
        works = {("plain loop, no cache", "float32", False): plain_loop(priors["float32"], batch_size)}
        for guided in (False, True):
            llama = llama_loop(priors[kinds[0]].config, batch_size * (1 + guided))
            works["generate of a Llama, static cache", "float32", guided] = llama
            for weights, prior in priors.items():
                if weights == "bfloat16" and batch_size > 1:
                    continue  # products of more rows than one are emulated on most CPUs, at minutes a picture
                works["this loop", weights, guided] = our_loop(prior, batch_size, guided)
        seconds = {row: [] for row in works}
        rates = []
        for _ in range(rounds):
            rates.append(bandwidth())
            for row, work in works.items():
                seconds[row].append(work())
        rate = statistics.median(rates)
        print(f"\nbatch {batch_size}, {rounds} rounds; memory read at {rate / 1e9:.1f} GB/s\n")
        print("| loop | weights | guided | codes/s | to the plain loop | to `generate` | of the floor |")
        print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
        medians = {row: statistics.median(times) for row, times in seconds.items()}
        for (name, weights, guided), median in medians.items():
            to_plain = medians["plain loop, no cache", "float32", False] * (1 + guided) / median
            to_llama = medians["generate of a Llama, static cache", "float32", guided] / median
            floor = 256 * weights_of_a_step * BYTES[weights] / rate
            print(
                f"| {name} | {weights} | {'yes' if guided else 'no'} | {256 * batch_size / median:.1f} "
                f"| {to_plain:.1f}× | {to_llama:.2f}× | {100 * floor / median:.0f} % |",
                flush=True,
            )


def measure_cold() -> None:
    """A fresh process from its start to a saved picture of the embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipelines", "avocado", "--seed", "0", "--out", f"{folder}/avocado.png"]
        walls, cpus = [], []
        for _ in range(3):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            walls.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"\ncold process to first picture: {min(walls):.1f} s by the clock, {min(cpus):.1f} s of CPU (best of 3)")


PEAKS = {  # what a fresh process does after its imports
    "imports alone": "pass",
    "float32, batch 1": "our_loop(make_prior('float32'), 1, False)()",
    "float32, batch 8, guided": "our_loop(make_prior('float32'), 8, True)()",
    "int8, batch 1": "our_loop(make_prior('int8'), 1, False)()",
    "256 pictures of 64 px decoded, 16 at once": "decode(256, 16)",
    "256 pictures of 64 px decoded, 256 at once": "decode(256, 256)",
}


def decode(pictures: int, batch_size: int) -> None:
    pipeline = TextToImagePipeline.from_pretrained()
    side = pipeline.prior.config.grid_size
    pipeline.decode_codes(torch.zeros(pictures, side, side, dtype=torch.long), batch_size=batch_size)


def measure_memory() -> None:
    print("\n| process | peak memory, MB |\n| --- | ---: |")
    for name, work in PEAKS.items():
        print(f"| {name} | {peak_of(f'from tests.benchmarks.generation import *; {work}')} |", flush=True)


def peak_of(work: str) -> int:
    """MB that a fresh process takes at most. Its ru_maxrss would start at the peak of this one, which started it."""
    script = f"{work}\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return int(run.stdout.split()[-1]) // 1024


def step_seconds(prior: PriorTransformer, batch_size: int, steps: int = 8) -> float:
    """A code of each picture, at positions spread evenly over the grid; reading is not counted."""
    length = prior.config.image_length
    with torch.inference_mode():
        _, cache = prior.read(make_texts(1).expand(batch_size, -1))
        code = torch.zeros(batch_size, 1, dtype=torch.long)
        keys = draw_keys(list(range(batch_size)), 1)[:, 0]
        times = [
            cpu_seconds(lambda i=i: draw_by_keys(filter_logits(look(prior, code, i, cache)), keys))
            for i in range(0, length, max(length // steps, 1))
        ]
    return statistics.mean(sorted(times)[: len(times) * 3 // 4])  # without the steps that others disturbed most


def plot(rounds: int, kinds: list[str]) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    batches, grids = [1, 2, 4, 8, 16, 32], [8, 16, 24, 32]
    for weights in kinds:
        prior = make_prior(weights)
        by_batch = [statistics.median(step_seconds(prior, b) for _ in range(rounds)) / b for b in batches]
        left.plot(batches, [1e3 * s for s in by_batch], "o-", label=weights)
        by_grid = []
        for grid in grids:
            larger = copy.deepcopy(prior) if grid == 16 else make_prior(weights, grid)
            by_grid.append(statistics.median(step_seconds(larger, 1) for _ in range(rounds)) * grid**2)
        right.plot(grids, by_grid, "o-", label=weights)
        print(weights, "ms a code by batch", [f"{1e3 * s:.2f}" for s in by_batch])
        print(weights, "s a picture by grid", [f"{s:.2f}" for s in by_grid], flush=True)
    left.set(xscale="log", yscale="log", xlabel="batch", ylabel="ms a code of one picture", title="16×16 codes")
    left.set_xticks(batches, batches)
    right.set(yscale="log", xlabel="side of the grid", ylabel="s a picture, without prefill", title="batch 1")
    right.set_xticks(grids, grids)
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(FIGURE, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["loop", "cold", "memory"], choices=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--weights", nargs="+", default=["float32", "int8"], choices=list(BYTES))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread")
    for part in arguments.parts:
        PARTS[part](arguments)


PARTS = {
    "loop": lambda arguments: measure_loop(arguments.rounds, arguments.batches, arguments.weights),
    "cold": lambda arguments: measure_cold(),
    "memory": lambda arguments: measure_memory(),
    "plot": lambda arguments: plot(arguments.rounds, arguments.weights),
}

if __name__ == "__main__":
    main()
