"""Mode collapse where it can be counted: a GAN on a ring of Gaussians, its data, its networks and its measure."""

import math

import torch
from torch import Tensor, nn
from torchvision.ops import MLP

from ..adversaries.gan import GANSettings, train_gan


def ring_centres(modes: int, radius: float) -> Tensor:
    """(modes, 2): points on a circle at angles 2πk / modes. `linspace(0, 2π, modes)` would make the last the first."""
    angles = 2 * math.pi * torch.arange(modes) / modes
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def sample_mixture(centres: Tensor, scale: float, count: int, generator: torch.Generator | None = None) -> Tensor:
    """(count, d) from the equal mixture of N(centre, scale² I), centres (K, d)."""
    chosen = centres[torch.randint(len(centres), (count,), generator=generator)]
    return chosen + scale * torch.randn(chosen.shape, generator=generator, dtype=centres.dtype)


def mode_shares(samples: Tensor, centres: Tensor) -> Tensor:
    """samples (n, d), centres (K, d) -> the share of samples nearest to each centre, (K,)."""
    if not samples.isfinite().all():
        raise ValueError(f"{(~samples.isfinite()).any(1).sum()} of {len(samples)} samples are not finite: it diverged")
    nearest = torch.cdist(samples, centres.to(samples.dtype)).argmin(1)
    return torch.bincount(nearest, minlength=len(centres)) / len(samples)


def covered_modes(samples: Tensor, centres: Tensor, share: float = 0.01) -> int:
    """How many centres are the nearest one of at least `share` of the samples."""
    return int((mode_shares(samples, centres) >= share).sum())


def train_ring_gan(
    settings: GANSettings,
    *,
    seed: int,
    modes: int = 8,
    radius: float = 2.0,
    scale: float = 0.1,
    steps: int = 3000,
    batch_size: int = 128,
    hidden: int = 128,
    latent_size: int = 16,
    lr: float = 1e-3,
    discriminator_lr: float = 1e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    samples: int = 10_000,
    wrap: type[nn.Module] | None = None,
) -> Tensor:
    """
    A GAN of two MLPs, two hidden layers each, on the ring -> (samples, 2) of the trained generator.

    The defaults are a game that collapses: the generator is ten times as fast as the discriminator. `wrap` takes the
    discriminator and returns what plays in its place, for remedies that change the network.
    """
    rng, centres = torch.Generator().manual_seed(seed), ring_centres(modes, radius)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = MLP(latent_size, [hidden, hidden, 2])
        discriminator = MLP(2, [hidden, hidden, 1])
        discriminator = discriminator if wrap is None else wrap(discriminator)
        train_gan(
            generator,
            discriminator,
            torch.optim.Adam(generator.parameters(), lr, betas),
            torch.optim.Adam(discriminator.parameters(), discriminator_lr, betas),
            sample_real=lambda count: sample_mixture(centres, scale, count, rng),
            sample_latents=lambda count: torch.randn(count, latent_size, generator=rng),
            steps=steps,
            batch_size=batch_size,
            settings=settings,
        )
    with torch.no_grad():
        return generator(torch.randn(samples, latent_size, generator=rng))
