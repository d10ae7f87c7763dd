"""Painting and training on a GPU, as ratios measured side by side in one run.

    python -m tests.benchmarks.gpu [--parts paint train] [--rounds 3]

The shape of generation.py: d 512, 8 layers, text 64 of 4,096, image 16×16 of 2,048, random weights, bf16. Painting is
timed by whole pictures, guided alike: transformers' `generate` of a Llama of that size with a static cache (twice the
batch in place of guidance), the loop as it is, and the loop with `compile(mode="reduce-overhead")`, which replays a
step as one CUDA graph, each of one code a pass and of as many as is measured to be fastest: with random weights a
window guesses hardly anything right, so that is what it costs, not what it brings. Training by steps of forward,
backward and AdamW: plain PyTorch, the prior, and the prior with its blocks compiled, as `--training.compile true`
does. Variants take turns, after a round that warms up; a row is the median of its rounds.
"""

import argparse
import copy

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.drawing.keys import draw_keys
from pipelines.drawing.loop import draw_codes
from pipelines.drawing.settings import SamplingSettings
from prior_transformer import PriorTransformer

from .generation import make_prior, make_texts
from .training import SMALL, PlainPrior, Step, interleaved, joint_ids, prior_step, stepper

STEPS = 5  # of training, in a round


def paint(prior: PriorTransformer, batch_size: int, guided: bool, window: int | None = 1) -> Step:
    text_ids, settings = make_texts(batch_size).cuda(), SamplingSettings(guidance_scale=3.0 if guided else 1.0)
    keys = draw_keys(list(range(batch_size)), prior.config.image_length).cuda()

    def run() -> torch.Tensor:
        *_, last = draw_codes(prior, text_ids, keys, settings, window=window)
        return last.codes.sum()

    return run


def generate(batch_size: int) -> Step:
    sizes = {"hidden_size": 512, "intermediate_size": 1365, "num_hidden_layers": 8, "num_attention_heads": 8}
    tokens = {"vocab_size": 2048, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    config = LlamaConfig(max_position_embeddings=321, **sizes, **tokens)
    llama = LlamaForCausalLM(config).eval().to("cuda", torch.bfloat16)
    input_ids = torch.randint(1, 2048, (batch_size, 65), device="cuda")
    options = {"attention_mask": torch.ones_like(input_ids), "do_sample": True, "top_k": 0}
    options |= {"cache_implementation": "static", "disable_compile": True, "max_new_tokens": 256}
    return lambda: llama.generate(input_ids, **options).sum()


def painters(batch_size: int, guided: bool) -> dict[str, Step]:
    prior = make_prior("bfloat16").to("cuda")
    compiled = copy.deepcopy(prior)
    compiled.compile_step(mode="reduce-overhead")
    return {
        "`generate` of a Llama, static cache": generate(batch_size * (1 + guided)),
        "this loop": paint(prior, batch_size, guided),
        "this loop, compiled": paint(compiled, batch_size, guided),
        "this loop, windows": paint(prior, batch_size, guided, None),
        "this loop, windows, compiled": paint(compiled, batch_size, guided, None),
    }


def learners(batch_size: int) -> dict[str, Step]:
    with torch.device("cuda"):
        plain, prior, compiled = PlainPrior(SMALL, 0.0), PriorTransformer(SMALL), PriorTransformer(SMALL)
    for block in compiled.layers:
        block.compile()
    input_ids = joint_ids(prior, batch_size)

    def plain_loss() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return plain(input_ids)

    steps = {
        "plain PyTorch": stepper(torch.optim.AdamW(plain.parameters()), plain_loss),
        "prior": prior_step(prior, batch_size, torch.bfloat16),
        "prior, compiled": prior_step(compiled, batch_size, torch.bfloat16),
    }
    return {name: lambda step=step: [step() for _ in range(STEPS)][-1] for name, step in steps.items()}


def measure(title: str, works: dict[str, Step], rounds: int, pictures: int) -> None:
    """pictures: of one work."""
    medians = interleaved(works, rounds)
    first = next(iter(medians.values()))
    print(f"\n| {torch.cuda.get_device_name()}, {title} | pictures/s | ratio |\n| --- | ---: | ---: |")
    for name, median in medians.items():
        print(f"| {name} | {pictures / median:,.1f} | {first / median:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("paint", "train"), default=["paint", "train"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("tests.benchmarks.gpu needs a GPU; on a CPU take tests.benchmarks.generation and .training")
    torch.manual_seed(0)
    if "train" in args.parts:
        measure("training, batch 64", learners(64), args.rounds, STEPS * 64)
    if "paint" in args.parts:
        for batch_size, guided in ((1, False), (64, True)):
            title = f"painting, batch {batch_size}{', guided' if guided else ''}"
            measure(title, painters(batch_size, guided), args.rounds, batch_size)


if __name__ == "__main__":
    main()
