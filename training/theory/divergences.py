"""Divergences with a right answer: of tables, of Gaussian mixtures by quadrature, and the Gaussian that fits best.

All in nats. Densities are of the real line; float64 gives twelve digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """
    p, q (…, K), each summing to 1 over K -> KL(p ‖ q) = Σ p log(p / q), (…,); infinite where q = 0 < p.

    What is 0 in p adds nothing, to the gradient neither: a probability that underflowed would make it nan.
    """
    p, q = torch.broadcast_tensors(p, q)
    empty = p == 0
    log_p, log_q = p.masked_fill(empty, 1).log(), q.masked_fill(empty, 1).log()
    return (p * (log_p - log_q)).sum(-1)


def categorical_jsd(p: Tensor, q: Tensor) -> Tensor:
    """p, q (…, K) -> ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q) / 2, (…,): from 0 to log 2."""
    middle = (p + q) / 2
    return (categorical_kl(p, middle) + categorical_kl(q, middle)) / 2


@dataclass
class GaussianMixture:
    """
    Σ_k weights_k N(means_k, scales_k²) on the real line; weights, means, scales: (K,), weights summing to 1.

    A single Gaussian is a mixture of one, `GaussianMixture.single(mean, scale)`.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor

    def __post_init__(self):
        for name in ("weights", "means", "scales"):  # of whole numbers no grid would be between them
            part = getattr(self, name)
            if not part.is_floating_point():
                setattr(self, name, part.to(torch.get_default_dtype()))
        shapes = [tuple(part.shape) for part in (self.weights, self.means, self.scales)]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise ValueError(f"weights, means, scales must be (K,) each: they are {shapes}")
        total = self.weights.detach().sum().item()
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights sum to {total}: divide them by it")

    @classmethod
    def single(cls, mean: Tensor | float, scale: Tensor | float) -> "GaussianMixture":
        """mean, scale: scalars -> N(mean, scale²)."""
        mean, scale = torch.as_tensor(mean), torch.as_tensor(scale)
        return cls(torch.ones_like(mean)[None], mean[None], scale[None])

    def log_prob(self, x: Tensor) -> Tensor:
        """x (…) -> log density (…)."""
        u = (x[..., None] - self.means) / self.scales  # (…, K)
        log_normal = -u.square() / 2 - self.scales.log() - math.log(2 * math.pi) / 2
        return torch.logsumexp(self.weights.log() + log_normal, dim=-1)

    def expectation(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """
        E f(x), a scalar; f takes (K, N) to (K, N).

        The trapezoid rule in u = (x − mean_k) / scale_k on ±12, for each component: for smooth f its error falls
        faster than any power of the step, and it follows the components however far apart they are. A step is a
        hundredth of a scale, so f must not change within less: two mixtures of scales further apart than a hundred
        times each other's are beyond `kl` and `jsd`.
        """
        u = torch.linspace(-12, 12, 2401, dtype=self.means.dtype, device=self.means.device)
        density = torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi) * (24 / 2400)
        values = f(self.means[:, None] + self.scales[:, None] * u)
        return (self.weights[:, None] * density * values).sum()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the whole."""
        mean = (self.weights * self.means).sum()
        variance = (self.weights * (self.scales.square() + (self.means - mean).square())).sum()
        return mean, variance.sqrt()

    def without_empty(self) -> "GaussianMixture":
        """The same without components of weight 0."""
        kept = self.weights > 0
        return GaussianMixture(self.weights[kept], self.means[kept], self.scales[kept])

    def part(self, first: int, last: int) -> "GaussianMixture":
        """Components first..last in the order of their means, reweighted to sum to 1."""
        chosen = self.means.argsort()[first : last + 1]
        return GaussianMixture(
            self.weights[chosen] / self.weights[chosen].sum(), self.means[chosen], self.scales[chosen]
        )


def kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """KL(p ‖ q) = E_p[log p − log q], a scalar, in nats."""
    return p.expectation(lambda x: p.log_prob(x) - q.log_prob(x))


def jsd(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q) / 2, a scalar in nats, from 0 to log 2."""

    def log_middle(x: Tensor) -> Tensor:
        return torch.logaddexp(p.log_prob(x), q.log_prob(x)) - math.log(2)

    return (
        p.expectation(lambda x: p.log_prob(x) - log_middle(x)) + q.expectation(lambda x: q.log_prob(x) - log_middle(x))
    ) / 2


DIVERGENCES: dict[str, Callable[[GaussianMixture, GaussianMixture], Tensor]] = {
    "forward": kl,  # KL(data ‖ model): maximum likelihood, which covers
    "reverse": lambda data, model: kl(model, data),  # KL(model ‖ data), which seeks one mode
    "jsd": jsd,  # what a GAN minimises: which of the two it does depends on the mixture
}


class GaussianFit(NamedTuple):
    """N(mean, scale²) and its divergence from the mixture, in nats."""

    mean: float
    scale: float
    divergence: float


def fit_gaussian(mixture: GaussianMixture, divergence: str) -> GaussianFit:
    """
    The Gaussian nearest to the mixture in "forward" KL(data ‖ model), "reverse" KL(model ‖ data), or "jsd".

    The last two have several minima, so it starts at the moments of every run of neighbouring components (each alone,
    each pair, … all) and takes the best; of equal ones, as in a symmetric mixture, the first found.
    """
    return min(gaussian_fits(mixture, divergence), key=lambda fit: fit.divergence)


def gaussian_fits(mixture: GaussianMixture, divergence: str) -> list[GaussianFit]:
    """The minimum that each start falls to: K (K + 1) / 2 of them, from one end of the line to the other."""
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence={divergence!r} must be one of {', '.join(DIVERGENCES)}")
    mixture = GaussianMixture(mixture.weights.double(), mixture.means.double(), mixture.scales.double())
    mixture = mixture.without_empty()
    mean, scale = mixture.moments()
    mixture = GaussianMixture(mixture.weights, (mixture.means - mean) / scale, mixture.scales / scale)
    count = len(mixture.means)
    parts = [mixture.part(first, last) for first in range(count) for last in range(first, count)]
    fits = [_fit_from(mixture, DIVERGENCES[divergence], *part.moments()) for part in parts]
    mean, scale = mean.item(), scale.item()
    return [GaussianFit(mean + scale * fit.mean, scale * fit.scale, fit.divergence) for fit in fits]


def _fit_from(mixture: GaussianMixture, measure: Callable, mean: Tensor, scale: Tensor) -> GaussianFit:
    """L-BFGS on the mean and the log of the scale, from one start."""
    mean, log_scale = mean.clone().requires_grad_(), scale.log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [mean, log_scale], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = measure(mixture, GaussianMixture.single(mean, log_scale.exp()))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        value = measure(mixture, GaussianMixture.single(mean, log_scale.exp()))
    return GaussianFit(mean.item(), log_scale.exp().item(), value.item())


def kernel_density_log_prob(points: Tensor, samples: Tensor, bandwidth: float) -> Tensor:
    """
    points (n, d), samples (m, d) -> log (1/m) Σ_j N(point; sample_j, bandwidth² I), (n,), in nats.

    With a tiny bandwidth it is the model that has learned its samples by heart: its own samples are perfect pictures,
    and the log-likelihood of others is −distance² / 2·bandwidth².
    """
    if points.ndim != 2 or samples.ndim != 2 or points.shape[1] != samples.shape[1]:
        raise ValueError(f"points {tuple(points.shape)} and samples {tuple(samples.shape)} must be (n, d) and (m, d)")
    squared = torch.cdist(points, samples, compute_mode="donot_use_mm_for_euclid_dist").square()  # (n, m)
    dimensions = points.shape[1]
    log_normal = -squared / (2 * bandwidth**2) - dimensions * math.log(bandwidth * math.sqrt(2 * math.pi))
    return torch.logsumexp(log_normal, dim=1) - math.log(len(samples))


def diluted_log_prob(log_p: Tensor, log_noise: Tensor, share: float) -> Tensor:
    """
    log(share · p + (1 − share) · noise), elementwise, from the two log densities.

    Never below log p + log share: a model of which 99 % of the samples are noise loses at most log 100 = 4.605 nats
    of likelihood, next to nothing where log p is a thousand (arXiv 1511.01844, section 3.2).
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must be from 0 to 1")
    if share in (0, 1):
        return log_p if share else log_noise
    return torch.logaddexp(math.log(share) + log_p, math.log1p(-share) + log_noise)
