"""Variational autoencoders with continuous latents, and adversarial variational Bayes (arXiv 1701.04722).

    ELBO = E_q[log p(x | z)] − KL(q(z | x) ‖ p(z))

The KL of a Gaussian posterior has a closed log-density in it; that of an implicit one is found by a density ratio T.
`DensityRatioKL` is the part that the dVAE's style adversary uses too; `train_latent_model` stands alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from dvae import Moments
from dvae.continuous_posteriors import GaussianLatents
from dvae.latent_priors import LatentPrior

from ..loop.schedules import cosine
from ..loop.stepping import minimise, set_lr


class DensityRatioKL:
    """
    KL(q(z | x) ‖ p) of an implicit posterior by a discriminator T(features, z).

    adaptive_contrast: T compares q, standardised by its own moments, with N(0, I), so that it has to learn only what
        is not Gaussian: KL = E_q[T + log r − log p], r = N(moments). Without it T compares q with p itself and
        KL = E_q[T], which falls far short where the two are far apart, and is then no bound (section 3.3).
    draws: noises that the moments are averaged over; with 16 of them a posterior of few dimensions came out 6 % wide.
    """

    def __init__(
        self,
        posterior: GaussianLatents,
        prior: LatentPrior,
        discriminator: nn.Module,
        *,
        adaptive_contrast: bool = True,
        draws: int = 64,
    ):
        self.posterior, self.prior, self.discriminator = posterior, prior, discriminator
        self.adaptive_contrast, self.draws = adaptive_contrast, draws

    def kl(self, features: Tensor, z: Tensor) -> Tensor:
        """
        features (B, D), z (B, d) of q(z | x) -> (B,), an estimate in nats with a gradient to z and to the prior.

        T, the moments and the features hold still: right, because E_q ∇ log q = 0 (proposition 2).
        """
        if not self.adaptive_contrast:
            held = self.prior.log_prob(z.detach())  # T holds still, and with it its share of the prior's gradient
            return self.ratio(features, z) - (held - held.detach())
        return self.log_q(features, z) - self.prior.log_prob(z)

    def log_q(self, features: Tensor, z: Tensor) -> Tensor:
        """features (B, D), z (B, d) -> T + log r, (B,): with adaptive contrast the estimate of log q(z | x)."""
        moments: Moments = self.posterior.moments(features.detach(), self.draws)
        return self.ratio(features, moments.standardise(z)) + moments.log_prob(z)

    def ratio(self, features: Tensor, z: Tensor) -> Tensor:
        """T(features, z), (B,), with a gradient to z and none to its weights."""
        weights = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, weights, (features.detach(), z)).float()

    def contrasted(self, features: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, D), z (B, d) of q -> what T tells apart, (B, d) each, no gradient: of q, and of r or p."""
        with torch.no_grad():
            if not self.adaptive_contrast:
                return z.detach(), self.prior.sample(len(z))
            moments = self.posterior.moments(features, self.draws)
            return moments.standardise(z.detach()), torch.randn_like(z)

    def discriminator_loss(self, features: Tensor, z: Tensor, discriminator: nn.Module | None = None) -> Tensor:
        """
        E softplus(−T(x, z)) + E softplus(T(x, η)), scalar, in nats: at its least where T is the log-ratio.

        discriminator: what to call in place of the own one, as wrapped for several processes.
        """
        features = features.detach()
        both = torch.cat(self.contrasted(features, z))
        q_logits, r_logits = (discriminator or self.discriminator)(features.repeat(2, 1), both).float().chunk(2)
        return F.softplus(-q_logits).mean() + F.softplus(r_logits).mean()


class LatentModel(nn.Module):
    """
    p(x, z) = p(x | z) p(z), with q(z | x).

    posterior: one of `dvae.LATENT_POSTERIORS`, of features that are x itself. prior: one of `dvae.LATENT_PRIORS`.
    log_likelihood: (x (B, D), z (B, d)) -> log p(x | z), (B,), a module where it has weights.
    """

    def __init__(
        self, posterior: GaussianLatents, prior: LatentPrior, log_likelihood: Callable[[Tensor, Tensor], Tensor]
    ):
        super().__init__()
        self.posterior: GaussianLatents = posterior
        self.prior: LatentPrior = prior
        self.log_likelihood: Callable[[Tensor, Tensor], Tensor] = log_likelihood

    def elbo(self, x: Tensor, adversary: DensityRatioKL | None = None) -> dict[str, Tensor]:
        """
        x (B, D) -> elbo, log_likelihood, kl: one-sample estimates, (B,) each, in nats; elbo = log_likelihood − kl.

        kl: by the adversary; or without one from log q − log p, right for a Gaussian posterior and an upper bound for
        an implicit one. `z` (B, d) is the draw.
        """
        draw = self.posterior(x)
        log_likelihood = self.log_likelihood(x, draw.z)
        kl = draw.log_prob() - self.prior.log_prob(draw.z) if adversary is None else adversary.kl(x, draw.z)
        return {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl, "z": draw.z}


@dataclass
class LatentTraining:
    """
    steps of batch_size draws of x; both rates fall to 0 on a cosine. discriminator_steps: of T for each of the
    model's, and discriminator_warmup before its first. kl_steps: over which the KL's weight rises to 1 on a cosine.
    """

    steps: int = 3000
    batch_size: int = 512
    lr: float = 1e-3
    discriminator_lr: float = 2e-3
    discriminator_steps: int = 1
    discriminator_warmup: int = 0
    kl_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.99)


def train_latent_model(
    model: LatentModel,
    sample: Callable[[int], Tensor],
    training: LatentTraining,
    adversary: DensityRatioKL | None = None,
) -> None:
    """Trains a VAE in place, or with an adversary an AVB; sample: a count -> x (count, D)."""
    optimizer = torch.optim.Adam(model.parameters(), training.lr, training.betas)
    own = None
    if adversary is not None:
        own = torch.optim.Adam(adversary.discriminator.parameters(), training.discriminator_lr, training.betas)
    for step in range(training.steps):
        set_lr(optimizer, cosine(step, training.lr, 0.0, training.steps))
        if own is not None and adversary is not None:
            set_lr(own, cosine(step, training.discriminator_lr, 0.0, training.steps))
            for _ in range(training.discriminator_steps + training.discriminator_warmup * (step == 0)):
                x = sample(training.batch_size)
                with torch.no_grad():
                    z = model.posterior(x).z
                minimise(adversary.discriminator_loss(x, z), own)
        parts = model.elbo(sample(training.batch_size), adversary)
        kl_weight = cosine(step, 0.0, 1.0, training.kl_steps)
        minimise((kl_weight * parts["kl"] - parts["log_likelihood"]).mean(), optimizer)


class Bound(NamedTuple):
    """Means over draws, in nats: elbo = log_likelihood − kl."""

    elbo: float
    log_likelihood: float
    kl: float


@torch.no_grad()
def estimate_bound(
    model: LatentModel, x: Tensor, adversary: DensityRatioKL | None = None, draws: int = 100_000
) -> Bound:
    """The mean over x (n, D), each drawn draws / n times, rounded up."""
    parts = model.elbo(x.repeat(-(-draws // len(x)), 1), adversary)
    return Bound(*(parts[name].double().mean().item() for name in Bound._fields))
