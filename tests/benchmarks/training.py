"""A training step of the prior and of the dVAE, as ratios to plain PyTorch measured in the same run.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.training [--parts prior dvae] [--rounds 3] [--dropout 0.1]
    python -m tests.benchmarks.training --parts mfu          # on a GPU: the 1.3 B shape in bf16

Variants take turns, round after round (A B C A B C …), a row is the median of its rounds and a ratio is the plain
row's median over its own. On a CPU seconds are those of the process, not of the clock: what else runs there disturbs
them least. A step is forward, backward and AdamW. "of peak" is the share of the machine's own rate of matrix products
that the model's arithmetic (`model_flops`) takes.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae import DVAE, DVAEConfig
from prior_transformer import PriorTransformer, PriorTransformerConfig
from training.loop.losses import dvae_losses
from training.loop.optimizers import weight_decay_groups

Step = Callable[[], Tensor]
SMALL = PriorTransformerConfig(
    text_vocab_size=4096,
    codebook_size=2048,
    text_length=64,
    grid_size=16,
    hidden_size=512,
    num_hidden_layers=8,
    num_attention_heads=8,
)
LARGE = PriorTransformerConfig(  # 1.3 B parameters
    text_vocab_size=16384,
    codebook_size=8192,
    text_length=256,
    grid_size=32,
    hidden_size=2048,
    num_hidden_layers=24,
    num_attention_heads=16,
)
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bf16, their makers' data sheets


class PlainPrior(nn.Module):
    """The reference: `nn.TransformerEncoderLayer` blocks over one joint vocabulary, one joint softmax everywhere."""

    def __init__(self, config: PriorTransformerConfig, dropout: float):
        super().__init__()
        length, width = config.stream_length - 1, config.hidden_size
        self.vocab_size = config.text_vocab_size + config.codebook_size
        self.tokens = nn.Embedding(self.vocab_size + 1, width)  # the last one is BOS
        self.positions = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, config.num_attention_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, config.num_hidden_layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, self.vocab_size, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Joint ids (B, T + N) -> the mean nll, in nats a token."""
        bos = torch.full_like(input_ids[:, :1], self.vocab_size)
        hidden_states = self.tokens(torch.cat([bos, input_ids[:, :-1]], dim=1)) + self.positions.weight
        logits = self.head(self.layers(hidden_states, mask=self.mask, is_causal=True))  # (B, T + N, all ids)
        return F.cross_entropy(logits.flatten(0, 1), input_ids.flatten())


def stepper(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Step:
    def step() -> Tensor:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    return step


def joint_ids(prior: PriorTransformer, batch_size: int) -> Tensor:
    """Random texts and codes: what they say costs nothing."""
    config = prior.config
    text_ids = torch.randint(config.text_vocab_size, (batch_size, config.text_length), device=prior.device)
    codes = torch.randint(config.codebook_size, (batch_size, config.image_length), device=prior.device)
    return prior.join(text_ids, codes)


def prior_step(prior: PriorTransformer, batch_size: int, dtype: torch.dtype = torch.float32) -> Step:
    """As training.train_prior takes it."""
    input_ids = joint_ids(prior.train(), batch_size)
    device = prior.device.type

    def loss() -> Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return prior(input_ids, labels=input_ids).loss

    return stepper(torch.optim.AdamW(weight_decay_groups(prior, 0.045), fused=True), loss)


def prior_steps(batch_size: int, dropout: float) -> dict[str, Step]:
    plain = PlainPrior(SMALL, dropout)
    prior = PriorTransformer(PriorTransformerConfig(**{**SMALL.to_dict(), "dropout": dropout}))
    input_ids = joint_ids(prior, batch_size)
    return {
        "plain PyTorch": stepper(torch.optim.AdamW(plain.parameters()), lambda: plain(input_ids)),
        "prior": prior_step(prior, batch_size),
    }


def dvae_steps(batch_size: int) -> dict[str, Step]:
    """A dVAE of a block a group: in plain NCHW with AdamW as it comes, and as train_dvae has it."""
    config = DVAEConfig(
        image_size=64,
        codebook_size=1024,
        codebook_dim=64,
        widths=[64, 128, 256, 512],
        blocks_per_group=1,
        posterior="gumbel_codebook",
    )
    pixel_values = torch.rand(batch_size, 3, config.image_size, config.image_size)

    def step(layout: torch.memory_format, fused: bool) -> Step:
        dvae = DVAE(config).train().to(memory_format=layout)
        pixels = pixel_values.contiguous(memory_format=layout)

        def loss() -> Tensor:
            return dvae_losses(pixels, dvae(pixels, temperature=0.5), dvae.likelihood, kl_weight=1.0)["loss"]

        return stepper(torch.optim.AdamW(dvae.parameters(), fused=fused), loss)

    return {"plain PyTorch": step(torch.contiguous_format, False), "dvae": step(torch.channels_last, True)}


def model_flops(config: PriorTransformerConfig, batch_size: int) -> float:
    """
    Of one step: 6 for each weight of a matrix product and each of its tokens, and 12·D for each pair of positions
    that causal attention compares, a layer (a third of it forward; nothing computed again, nothing masked counted).
    """
    length, width = config.stream_length - 1, config.hidden_size
    block = 4 * width**2 + 2 * width * config.intermediate_size
    heads = config.text_length * config.text_vocab_size + config.image_length * config.codebook_size
    pairs = length * (length + 1) / 2
    weights = config.num_hidden_layers * block * length + heads * width
    return batch_size * (6 * weights + 12 * config.num_hidden_layers * pairs * width)


def seconds(step: Step) -> float:
    """On a GPU by the clock, until it is done; on a CPU those of the process."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    step().item()
    return clock() - start


def interleaved(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """The median seconds of each, after a round of warm-up."""
    times = [{name: seconds(step) for name, step in steps.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(row[name] for row in times[1:]) for name in steps}


def matrix_rate(size: int = 1024, times: int = 9) -> float:
    """FLOP/s of this CPU's float32 matrix product, the best of `times`."""
    a, b = torch.randn(2, size, size)
    return 2 * size**3 / min(seconds(lambda: (a @ b)[0, 0]) for _ in range(times))


def table(title: str, medians: dict[str, float], notes: dict[str, str]) -> None:
    first = next(iter(medians.values()))
    print(f"\n| {title} | seconds | ratio | |\n| --- | ---: | ---: | --- |")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {first / median:.2f} | {notes.get(name, '')} |")


def utilisation(batch_size: int, rounds: int) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("--parts mfu needs a GPU: the 1.3 B shape takes about 40 GiB of its memory")
    device = torch.cuda.get_device_name()
    with torch.device("cuda"):
        step = prior_step(PriorTransformer(LARGE), batch_size, torch.bfloat16)
    medians = interleaved({"prior, 1.3 B, bf16": step}, rounds)
    rate = model_flops(LARGE, batch_size) / medians["prior, 1.3 B, bf16"]
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    share = f"{rate / peak:.1%} of peak" if peak else f"no peak known of {device}"
    table(device, medians, {"prior, 1.3 B, bf16": f"{rate / 1e12:.0f} TFLOP/s, {share}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("prior", "dvae", "mfu"), default=["prior", "dvae"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=8, help="of the prior")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the prior and of its reference")
    args = parser.parse_args()
    torch.manual_seed(0)
    if "prior" in args.parts:
        peak = matrix_rate()
        medians = interleaved(prior_steps(args.batch_size, args.dropout), args.rounds)
        rate = model_flops(SMALL, args.batch_size) / medians["prior"]
        note = f"{rate / 1e9:.0f} GFLOP/s, {rate / peak:.0%} of peak"
        table(f"prior, dropout {args.dropout}", medians, {"prior": note})
    if "dvae" in args.parts:
        table("dVAE, 64 px, batch 32", interleaved(dvae_steps(32), args.rounds), {})
    if "mfu" in args.parts:
        utilisation(args.batch_size, args.rounds)


if __name__ == "__main__":
    main()
