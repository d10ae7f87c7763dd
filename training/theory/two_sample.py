"""What samples of two distributions tell about them: trained discriminators, and the classifier two-sample test."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import MLP

from ..adversaries.gan import GANSettings, Sampler, discriminator_step
from ..adversaries.objectives import gan_value
from ..loop.schedules import cosine


def train_discriminator(
    discriminator: nn.Module,
    sample_real: Sampler,
    sample_fake: Sampler,
    *,
    objective: str = "non_saturating",
    steps: int = 2000,
    batch_size: int = 512,
    lr: float = 3e-3,
) -> None:
    """Trains it in place between two fixed distributions, half of each batch each; lr falls to 0 on a cosine."""
    optimizer = torch.optim.Adam(discriminator.parameters(), lr)
    settings = GANSettings(objective=objective)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, lr, 0.0, steps)
        discriminator_step(discriminator, optimizer, sample_real(batch_size), sample_fake(batch_size), settings)


@torch.no_grad()
def sampled_gan_value(
    discriminator: nn.Module, sample_real: Sampler, sample_fake: Sampler, count: int = 200_000
) -> float:
    """
    `gan_value` on `count` fresh samples of each, in nats: a lower bound of 2 JSD − 2 log 2, in expectation.

    That bound is reached by a discriminator trained on "minimax" or "non_saturating" alone: hinge's best logits are
    ±1, whatever the densities.
    """
    return gan_value(discriminator(sample_real(count)), discriminator(sample_fake(count))).item()


class C2ST(NamedTuple):
    """
    accuracy: held-out share of right answers, each class counting half, so that chance is ½ whatever the counts.
    standard_error: of the accuracy, were both sets from one distribution.
    p_value: chance of an accuracy as high under that hypothesis.
    """

    accuracy: float
    standard_error: float
    p_value: float


def c2st(
    first: Tensor,
    second: Tensor,
    *,
    hidden: int = 64,
    steps: int = 1000,
    batch_size: int = 512,
    lr: float = 3e-3,
    seed: int = 0,
) -> C2ST:
    """
    Classifier two-sample test (arXiv 1610.06545): first (n, …), second (m, …), n and m at least 4 -> `C2ST`.

    A random half of each set trains a classifier of one hidden layer, the other half tests it. The best possible
    accuracy is ½ + ½ TV(p, q). Batches hold as many of one set as of the other: were the classes as unequal as the
    counts, p(y = 1 | x) would be n / (n + m) and not ½ where p = q.
    """
    if first.ndim < 2 or second.ndim < 2:
        raise ValueError(f"samples {tuple(first.shape)} and {tuple(second.shape)} must be (n, d): pass x[:, None]")
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"samples of {tuple(first.shape[1:])} and {tuple(second.shape[1:])} cannot be compared")
    if min(len(first), len(second)) < 4:
        raise ValueError(
            f"{len(first)} and {len(second)} samples: at least 4 of each, a half to train and one to test"
        )
    if not (first.isfinite().all() and second.isfinite().all()):
        raise ValueError("samples must be finite: a classifier learns nothing from nan or inf")
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    halves = [_halves(samples.detach().flatten(1).to(dtype), generator) for samples in (first, second)]
    (train_first, test_first), (train_second, test_second) = halves
    both = torch.cat([train_first, train_second])
    mean, scale = both.mean(0), both.std(0).clamp_min(1e-12)

    def sampler(samples: Tensor) -> Sampler:
        def sample(count: int) -> Tensor:
            chosen = torch.randint(len(samples), (count,), generator=generator)
            return (samples[chosen] - mean) / scale

        return sample

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = MLP(both.shape[1], [hidden, 1]).to(both)
    train_discriminator(
        classifier, sampler(train_first), sampler(train_second), steps=steps, batch_size=batch_size, lr=lr
    )
    with torch.no_grad():
        right_first = (classifier((test_first - mean) / scale) > 0).double().mean()
        right_second = (classifier((test_second - mean) / scale) <= 0).double().mean()
    accuracy = (right_first + right_second).item() / 2
    error = math.sqrt(1 / len(test_first) + 1 / len(test_second)) / 4
    return C2ST(accuracy, error, math.erfc((accuracy - 0.5) / error / math.sqrt(2)) / 2)


def _halves(samples: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random half of the rows, and the rest."""
    order = torch.randperm(len(samples), generator=generator)
    return samples[order[: len(order) // 2]], samples[order[len(order) // 2 :]]
