"""Posteriors q(z | x) over continuous latents z (B, d), of features of x (B, D): parts of one signature.

posterior(features)              -> LatentDraw      a reparameterised sample
posterior.mode(features)         -> z               without noise
posterior.moments(features, n)   -> Moments         of z given x, over n draws of the noise
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

MIN_LOG_SCALE = -4.0  # one floor for all: of what is drawn, and so of the moments that it is contrasted with


class Moments(NamedTuple):
    """mean, scale (B, d) of q(z | x), without a gradient: of r(z | x) = N(mean, diag scale²)."""

    mean: Tensor
    scale: Tensor

    def standardise(self, z: Tensor) -> Tensor:
        return (z - self.mean) / self.scale

    def log_prob(self, z: Tensor) -> Tensor:
        """log r(z | x), (B,)."""
        return diagonal_log_prob(z, self.mean, self.scale.log())


class LatentDraw(NamedTuple):
    """z (B, d), drawn from N(mean, diag exp(log_scale)²), (B, d) each: q(z | x), or q(z | x, ε) of an implicit one."""

    z: Tensor
    mean: Tensor
    log_scale: Tensor

    def log_prob(self) -> Tensor:
        """Log-density of z under that Gaussian, (B,). Of an implicit posterior E log q(z | x, ε) ≥ E log q(z | x)."""
        return diagonal_log_prob(self.z, self.mean, self.log_scale)


def diagonal_log_prob(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(z; mean, diag exp(log_scale)²), (B, d) each -> (B,), in nats."""
    u = (z - mean) * torch.exp(-log_scale)
    return -(u.square() / 2 + log_scale + math.log(2 * math.pi) / 2).sum(1)


class GaussianLatents(nn.Module):
    """
    q(z | x) = N(μ(x), diag σ²(x)), the posterior of a VAE (arXiv 1312.6114).

    feature_size: D. latent_size: d. hidden: widths of the network between.
    """

    noise_scale = 1.0
    first_log_scale = 0.0

    def __init__(self, feature_size: int, latent_size: int, hidden: tuple[int, ...] = (64, 64), noise_size: int = 0):
        super().__init__()
        self.noise_size = noise_size
        sizes = [feature_size + noise_size, *hidden]
        layers = [layer for n, m in itertools.pairwise(sizes) for layer in (nn.Linear(n, m), nn.ReLU())]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], 2 * latent_size))

    def given(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, D), noise ε (B, noise_size) -> mean and log_scale (B, d) of q(z | x, ε)."""
        mean, log_scale = self.network(torch.cat([features, noise], dim=1)).chunk(2, dim=1)
        return mean, (log_scale + self.first_log_scale).clamp_min(MIN_LOG_SCALE)

    def draw_noise(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """ε ~ N(0, noise_scale² I): (B, noise_size), one a picture."""
        size = (len(features), self.noise_size)
        noise = torch.randn(size, generator=generator, dtype=features.dtype, device=features.device)
        return self.noise_scale * noise

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> LatentDraw:
        mean, log_scale = self.given(features, self.draw_noise(features, generator))
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return LatentDraw(mean + log_scale.exp() * noise, mean, log_scale)

    def mode(self, features: Tensor) -> Tensor:
        """The mean at ε = 0, (B, d): the same at every call."""
        return self.given(features, features.new_zeros(len(features), self.noise_size))[0]

    @torch.no_grad()
    def moments(self, features: Tensor, draws: int) -> Moments:
        """
        The moments of q(z | x), by the law of total variance over `draws` of ε: mean of means, and √(mean of variances
        + variance of means). The floor under the scale is that of what is drawn.

        The ε are the same at every call, so that r(z | x) is a function of x: were its moments noisy, a density ratio
        that does not see them would find too little KL, by what z, standardised, tells of them.
        """
        count = draws if self.noise_size else 1
        drawn = torch.randn(count, self.noise_size, generator=torch.Generator().manual_seed(0))
        fixed = self.noise_scale * drawn.to(features)
        noise = fixed.repeat_interleave(len(features), dim=0)  # (count · B, noise_size)
        mean, log_scale = self.given(features.repeat(count, 1), noise)
        means, variances = mean.unflatten(0, (count, -1)), log_scale.mul(2).exp().unflatten(0, (count, -1))
        return Moments(means.mean(0), (variances.mean(0) + means.var(0, unbiased=False)).sqrt())


class ImplicitLatents(GaussianLatents):
    """
    q(z | x) = E_ε N(μ(x, ε), diag σ²(x, ε)): noise enters the network, and q may be of any shape.

    Its density has no closed form: KL(q(z | x, ε) ‖ p) in the mean over ε is an upper bound of KL(q(z | x) ‖ p), above
    it by I(z; ε | x); a density ratio gives the KL itself (adversarial variational Bayes, arXiv 1701.04722).

    The noise enters wide and each Gaussian starts narrow, so that it is the noise that spreads z from the first step:
    a q that starts as N(0, I) stays there, where the KL is 0 and has no gradient.
    """

    noise_scale = 2.0
    first_log_scale = -2.0

    def __init__(self, feature_size: int, latent_size: int, hidden: tuple[int, ...] = (64, 64), noise_size: int = 4):
        super().__init__(feature_size, latent_size, hidden, noise_size)


LATENT_POSTERIORS = {"gaussian": GaussianLatents, "implicit": ImplicitLatents}
